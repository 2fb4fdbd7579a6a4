"""Costs of a network that its layers alone do not tell."""

import onnx

from onnxprune.channels import analyse
from onnxprune.pipeline.costs import from_weights, peak_activations

GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
random (float[1, 8] x) => (float[1, 8] y) <float[1, 8] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
  drawn = RandomUniformLike(w)
  scaled = Neg(w)
  both = Add(drawn, scaled)
  y = Mul(both, x)
}"""


def test_what_is_drawn_is_no_weight_whatever_its_shape_comes_from() -> None:
    deps = analyse(onnx.parser.parse_model(GRAPH))
    assert from_weights(deps) == {"scaled"}
    assert peak_activations(deps, deps.nothing) == 2 * 8 * 4
