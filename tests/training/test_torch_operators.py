"""The table of differentiable operators: each is what onnxruntime computes, and its gradient is the slope of that.

Slopes are central differences of onnxruntime along a random direction, in float64 where it has a kernel for that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import rows_attention
import rows_elementwise
import rows_linear
import rows_shape
import rows_training
from legacy import LEGACY, run_legacy
from onnx import ModelProto, TensorProto
from rows import Row, row

pytest.importorskip("torch", reason="torch, the extra `train`, is not installed")
import torch

from onnxprune.errors import ModelError
from onnxprune.operators.arrays import from_array
from onnxprune.operators.registry import OPERATORS
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import Variant
from onnxprune.training.module import TorchModule
from onnxprune.training.program import every

TABLE = {name for name, row in OPERATORS.items() if row.forward is not None}
Arrays = Mapping[str, np.ndarray]

WHOLE = rows_training.QUANTISED  # operators that round, with steps and ranges that a slope can be seen in
EXACT = [  # float operators
    row
    for row in (*rows_linear.ROWS, *rows_elementwise.ROWS, *rows_shape.ROWS, *rows_attention.ROWS, *rows_training.ROWS)
    if row.op in TABLE and row.op not in {rounded.op for rounded in WHOLE}
]
# Steps of differences, and the relative error that is allowed there.  One has to fit: small steps drown in rounding
# where something is computed in float32, large ones step over kinks.
FINE, COARSE = [(1e-6, 1e-5)], [(1e-2, 2e-2), (2e-3, 2e-2), (2e-4, 2e-2)]


def wide(model: ModelProto, arrays: Arrays) -> tuple[ModelProto, Arrays]:
    """The same node in float64."""
    copy = ModelProto.FromString(model.SerializeToString())
    for value in copy.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return copy, {n: np.asarray(x, np.float64) if x.dtype == np.float32 else x for n, x in arrays.items()}


def session_of(model: ModelProto) -> Session:
    return make_session(Variant(model, unsigned=True), providers="cpu", threads=1)


class Legacy:
    """An operator of so old a form that onnxruntime has no kernel for it, in numpy."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model

    def run(self, feed: Arrays, names: Sequence[str] | None = None) -> Arrays:
        return dict(zip([o.name for o in self.model.graph.output], run_legacy(self.model, feed), strict=True))


def started(row: Row) -> tuple[ModelProto, Arrays, Any]:
    """The row in float64, in float32 where onnxruntime has no such kernel, or in numpy where it has none at all."""
    model, data, weights = row.build(seed=1)
    arrays = {name: np.asarray(x) for name, x in {**data, **weights}.items()}
    try:
        model64, arrays64 = wide(model, arrays)
        session = session_of(model64)
        session.run(arrays64)
        return model64, arrays64, session
    except ModelError as error:
        missing = error
    try:
        return model, arrays, session_of(model)
    except ModelError:
        if row.kind not in LEGACY or "Could not find an implementation" not in str(missing):
            raise
        return model, arrays, Legacy(model)


def given(arrays: Arrays, network: TorchModule, *, whole: bool = False) -> dict[str, torch.Tensor]:
    """Inputs for torch; those into which a gradient goes ask for one, whole numbers as the floats that carry them."""
    (step,) = network.steps
    found = {}
    for position, name in enumerate(step.reads):
        if not name:
            continue
        x = from_array(arrays[name])
        takes = step.forward.passes(step.node, position)
        if takes and whole and not x.is_floating_point():
            x = x.float()
        found[name] = x.requires_grad_(takes and x.is_floating_point())
    return found


@pytest.mark.parametrize("row", EXACT, ids=str)
def test_equals_onnxruntime_and_its_slope(row: Row) -> None:
    model, arrays, session = started(row)
    network = TorchModule.of(model)
    inputs = given(arrays, network)
    outputs, right = network(inputs), session.run(arrays)
    for name, wanted in right.items():
        found = outputs[name].detach().numpy()
        assert found.shape == wanted.shape
        np.testing.assert_allclose(
            found, wanted, rtol=1e-4, atol=1e-5 * max(1, np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        )
    check_slopes(session, arrays, inputs, {n: y for n, y in outputs.items() if y.requires_grad})


def check_slopes(session: Any, arrays: Arrays, inputs: Arrays, outputs: dict[str, torch.Tensor]) -> None:
    """The gradient of a random sum of the outputs along a random direction of each input."""
    rng = np.random.default_rng(2)
    weights = {name: rng.normal(size=y.shape) for name, y in outputs.items()}
    if not outputs:
        return
    sum((y * torch.from_numpy(weights[n]).to(y.dtype)).sum() for n, y in outputs.items()).backward()

    def total(x: Arrays) -> float:
        found = session.run(x, list(weights))
        return sum(float((found[n].astype(np.float64) * w).sum()) for n, w in weights.items())

    noise = 1e-6 * sum(float(np.linalg.norm(y.detach().numpy() * weights[n])) for n, y in outputs.items())
    for name, x in inputs.items():
        if not x.requires_grad:
            continue
        assert x.grad is not None, f"no gradient goes into {name}"
        kind = arrays[name].dtype.type
        gradient, direction = x.grad.double().numpy(), rng.normal(size=x.shape)
        slope, errors = float((gradient * direction).sum()), []
        for step, share in FINE + COARSE if kind == np.float64 else COARSE:
            ends = [total({**arrays, name: np.asarray(arrays[name] + s * step * direction, kind)}) for s in (1, -1)]
            allowed = share * np.linalg.norm(gradient) + (noise / step if share > 1e-3 else 1e-7)
            errors.append(abs((ends[0] - ends[1]) / (2 * step) - slope) / allowed)
        assert min(errors) <= 1, (
            f"the slope along {name} is {slope:.6g}, off by {min(errors):.1f} times what is allowed"
        )


@pytest.mark.parametrize("row", WHOLE, ids=str)
def test_rounded_operators_equal_onnxruntime_and_let_gradients_straight_through(row: Row) -> None:
    model, data, weights = row.build(seed=1)
    arrays, session, network = {**data, **weights}, session_of(model), TorchModule.of(model)
    inputs = given(arrays, network, whole=True)
    outputs, right = network(inputs), session.run(arrays)
    steps = {n: 1.0 if y.dtype.kind in "iu" else 1e-4 * np.abs(y).max() for n, y in right.items()}
    for name, wanted in right.items():
        gap = np.abs(outputs[name].detach().double().numpy() - wanted.astype(np.float64))
        assert gap.max() <= steps[name]
        assert np.count_nonzero(gap > 1e-3) <= 0.02 * gap.size or wanted.dtype.kind == "f"
    check_straight(session, arrays, inputs, {n: y for n, y in outputs.items() if y.requires_grad})


def check_straight(session: Session, arrays: Arrays, inputs: Arrays, outputs: dict[str, torch.Tensor]) -> None:
    """Steps that are wide enough for rounding to average out: by whole numbers, or by several quanta."""
    rng = np.random.default_rng(2)
    weights = {n: rng.normal(size=y.shape) for n, y in outputs.items()}
    sum((y * torch.from_numpy(weights[n]).to(y.dtype)).sum() for n, y in outputs.items()).backward()

    def total(x: Arrays) -> float:
        found = session.run(x, list(weights))
        return sum(float((found[n].astype(np.float64) * w).sum()) for n, w in weights.items())

    # A rounded element is off by 0.29 steps (root mean square); three times that of the difference of two runs.
    rounded = [w for n, w in weights.items() if session.run(arrays)[n].dtype.kind in "iu"]
    rounding = 0.6 * sum(float(np.linalg.norm(w)) for w in rounded)
    for name, x in inputs.items():
        if not x.requires_grad:
            continue
        assert x.grad is not None
        kind, value = arrays[name].dtype, arrays[name].astype(np.float64)
        sign = np.sign(x.grad.double().numpy())  # uphill everywhere, so that the slope stands out
        direction = sign * (
            max(1, np.ptp(value) // 40) * rng.integers(1, 3, x.shape)
            if kind.kind in "iu"
            else rng.uniform(0.1, 0.3, x.shape)
        )
        inside = (value > value.min() + 0.3) & (value < value.max() - 0.3)  # the ends make a dynamic scale
        direction = direction * inside if inside.any() else direction
        slope = float((x.grad.double().numpy() * direction).sum())
        ends = [total({**arrays, name: np.asarray(value + s * direction, kind)}) for s in (1, -1)]
        allowed = 0.05 * slope + rounding
        assert slope > 3 * allowed, "this row cannot show a slope"
        assert abs((ends[0] - ends[1]) / 2 - slope) <= allowed


@pytest.mark.parametrize("name", rows_training.GRAPHS)
def test_control_flow_and_sequences(name: str) -> None:
    model = onnx.parser.parse_model(rows_training.GRAPHS[name])
    rng = np.random.default_rng(0)
    network, session = TorchModule.of(model), session_of(model)
    arrays = {
        v.name: rng.normal(size=[d.dim_value for d in v.type.tensor_type.shape.dim]).astype(np.float32)
        if v.type.tensor_type.elem_type == TensorProto.FLOAT
        else np.array(True)
        for v in model.graph.input
    }
    for arrays_now in (arrays, {n: np.asarray(~x if x.dtype == bool else -x) for n, x in arrays.items()}):
        inputs = {n: from_array(x).requires_grad_(x.dtype == np.float32) for n, x in arrays_now.items()}
        outputs, right = network(inputs), session.run(arrays_now)
        for output, wanted in right.items():
            np.testing.assert_allclose(outputs[output].detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
        check_slopes(session, arrays_now, inputs, {n: y for n, y in outputs.items() if y.requires_grad})


def test_a_celu_that_divides_by_zero_gives_what_onnxruntime_gives() -> None:
    model, data, _ = row("Celu", (2, 3, 8), free=0, alpha=0.0).build(seed=1)
    (out,) = TorchModule.of(model)({n: from_array(x) for n, x in data.items()}).values()
    (wanted,) = session_of(model).run(data).values()
    assert np.isnan(wanted).any()
    assert not np.isnan(wanted).all()
    np.testing.assert_array_equal(out.numpy(), wanted)


@pytest.mark.parametrize("name", rows_training.DRAWN)
def test_what_is_drawn_has_the_right_shape_and_no_gradient(name: str) -> None:
    model = onnx.parser.parse_model(rows_training.DRAWN[name])
    x = torch.rand(3, 4, requires_grad=True)
    (out,) = TorchModule.of(model)({"x": x}).values()
    assert out.shape[0] == 3
    assert not out.requires_grad


def operators_of(texts: Mapping[str, str]) -> Iterator[str]:
    for text in texts.values():
        model = onnx.parser.parse_model(text)
        for step in every(TorchModule.of(model).steps):
            yield f"{step.node.domain}:{step.node.op}" if step.node.domain else step.node.op


def test_every_operator_has_a_row() -> None:
    tried = {row.op for row in (*EXACT, *WHOLE)}
    tried |= {*operators_of(rows_training.GRAPHS), *operators_of(rows_training.DRAWN)}
    assert sorted(TABLE - tried) == []
