"""Channels pass CenterCropPad where their axis keeps its length at every size of the input, and stay elsewhere."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import prune

TEXT = """
<ir_version: 8, opset_import: ["": 18]>
g (float[N, 3, H, 5] x) => (float[N, 2, A, B] y) <int64[1] eight = {8}> {
    r = Conv(x, w)
    height = Shape <start = 2, end = 3> (x)
    width = Shape <start = 1, end = 2> (r)
    p = CenterCropPad <axes = [1]> (r, TARGET)
    y = Conv(p, v)
}
"""


@pytest.mark.parametrize(("target", "passes"), [("eight", True), ("width", True), ("height", False)])
def test_channels_pass_where_their_axis_keeps_its_length(target: str, passes: bool) -> None:
    model = onnx.parser.parse_model(TEXT.replace("TARGET", target))
    draws = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 1, 1)), ("v", (2, 8, 1, 1))):
        model.graph.initializer.append(numpy_helper.from_array(draws.random(shape, np.float32), name))
    result = prune(model, ratio=0.5, round_to=1, compensate="none", input_shapes={"x": [1, 3, 8, 5]}, measure=False)
    assert result.report.changed == passes
