"""Where a pruned file comes from, in its metadata."""

import hashlib
import json

import onnx

from onnxprune.model.external import ExternalStyle
from onnxprune.model.graphs import refill
from onnxprune.model.write import size_of
from onnxprune.surgery.binding import OWN
from onnxprune.surgery.plan import Plan
from onnxprune.version import VERSION


def sign(pruned: onnx.ModelProto, plan: Plan, most: int, style: ExternalStyle | None) -> None:
    """Provenance under one prefix of the metadata, as long for any weights; what an earlier run left is replaced.

    Args:
        most: bytes that the file may have, those of the original; of what does not fit, the last is left out.
        style: how its weights are written.
    """
    refill(pruned.metadata_props, [p for p in pruned.metadata_props if not p.key.startswith(OWN)])
    text = json.dumps({**plan.to_json(), "source": plan.source["sha256"]}, sort_keys=True)  # not the file's name
    facts = {
        "onnxprune.content": plan.content or "0" * 64,
        "onnxprune.source": str(plan.source["sha256"]),
        "onnxprune.version": VERSION,
        "onnxprune.plan": hashlib.sha256(text.encode()).hexdigest(),
        "onnxprune.weights": hashlib.sha256(json.dumps(plan.digests, sort_keys=True).encode()).hexdigest(),
        "onnxprune.options": json.dumps(plan.options, sort_keys=True),
    }
    room = most - size_of(pruned, style)
    for key, value in facts.items():
        made = onnx.ModelProto()
        made.metadata_props.add(key=key, value=value)
        room -= made.ByteSize()
        if room >= 0:
            pruned.metadata_props.extend(made.metadata_props)
