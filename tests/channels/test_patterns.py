"""Every coupling pattern is cut fully and right: the odd channels of each network are exactly dead."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from law import waste
from patterns.builder import PATTERNS, Pattern

from onnxprune.channels import Dependencies, Group, analyse
from onnxprune.surgery import cut, mask

NAMES = sorted(PATTERNS)
RELEASE = tuple(map(int, ort.__version__.split(".")[:2]))
WEIGHTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.INT32)


def run(model: onnx.ModelProto, pattern: Pattern, seed: int = 0) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    if pattern.kind != onnx.TensorProto.FLOAT:
        kind = onnx.helper.tensor_dtype_to_np_dtype(pattern.kind)
        return session.run(None, {"x": rng.integers(0, 9, pattern.run).astype(kind)})
    return session.run(None, {"x": rng.standard_normal(pattern.run).astype(np.float32)})


def analysed(model: onnx.ModelProto, pattern: Pattern, heads: bool = True) -> Dependencies:
    return analyse(model, input_shapes={"x": pattern.run}, heads=heads)


def norms(model: onnx.ModelProto, group: Group) -> np.ndarray:
    """Norm of the filters of each channel of a group."""
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    total = np.zeros(len(group))
    for slot in group.writers:
        squares = np.square(np.moveaxis(tensors[slot.source].astype(float), slot.axis, 0))
        total += squares.reshape(len(squares), -1).sum(axis=1)[slot.positions].sum(axis=1)
    return total


def weakest(model: onnx.ModelProto, deps: Dependencies) -> np.ndarray:
    """Half of each group, the smallest filters first."""
    kept = {g.name: np.sort(np.argsort(norms(model, g), kind="stable")[len(g) // 2 :]) for g in deps.groups}
    return deps.dead(kept)


def elements(model: onnx.ModelProto) -> int:
    """Elements of all weights that are used; a scalar is none."""
    used = {name for node in model.graph.node for name in node.input}
    return sum(
        int(np.prod(t.dims)) for t in model.graph.initializer if t.dims and t.name in used and t.data_type in WEIGHTS
    )


@pytest.mark.parametrize("name", NAMES)
def test_dead_channels_go_and_nothing_else_changes(name: str) -> None:
    if name == "FusedConv with a residual" and RELEASE < (1, 28):
        pytest.skip(
            "onnxruntime before 1.28 stops at this network of half the width: a fault of its blocked convolution"
        )
    pattern = PATTERNS[name]
    model = pattern.model(2)
    deps = analysed(model, pattern)
    dead = weakest(model, deps)
    pruned = cut(model, deps, dead)
    onnx.checker.check_model(pruned, full_check=True)
    assert not waste(model, pruned)
    for before, after in zip(run(model, pattern), run(pruned, pattern), strict=True):
        assert before.shape == after.shape
        assert np.abs(before).max() > 1e-3
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())
    half = pattern.model(1)
    assert elements(pruned) == elements(half)
    assert deps.macs(dead) == analysed(half, pattern).macs() == analysed(pruned, pattern).macs()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("seed", "heads"), [(0, True), (1, True), (2, False)])
def test_masked_equals_pruned(name: str, seed: int, heads: bool) -> None:
    pattern = PATTERNS[name]
    model = pattern.model(2)
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:  # nothing is dead here but what is masked
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.name.startswith("const"):
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(
                    (array + rng.uniform(0.05, 0.3, array.shape)).astype(np.float32), tensor.name
                )
            )
    deps = analysed(model, pattern, heads)
    dead = deps.nothing
    for group in deps.groups:
        dead[rng.choice(group.components, rng.integers(0, len(group)), replace=False)] = True
    pruned, masked = cut(model, deps, dead), mask(model, deps, dead)
    onnx.checker.check_model(pruned, full_check=True)
    for before, after in zip(run(masked, pattern), run(pruned, pattern), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * max(1e-3, np.abs(before).max()))
