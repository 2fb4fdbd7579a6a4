"""How much each group's channels are worth, for a user to look at."""

from typing import Any

from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.group_losses import Sensitivity, curves
from onnxprune.pipeline.inspect import analysed
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.progress import Progress, silent
from onnxprune.pipeline.prune import lab_of
from onnxprune.pipeline.signature import takes


@takes("sensitivity")
def sensitivity(source: Any, *, progress: Progress = silent, **options: Any) -> Sensitivity:
    """The loss of each group as a function of how many of its channels are gone.

    With data, one group at a time is masked and the outputs are compared with the original's; without, the loss is
    modelled from the weights: what the removed channels hold that no other expresses, as their readers weigh it.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        options: as in the signature; `method` decides which channels go first.

    Raises:
        UsageError: the options make no sense for this model.
        ModelError, FileError: the model cannot be read or run.
    """
    run = analysed(source, "sensitivity", options, progress)
    with limited(run.request, source):
        deps, lab = run.original.deps, lab_of(run, weights := Weights(run.original.network, run.original.deps))
        chooser = Chooser(deps, weights, run.request, run.file.size, progress, lab)
        return curves(lab, weights, chooser.free, chooser.select, chooser.ranking, progress)
