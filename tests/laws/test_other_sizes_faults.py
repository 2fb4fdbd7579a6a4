"""The law of other sizes can fail: whatever size is written into a graph as it was once is noticed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case
from onnx import ModelProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from other_sizes import assert_same, feeds, run, shapes
from test_other_sizes import HALF
from test_other_sizes import cut as pruned_pair

from onnxprune import CheckFailed, prune
from onnxprune.model.network import Network
from onnxprune.model.static import Statics
from onnxprune.operators.registry import OPERATORS
from onnxprune.operators.roles import ZeroWhereDead
from onnxprune.surgery import cut


def sizes_that_are_read(model: ModelProto) -> list[str]:
    """Values that follow from sizes alone, and are read by nodes whose outputs do not."""
    constants = {t.name for t in model.graph.initializer} | {""}
    sized: set[str] = set()
    for node in model.graph.node:
        given = set(node.input) - constants
        if node.op_type in ("Shape", "Size") or (given and given <= sized):
            sized.update(node.output)
    return sorted({k for node in model.graph.node if node.output[0] not in sized for k in node.input if k in sized})


def copy_of(model: ModelProto) -> ModelProto:
    out = ModelProto()
    out.CopyFrom(model)
    return out


def values(model: ModelProto, names: list[str], size: Any) -> list[np.ndarray]:
    """What some values are at a size."""
    probe = copy_of(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return run(probe, feeds(model, size))


def with_constant(model: ModelProto, name: str, value: np.ndarray) -> ModelProto:
    """A copy in which a value is a constant."""
    out = copy_of(model)
    for node in out.graph.node:
        for k in (k for k, given in enumerate(node.input) if given == name):
            node.input[k] = "constant"
    out.graph.initializer.append(numpy_helper.from_array(value, "constant"))
    return out


def faults() -> Iterator[tuple[Case, ModelProto, str, ModelProto]]:
    """Graphs in which one size is a constant that is another one elsewhere."""
    for case in CASES.values():
        model = case.model()
        if names := sizes_that_are_read(model):
            once, *others = (values(model, names, size) for size in (case.at, *case.sizes))
            for name, value, *rest in zip(names, once, *others, strict=True):
                if not all(np.array_equal(value, other) for other in rest):
                    yield case, model, name, with_constant(model, name, value)


def test_sizes_that_are_written_down_are_noticed() -> None:
    missed, tried = [], 0
    for case, model, name, faulty in faults():
        tried += 1
        try:
            assert_same(model, faulty, case.sizes, ["normal", "positive"])
        except Exception:  # it differs, or does not run
            continue
        missed.append((case.name, name))
    assert not missed
    assert tried > 150


# --- faults of the product ---------------------------------------------------


def analysis_sees_one_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("onnxprune.model.static.other_sizes", lambda *_: iter(()))
    patch.setattr(Statics, "fixed_constant", lambda self, key: self.constants.get(key))


def no_axis_is_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Statics, "is_open", lambda self, key, axis: False)


def clips_keep_zeros(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(OPERATORS, "Clip", replace(OPERATORS["Clip"], zero=lambda op: ZeroWhereDead(True)))


def pads_keep_zeros(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(OPERATORS, "Pad", replace(OPERATORS["Pad"], zero=lambda op: ZeroWhereDead(True)))


def repairs_write_sizes(patch: pytest.MonkeyPatch) -> None:
    """The first number that follows from sizes is what it was in the analysis."""

    def faulty(*given: Any) -> Network:
        rewritten = cut(*given)
        name = sizes_that_are_read(rewritten)[0]
        return Network.of(with_constant(rewritten, name, *values(rewritten, [name], {"N": 1, "H": 8, "W": 8, "K": 4})))

    patch.setattr(import_module("onnxprune.pipeline.study"), "pruned", faulty)


def reshapes_pair_alike(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("onnxprune.channels.walk.paired_otherwise", lambda *_: iter(()))


def squeezes_keep_ranks(patch: pytest.MonkeyPatch) -> None:
    row = OPERATORS["Squeeze"]
    told = replace(row, couple=lambda op, **_: op.reshape(op.shapes[0]), bound=OPERATORS["Unsqueeze"].bound)
    patch.setitem(OPERATORS, "Squeeze", told)
    patch.setattr("onnxprune.model.static._drops_ones", lambda graph: False)


FAULTS = [  # what goes wrong, under which budget, and a graph that shows it
    (analysis_sees_one_size, "ratio", "Gather of channel N"),
    (analysis_sees_one_size, "ratio", "Flatten for a Gemm by (-1, 512)"),
    (analysis_sees_one_size, "lossless", "Up and down again, padded to the skip"),
    (no_axis_is_open, "ratio", "Sum over axis N"),
    (no_axis_is_open, "lossless", "Pad to a multiple of 4"),
    (clips_keep_zeros, "ratio", "Clip from N - 1"),
    (pads_keep_zeros, "ratio", "Pad with H - 8"),
    (repairs_write_sizes, "ratio", "Pad to a multiple of 4"),
    (repairs_write_sizes, "ratio", "Positions of a table, cut to the image"),
    (repairs_write_sizes, "lossless", "Pad by repetition to 16 rows"),
    (reshapes_pair_alike, "ratio", "Flatten of the first eight rows and columns by (-1, 512)"),
    (reshapes_pair_alike, "ratio", "Flatten by (0, -1) into 512, channels between rows and columns"),
    (squeezes_keep_ranks, "ratio", "Squeeze of all ones, and the first axis that is left"),
]


@pytest.mark.parametrize(("fault", "budget", "name"), FAULTS, ids=lambda x: getattr(x, "__name__", x))
def test_faults_of_the_product_are_noticed(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None], budget: str, name: str
) -> None:
    case, options = CASES[name], {"lossless": True} if budget == "lossless" else {}
    model = case.model(planted=bool(options))
    check_sizes(model, case, **options)
    fault(monkeypatch)
    with pytest.raises((AssertionError, Fail, RuntimeException, InvalidArgument)):
        check_sizes(model, case, **options)
    with pytest.raises(CheckFailed):  # by the proof of the product itself
        prune(model, input_shapes=shapes(model, case.at), measure=False, **(options or HALF))


def check_sizes(model: ModelProto, case: Case, **options: Any) -> None:
    assert_same(*pruned_pair(model, case.at, **options), case.sizes)
