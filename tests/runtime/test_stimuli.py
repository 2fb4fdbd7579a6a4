"""The sizes that the proof runs at."""

import numpy as np
import onnx.parser
import pytest

from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs
from onnxprune.runtime.stimuli import Stimuli, explored

GRAPHS = {
    "its batch is written out": "<int64[3] to = {1, 4, 64}> { y = Reshape(x, to) }",
    "open": "{ y = Relu(x) }",
}


@pytest.mark.parametrize("name", GRAPHS)
def test_as_many_positions_are_laid_otherwise(name: str) -> None:
    """Maps of 16 x 4 where they were 8 x 8: what takes one axis for the other goes unseen at all other sizes."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> graph (float[n, 4, h, w] x) => (float y) {GRAPHS[name]}'
    )
    runs = explored(make_session(model), Stimuli(tuple(model_inputs(model)), {"x": (1, 4, 8, 8)})).runs
    assert (4, 16, 4) in {np.shape(run.feed["x"])[1:] for run in runs}
