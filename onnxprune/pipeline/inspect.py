"""A look at a network: its groups, what they cost and are worth, what is frozen and why, and unknown operators."""

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import CheckFailed, ModelError, OnnxPruneError
from onnxprune.keyed import keyed
from onnxprune.model.graphs import DEFAULT
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.roles import Role
from onnxprune.pipeline.calibration import calibrating
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.costs import homes_of, layer_costs, layer_rows, peak_activations
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.report import frozen_rows, untouched
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.rotate import in_best_bases, outlook
from onnxprune.pipeline.run import Run, start
from onnxprune.pipeline.signature import takes, worded
from onnxprune.progress import Progress, silent
from onnxprune.report.inspection import GroupShare, Inspection, UnknownRow
from onnxprune.report.sensitivities import Sensitivity
from onnxprune.report.summary import Figures
from onnxprune.report.words import listed
from onnxprune.runtime.specs import model_inputs, model_outputs


@takes("inspect")
def inspect(source: Any, *, progress: Progress = silent, **options: Any) -> Inspection:
    """What can be removed from a network, and what cannot.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.

    Raises:
        ModelError: the model is invalid.
        UsageError: input shapes that do not fit.
        FileError: the file cannot be read.
    """
    run = analysed(source, "inspect", options, progress)
    deps, proto, cut = run.original.deps, run.file.network.graph, outlook(run)
    if deps.thawed:
        labels = [deps.nodes[k].label for k in deps.thawed]
        run.log.notes.append(
            f"thawed: {listed(labels, len(labels))} would take statistics over the channels that stay alone"
        )
    taken = {s.name: deps.statics.shapes[s.name] for s in model_inputs(proto) if s.name in deps.statics.shapes}
    return Inspection(
        source=str(run.file.path or "a model from memory"),
        sha256=run.file.sha256,
        opset=run.file.opset,
        ir_version=proto.ir_version,
        nodes=len(deps.nodes),
        inputs=tuple(map(str, model_inputs(proto))),
        outputs=tuple(map(str, model_outputs(proto))),
        figures=Figures(deps.params(), deps.macs(), run.file.size, activations=peak_activations(deps, deps.nothing)),
        groups=group_shares(cut.deps, cut.rotated),
        frozen=frozen_rows(cut.deps),
        unknown=unknown_rows(deps),
        input_shapes=taken,
        warnings=tuple(map(worded, run.log.warnings)),
        notes=tuple(map(worded, (*run.log.notes, *(cut.notes or untouched(deps))))),
        layers=layer_rows(deps, deps.nothing),
    )


def analysed(source: Any, command: str, options: Mapping[str, Any], progress: Progress = silent) -> Run:
    """Load and analyse, with input sizes that the model runs with; with usual ones where it cannot be run here."""
    request = Request.of(options, command, ratio=0.0, compensate="none")
    with limited(request, source):
        try:
            return start(source, request, progress)
        except (ModelError, CheckFailed) as error:
            try:
                run = start(source, replace(request, verify=False, measure=False), progress)
            except OnnxPruneError:
                raise error from None
            run.log.warnings.append(str(error))
            return run


def group_shares(deps: Dependencies, rotated: Container[str] = ()) -> tuple[GroupShare, ...]:
    """A row for each group, in the order of the network; what a layer costs goes to the groups that it writes.

    Args:
        rotated: groups that are cut in another basis.
    """
    homes, number = homes_of(deps), len(deps.groups)
    written: dict[int, np.ndarray] = {}  # node -> channels that it writes of each group, others last
    for use in deps.uses:
        for labels in use.axes:
            if use.node >= 0 and not is_fixed(labels) and (deps.roles[labels] & Role.WRITE).all():
                counts = np.bincount(deps.owners[deps.component[labels]] % (number + 1), minlength=number + 1)
                written[homes[use.node]] = written.get(homes[use.node], 0) + counts
    macs, params = layer_costs(deps, deps.nothing)
    total = sum(macs.values())
    rows = []
    for g, group in enumerate(deps.groups):
        shares = {n: counts[g] / counts.sum() for n, counts in written.items() if counts[g]}
        work, held = (sum(cost.get(n, 0) * share for n, share in shares.items()) for cost in (macs, params))
        members = tuple(dict.fromkeys(deps.nodes[n].label for n in shares))
        share, turned = work / total if total else 0.0, group.name in rotated
        rows.append(GroupShare(group.name, len(group), members, share, round(held), turned))
    return tuple(row for row in rows if row.channels > 1)  # one channel has to stay


def unknown_rows(deps: Dependencies) -> tuple[UnknownRow, ...]:
    """Operators that froze what they touch since no rule covers them there."""
    rows = []
    for index, reason in deps.unknown.items():
        proto = deps.nodes[index].proto
        operator = f"{proto.domain}::{proto.op_type}" if proto.domain not in DEFAULT else proto.op_type
        rows.append(((operator, reason), deps.nodes[index].label))
    return tuple(UnknownRow(operator, tuple(nodes), reason) for (operator, reason), nodes in keyed(rows).items())


@takes("sensitivity")
def sensitivity(source: Any, *, progress: Progress = silent, **options: Any) -> Sensitivity:
    """The loss of each group as a function of how many of its channels are gone.

    With data, one group at a time is masked and the outputs are compared with the original's; without, the loss is
    modelled from the weights: what the removed channels hold that no other expresses, as their readers weigh it.
    With the method obs it is that of the repair, on the data or on drawn samples: layers that read the group are solved
    again.  Widths that `prune` cuts in another basis are looked at in that basis, which is measured on the data or on
    drawn samples.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.

    Raises:
        UsageError: the options make no sense for this model.
        ModelError, FileError: the model cannot be read or run.
    """
    run = analysed(source, "sensitivity", options, progress)
    with limited(run.request, source):
        samples = calibrating(run.original, run.split.fit, progress)
        run, rotated = in_best_bases(run, samples)
        asked = replace(run.request, ratio=None, allocation="sensitivity")
        found = Chooser.of(replace(run, request=asked), samples, rotated).sensitivity
        assert found is not None
        return found
