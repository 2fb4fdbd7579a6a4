"""Values inside bodies, given at the top of the graph."""

import numpy as np
import onnx
import pytest
from law import run

from onnxprune.runtime.lifted import Inside, lift

TEXTS = {
    "If": """y, z = If(flag) <then_branch = t () => (float[2] a, float[2] b) { a = Neg(x)  b = Exp(x) },
                              else_branch = e () => (float[2] c, float[2] d) { c = Abs(x)  d = Relu(x) }>""",
    "Loop": """y, z = Loop(three, yes, x) <body = l (int64 i, bool go, float[2] s)
                   => (bool on, float[2] a, float[2] b) { on = Identity(go)  a = Neg(s)  b = Exp(s) }>""",
    "Scan": """y, z = Scan(x, two) <num_scan_inputs = 1, body = l (float[2] s, float[2] r)
                   => (float[2] a, float[2] b) { a = Add(s, r)  b = Exp(s) }>""",
}


@pytest.mark.parametrize("key", ["a", "b"])
@pytest.mark.parametrize("op", TEXTS)
def test_what_a_body_gives_is_given_once_more(op: str, key: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool flag) => (float[N] y, float[M] z)
        <int64 three = {{3}}, bool yes = {{1}}, float[2,2] two = {{1, 2, 3, 4}}> {{ {TEXTS[op]} }}"""
    model = onnx.parser.parse_model(text)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    feed = {"x": np.float32([1, -2]), "flag": np.array(True)}
    before = run(model, feed)
    name = f"y.{'then_branch' if op == 'If' else 'body'}/{key}"
    lift(model.graph, {name: Inside(onnx.TensorProto.FLOAT, 1)}, ())
    *after, found = run(model, feed)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    states = [np.float32([1, -2])]
    for r in np.float32([[1, 2], [3, 4], [0, 0]]):
        states.append(states[-1] + r if op == "Scan" else -states[-1])
    wanted = {"If": states[:1], "Loop": states[:3], "Scan": states[:2]}[op]
    last = {"If": states[1:2], "Loop": states[1:4], "Scan": states[1:3]}[op]
    expected = np.stack(last if key == "a" else [np.exp(s) for s in wanted])
    np.testing.assert_allclose(found, expected[0] if op == "If" else expected, rtol=1e-6)
