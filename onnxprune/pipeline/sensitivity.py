"""How much each group's channels are worth, for a user to look at."""

from dataclasses import replace
from typing import Any

from onnxprune.pipeline.calibration import calibrating
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.inspect import analysed
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.rotate import in_best_bases
from onnxprune.pipeline.signature import takes
from onnxprune.progress import Progress, silent
from onnxprune.report.sensitivities import Sensitivity


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
