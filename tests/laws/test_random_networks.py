"""masked = pruned, over random networks and random kept channels."""

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from law import agree, run, waste
from onnx import ModelProto
from random_networks import networks

from onnxprune.channels import analyse
from onnxprune.surgery import cut, mask

SIDE = 8


@given(networks(SIDE), st.integers(0, 9))
def test_masked_is_pruned(model: ModelProto, seed: int) -> None:
    onnx.checker.check_model(model)
    rng = np.random.default_rng(seed)
    deps = analyse(model)
    assert not deps.unknown
    kept = {g.name: np.flatnonzero(rng.permutation(len(g)) < rng.integers(1, len(g) + 1)) for g in deps.groups}
    dead = deps.dead(kept)
    pruned, masked = cut(model, deps, dead), mask(model, deps, dead)
    onnx.checker.check_model(pruned)
    assert not waste(model, pruned)
    dynamic = not model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    for batch, side in [(2, SIDE), (3, SIDE + 4 if dynamic else SIDE)]:
        x = {"x": rng.normal(size=(batch, 3, side, side)).astype(np.float32)}
        for value, a, b in zip(model.graph.output, run(masked, x), run(pruned, x), strict=True):
            agree(value.name, a, b, 1e-3)


@given(networks(SIDE))
def test_nothing_removed_nothing_changed(model: ModelProto) -> None:
    deps = analyse(model)
    before = model.SerializeToString(deterministic=True)
    assert cut(model, deps, deps.nothing).SerializeToString(deterministic=True) == before
