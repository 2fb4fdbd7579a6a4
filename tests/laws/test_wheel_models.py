"""The models that come with the onnx wheel: real networks, exports of single layers, and a test of every operator."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from law import agree, check_law, is_float, run
from networks import before_softmax, data_inputs, random_dead, random_feeds, with_random_weights
from onnx import ModelProto, TensorProto
from wheel_models import FILES, HEAVY, LAWLESS, LIGHT, NodeTest, node_tests

from onnxprune.channels import analyse
from onnxprune.surgery import cut, mask


def assert_faithful(model: ModelProto) -> None:
    """Nothing removed, nothing changed, and the model that was given is left alone."""
    before = model.SerializeToString(deterministic=True)
    deps = analyse(model)
    assert cut(model, deps, deps.nothing).SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before


def assert_law(model: ModelProto, feeds: dict[str, np.ndarray]) -> float:
    """masked = pruned with half of every group removed; the share of multiply-accumulates that is left."""
    deps = analyse(model)
    dead = random_dead(deps, 0.5, seed=1)
    pruned = cut(model, deps, dead)
    onnx.checker.check_model(pruned)
    for value, a, b in zip(model.graph.output, run(mask(model, deps, dead), feeds), run(pruned, feeds), strict=True):
        agree(value.name, a, b, 1e-3)
    return deps.macs(dead) / max(1, deps.macs())


# --- real networks -----------------------------------------------------------

LEFT = {  # share of the multiply-accumulates after half of every group has gone
    "light_bvlc_alexnet": 0.29,
    "light_densenet121": 0.27,
    "light_inception_v1": 0.27,
    "light_inception_v2": 0.27,
    "light_resnet50": 0.26,
    "light_shufflenet": 0.36,  # groups shrink alike
    "light_squeezenet": 0.33,  # the classes are the channels of the last convolution
    "light_vgg19": 0.26,
    "light_zfnet512": 0.28,
}


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=pytest.mark.slow if p.stem in HEAVY else ()) for p in LIGHT]
)
def test_light_networks(path: Path) -> None:
    model = before_softmax(with_random_weights(onnx.load(path)))
    assert assert_law(model, random_feeds(model)) == pytest.approx(LEFT[path.stem], abs=0.01)


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_light_networks_are_left_alone(path: Path) -> None:
    assert_faithful(onnx.load(path))


def test_weights_by_constant_of_shape_are_cut_too() -> None:
    """They are all alike, so the outputs say little; but the shapes must fit, and the fills must be smaller."""
    model = onnx.load(next(p for p in LIGHT if "squeezenet" in p.stem))
    assert_law(model, random_feeds(model))
    deps = analyse(model)
    dead = random_dead(deps, 0.5, seed=1)
    assert deps.params(dead) < 0.5 * deps.params()


# --- exports of layers and small networks ------------------------------------


def test_files_are_left_alone() -> None:
    for path in FILES:
        assert_faithful(onnx.load(path))


def test_files_hold_the_law() -> None:
    """They have one layer or few, so their inputs get channels as if there were layers before them."""
    removed = 0
    for path in FILES:
        model = onnx.load(path)
        if any(v.type.tensor_type.elem_type in (0, TensorProto.STRING) for v in data_inputs(model)):
            continue  # sequences and text
        feeds = random_feeds(model, symbolic=3)
        if not runs(model, feeds):
            continue
        for zeroed in (True, False):
            removed += check_law(model, feeds, {}, zeroed=zeroed, seed=0, tolerance=1e-3).removed > 0
    assert removed > 150


def runs(model: ModelProto, feeds: dict[str, np.ndarray]) -> bool:
    """Whether onnxruntime has kernels for all of it, and the random inputs make sense."""
    try:
        run(model, feeds)
    except Exception:  # onnxruntime's errors have no common base
        return False
    return True


# --- tests of operators ------------------------------------------------------


def check_node_test(test: NodeTest, seeds: int) -> int:
    """The law with every input in turn as data and as a weight; the number of trials that removed anything."""
    if not runs(test.model, test.data):
        return 0
    names, removed = list(test.data), 0
    integers = {name for name, x in test.data.items() if not is_float(x)}
    modes = {frozenset(), frozenset(integers), frozenset(names[1:]), frozenset(names[:1] + names[2:])}
    for weights in sorted(modes, key=sorted):
        data = {name: x for name, x in test.data.items() if name not in weights}
        for zeroed in (True, False):
            for seed in range(seeds):
                told = {name: test.data[name] for name in weights}
                removed += check_law(test.model, data, told, zeroed=zeroed, seed=seed).removed > 0
    return removed


def lawful(test: NodeTest) -> bool:
    quantised = any(x.dtype in (np.int8, np.uint8) for x in test.data.values())  # nothing is the zero point there
    return bool(test.data) and not test.name.startswith(LAWLESS) and not quantised


def test_a_sample_of_operators() -> None:
    tests = [test for test in node_tests() if lawful(test)][::17]
    if not tests:
        pytest.skip("this onnx comes without the data of its tests")
    assert sum(check_node_test(test, 1) for test in tests) > 100
    for test in tests:
        assert_faithful(test.model)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(8))
def test_all_operators(share: int) -> None:
    for test in node_tests()[share::8]:
        assert_faithful(test.model)
        if lawful(test):
            check_node_test(test, 2)
