"""What a decision comes to: its plan, the model as it will be written, where that comes from, and its bytes."""

import hashlib
import json
from dataclasses import replace

import onnx

from onnxprune.model.external import ExternalStyle
from onnxprune.model.graphs import refill
from onnxprune.model.network import Network
from onnxprune.model.write import size_of
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.run import Run
from onnxprune.surgery.binding import OWN
from onnxprune.surgery.plan import Plan, make_plan
from onnxprune.surgery.recovery.replaced import with_biases
from onnxprune.surgery.rotation.turn import Rotation
from onnxprune.version import VERSION


def rewritten(decision: Decision) -> tuple[Plan, Network]:
    """The plan of a decision, and the network as it will be written."""
    with decision.run.log.stage("plan"):
        plan = _plan(decision)
    with decision.run.log.stage("rewrite"):
        return plan, _cut(decision, plan).materialized()


def style_of(run: Run) -> ExternalStyle | None:
    """How weights are stored outside; None where they stay inside."""
    return run.file.external or (ExternalStyle() if run.request.save_as_external_data else None)


def written_bytes(run: Run, choice: Choice) -> int:
    """Bytes of the file that a choice makes; the biases that a repair adds are there, whatever they will hold."""
    study = run.original
    if run.request.compensate != "none" and choice.kept:
        study = study.reanalysed(with_biases(study.network, study.deps, study.dead(choice.kept)))
    decision = Decision(run, choice, study)
    return size_of(_cut(decision, _plan(decision)), style_of(run))


def _plan(decision: Decision) -> Plan:
    run, kept = decision.run, decision.kept
    origin = {"sha256": run.file.sha256, "name": run.file.path.name if run.file.path else None}
    moved = run.alignment if kept else None
    plan = make_plan(run.original.deps, kept, source=origin, options=decision.options, alignment=moved)
    return replace(plan, rotation=run.rotation if kept else Rotation())


def _cut(decision: Decision, plan: Plan) -> Network:
    run = decision.run
    return signed(decision.cut, plan, run.file.size, style_of(run)) if decision.kept else run.file.network


def signed(network: Network, plan: Plan, most: int, style: ExternalStyle | None) -> Network:
    """With provenance under one prefix of the metadata, as long for any weights; what an earlier run left is replaced.

    Args:
        most: bytes that the file may have, those of the original; of what does not fit, the last is left out.
        style: how its weights are written.
    """
    out = network.own()
    own = out.graph.metadata_props
    refill(own, [p for p in own if not p.key.startswith(OWN)])
    text = json.dumps({**plan.to_json(), "source": plan.source["sha256"]}, sort_keys=True)  # not the file's name
    facts = {
        "onnxprune.content": plan.content or "0" * 64,
        "onnxprune.source": str(plan.source["sha256"]),
        "onnxprune.version": VERSION,
        "onnxprune.plan": hashlib.sha256(text.encode()).hexdigest(),
        "onnxprune.weights": hashlib.sha256(json.dumps(plan.digests, sort_keys=True).encode()).hexdigest(),
        "onnxprune.options": json.dumps(plan.options, sort_keys=True),
    }
    room = most - size_of(out, style)
    for key, value in facts.items():
        made = onnx.ModelProto()
        made.metadata_props.add(key=key, value=value)
        room -= made.ByteSize()
        if room >= 0:
            own.extend(made.metadata_props)
    return out
