"""The law *pruned = masked at other sizes*: what follows from one size decides nothing.

Every network is analysed at one size and compared at three others, with batches of two and three among them, by an
oracle that shares no code with the product (`other_sizes`).  The product's own proof is off: what it would refuse is
not to be made in the first place.  And none grows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from cases import CASES, Case
from cli_runs import EXPORTS
from hypothesis import given, settings
from law import waste
from networks import before_softmax, with_random_weights
from onnx import ModelProto
from other_sizes import assert_same, data_inputs, masked, opened, others, reference, runs, shapes
from patterns.builder import PATTERNS, Pattern
from random_networks import networks

from onnxprune import apply, prune
from onnxprune.channels import analyse
from onnxprune.surgery.plan import make_plan

HALF = {"ratio": 0.5, "round_to": 1, "compensate": "none"}
LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
SMALL = {"light_squeezenet", "light_shufflenet"}


def cut(model: ModelProto, at: dict[str, int], **options: object) -> tuple[ModelProto, ModelProto]:
    """What the pruned model is to be the same as, and the pruned model."""
    result = prune(model, input_shapes=shapes(model, at), verify=False, measure=False, **(options or HALF))
    assert not waste(model, result.model)
    lossless = bool(options.get("lossless"))
    return (model if lossless else masked(model, result.plan.to_json(), result.model)), result.model


def check_opened(
    model: ModelProto, at: dict[str, tuple[int, ...]], axes: Sequence[int] = range(5), **options: object
) -> None:
    """The law for a model whose sizes are opened first where they can be."""
    model, size = opened(model, at, axes)
    sizes = others(model, size)
    if not sizes:
        pytest.skip("the original runs at one size only")
    assert_same(*cut(model, size, **options), sizes, ["normal", "positive"], may_fail=True)


# --- graphs with shape arithmetic --------------------------------------------


SLOW = pytest.mark.slow
WRONG = pytest.mark.xfail(strict=True, reason="a Reshape that takes only what is at least as large")


def cases(budget: str) -> list[object]:
    return [pytest.param(c, id=name, marks=WRONG if budget in c.wrong else ()) for name, c in CASES.items()]


@pytest.mark.parametrize("case", cases("ratio"))
def test_what_a_size_decides(case: Case) -> None:
    original, pruned = cut(case.model(), case.at)
    assert_same(original, pruned, [case.at, *case.sizes])
    if runs(original, case.sizes[0], reference):  # it has no negative pads and no linear grids
        assert_same(original, pruned, case.sizes[:1], ["normal"], reference)


@pytest.mark.parametrize("case", cases("lossless"))
def test_what_a_size_decides_losslessly(case: Case) -> None:
    assert_same(*cut(case.model(planted=True), case.at, lossless=True), [case.at, *case.sizes])


FREE = [
    ("Squeeze of all ones, batch 2", {"ratio"}),
    ("Squeeze of all ones, batch 1", {"ratio"}),
    ("Flatten by (0, -1) into 512", {"ratio", "lossless"}),
    ("Flatten by (0, -1) into 512, channels last", {"ratio", "lossless"}),
    ("Flatten of the first eight rows and columns", {"ratio"}),
    ("Patches of a map of 8 x 8, for N samples and 8 channels", {"ratio"}),
    ("Slice ends at 4 N / N", {"ratio", "lossless"}),
    ("Slice ends at 4 times the elements of x, divided by these", {"ratio", "lossless"}),
    ("Slice begins at N H + 3 - H N", {"ratio", "lossless"}),
    ("Split by the quotients of N's multiples", {"ratio", "lossless"}),
]


@pytest.mark.parametrize(("name", "budget"), [(name, budget) for name, budgets in FREE for budget in sorted(budgets)])
def test_what_holds_at_every_size_goes(name: str, budget: str) -> None:
    """Lengths that a layer's weights say, and targets that copy the batch, are no guess."""
    options = {"lossless": True} if budget == "lossless" else HALF
    model = CASES[name].model(planted=budget == "lossless")
    assert prune(model, input_shapes=shapes(model, CASES[name].at), measure=False, **options).report.changed


GROWING = ("Sum over axis C / 8", "Concat of channels and as many zeros")


@pytest.mark.parametrize("name", GROWING)
def test_what_a_cut_adds_is_less_than_what_it_takes(name: str, tmp_path: Path) -> None:
    """Sizes that are computed again take more bytes than one channel of eight, and less than four."""
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(CASES[name].model(), before)
    report = prune(before, after, **{**HALF, "ratio": 0.125}, measure=False).report
    assert after.stat().st_size == before.stat().st_size
    assert "nothing was removed" in str(report)
    assert "larger than what it takes away" in str(report)
    repaired = prune(before, None, ratio=0.125, round_to=1, measure=False).report
    assert not repaired.changed
    assert not [line for line in (*repaired.notes, *repaired.warnings) if "tensors" in line or "samples" in line]
    prune(before, after, **HALF, measure=False, force=True)
    assert after.stat().st_size < before.stat().st_size


@pytest.mark.parametrize("name", GROWING)
def test_a_plan_of_another_file_is_named_where_nothing_is_removed_too(name: str) -> None:
    model, at = CASES[name].model(), CASES[name].at
    deps = analyse(model, input_shapes={k: tuple(v) for k, v in shapes(model, at).items()})
    plan = make_plan(deps, {g.name: np.arange(1, len(g)) for g in deps.groups[:1]}, source={"sha256": "0" * 64})
    report = apply(model, plan, measure=False).report
    assert not report.changed
    assert [line for line in report.warnings if "made for another file" in line]
    assert not [line for line in report.warnings if "cut without repair" in line]  # of a cut that was not made


def test_all_that_is_assigned_to_may_go() -> None:
    """`x[:, 4:] = ...` when all of these channels go: nothing is left to tell the size of the assigned part by."""
    model = onnx.parser.parse_model(SLICE_ASSIGNED)
    rng = np.random.default_rng(0)
    sizes = np.where(np.arange(8) < 4, 1, 1e-3)[:, None, None, None]  # the last four go
    tensors = {"w1": sizes * rng.standard_normal((8, 3, 3, 3)), "w2": rng.standard_normal((4, 8, 1, 1))}
    tensors["w3"] = rng.standard_normal((5, 8, 1, 1))
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items())
    at = {"N": 1, "H": 8, "W": 8}
    sizes = [{"N": n, "H": h, "W": w} for n, h, w in ((1, 8, 8), (2, 5, 7), (3, 9, 4))]
    original, pruned = cut(model, at, **HALF, method="l2")
    assert next(t.dims[0] for t in pruned.graph.initializer if t.name == "w1") == 4
    assert_same(original, pruned, sizes)


SLICE_ASSIGNED = """
<ir_version: 8, opset_import: ["": 17]> g (float[N,3,H,W] x) => (float[N,5,H,W] y)
<int64[1] v0 = {0}, int64[1] v1 = {1}, int64[1] v2 = {2}, int64[1] v4 = {4}, int64[1] v8 = {8}, int64[1] end = {99},
 int64 i0 = {0}, int64 i1 = {1}, int64[2] column = {-1, 1}, int64[1] last = {-1}> {
    c = Conv<pads=[1,1,1,1]>(x, w1)
    r = Relu(c)
    s = Shape(r)
    u = Conv(r, w2)
    n = Gather(s, i0)
    j = Range(i0, n, i1)
    jc = Reshape(j, column)
    ch = Gather(s, i1)
    k = Range(i0, ch, i1)
    kp = Slice(k, v4, end, v0)
    b = Add(jc, kp)
    bs = Shape(b)
    je = Expand(jc, bs)
    ke = Expand(kp, bs)
    ju = Unsqueeze(je, last)
    ku = Unsqueeze(ke, last)
    at = Concat<axis=-1>(ju, ku)
    hw = Slice(s, v2, v4, v0)
    t = Concat<axis=0>(bs, hw)
    ut = Reshape(u, t)
    p = ScatterND(r, at, ut)
    y = Conv(p, w3)
}
"""


# --- networks ----------------------------------------------------------------

SAMPLE = sorted(PATTERNS)[::5]


def every(names: list[str]) -> list[object]:
    return [pytest.param(n, marks=() if n in SAMPLE else SLOW) for n in names]


def filled(pattern: Pattern) -> ModelProto:
    """The network of a pattern without dead channels."""
    model, rng = pattern.model(2), np.random.default_rng(3)
    for t in model.graph.initializer:
        if t.data_type == onnx.TensorProto.FLOAT and not t.name.startswith("const"):
            array, name = onnx.numpy_helper.to_array(t), t.name
            full = np.where(array == 0, rng.uniform(0.05, 0.3, array.shape).astype(np.float32), array)
            t.CopyFrom(onnx.numpy_helper.from_array(full, name))
    return model


@pytest.mark.parametrize("name", every(sorted(PATTERNS)))
def test_patterns(name: str) -> None:
    check_opened(filled(PATTERNS[name]), {"x": PATTERNS[name].run})


@pytest.mark.parametrize("name", every(sorted(PATTERNS)))
def test_patterns_losslessly(name: str) -> None:
    check_opened(PATTERNS[name].model(2), {"x": PATTERNS[name].run}, lossless=True)


@pytest.mark.parametrize("path", EXPORTS, ids=lambda p: p.stem)
def test_exports(path: Path) -> None:
    model = with_random_weights(onnx.load(path))
    dims = {v.name: v.type.tensor_type.shape.dim for v in model.graph.input}
    check_opened(model, {name: tuple(d.dim_value or 1 for d in shape) for name, shape in dims.items()})


@given(networks(8))
@settings(max_examples=25)
def test_random_networks(model: ModelProto) -> None:
    sides = [8, 8] if model.graph.input[0].type.tensor_type.shape.dim[2].dim_value else [8, 12]
    at = {"N": 1, "H": 8, "W": 8}
    sizes = [{"N": n, "H": h, "W": w} for n, h, w in ((2, *sides), (3, sides[1], 8), (5, *sides[::-1]))]
    assert_same(*cut(model, at), sizes, ["normal", "positive"])


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=() if p.stem in SMALL else SLOW) for p in LIGHT])
def test_networks_of_the_wheel(path: Path) -> None:
    model = before_softmax(with_random_weights(onnx.load(path)))
    check_opened(model, {v.name: (1, 3, 224, 224) for v in data_inputs(model)}, axes=[0])
