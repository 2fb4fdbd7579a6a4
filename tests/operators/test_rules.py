"""The law *cut commutes*, one row per operator and form: it proves each rule, its promise and its repair together."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from all_rows import ROWS
from law import Trial, check_law
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from rows import Row

from onnxprune.channels.zero_points import Zeros
from onnxprune.errors import OnnxPruneError
from onnxprune.operators.registry import OPERATORS
from onnxprune.operators.roles import ZeroWhereDead

SEEDS = 3

COUPLED = sorted(name for name, row in OPERATORS.items() if row.couple is not None)
REPAIRED = sorted(name for name, row in OPERATORS.items() if row.repair is not None)
TWIN = "com.microsoft:SimplifiedLayerNormalization"

# Operators that no row can run, and why.
UNTESTED = {
    **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"), "gives random numbers"),
    **dict.fromkeys(("RandomNormalLike", "RandomUniformLike"), "gives random numbers"),
    **dict.fromkeys(("ParametricSoftplus", "ScaledTanh"), "onnxruntime has lost it"),
    **dict.fromkeys(("com.microsoft:BiasAdd", "com.microsoft:NhwcMaxPool"), "onnxruntime has it for other devices"),
    "Reverse": "never was in a released operator set",
    TWIN: "is SimplifiedLayerNormalization by another name",
    **dict.fromkeys(("If", "Loop", "Scan"), "has a body: tested with control flow"),
    **dict.fromkeys(("ConcatFromSequence", "Optional", "OptionalGetElement"), "takes or gives no tensor"),
    **dict.fromkeys(("SequenceAt", "SequenceLength", "SplitToSequence"), "takes or gives no tensor"),
}


def test_every_operator_has_a_row() -> None:
    tested = {case.op for case in ROWS}
    assert set(COUPLED) - tested == set(UNTESTED)
    assert set(REPAIRED) - tested == {TWIN}


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_cut_commutes(case: Row) -> None:
    removed = 0
    for trial in trials(case):
        assert free_channels(trial) == case.free
        assert any(case.refused in why for why in trial.deps.unknown.values()) or not case.refused
        assert bool(trial.deps.unknown) == bool(case.refused), trial.deps.unknown
        removed += trial.removed
    assert removed > 0 or case.free == 0


def trials(case: Row) -> Iterator[Trial]:
    """The law for some choices of dead channels."""
    for zeroed in [True] * case.zeroed + [False] * case.garbage:
        for seed in range(SEEDS):
            yield check_law(
                *case.build(seed),
                zeroed=zeroed,
                seed=seed,
                tolerance=case.tolerance,
                zeros=case.zeros(),
                heads=case.heads,
            )


def free_channels(trial: Trial) -> int:
    return np.unique(np.concatenate([trial.deps.component, [trial.deps.frozen]])).size - 1


def rule_that(op: str, apply: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault: another rule in place of the operator's own."""
    return lambda patch: patch.setitem(OPERATORS, op, replace(OPERATORS[op], couple=apply))


def keeps_zeros(op: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault: the operator is said to keep zeros whatever comes in."""
    return lambda patch: patch.setitem(OPERATORS, op, replace(OPERATORS[op], zero=lambda _: ZeroWhereDead(True)))


def no_repair(op: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(OPERATORS, op, replace(OPERATORS[op], repair=None))


def deaf(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A rule that takes any input for one that is zero where dead."""

    def rule(op: Any, *xs: Any, **attributes: Any) -> Any:
        op.zero_inputs = [True] * len(xs)
        return apply(op, *xs, **attributes)

    return rule


def untied(op: Any, x: Any, w: Any, *_: Any, **__: Any) -> Any:
    return (x[0], w[0], ...)


FAULTS = {
    "Conv ties nothing": ("Conv", rule_that("Conv", untied)),
    "Conv keeps its group": ("Conv", no_repair("Conv")),
    "Softmax lets channels go": ("Softmax", rule_that("Softmax", lambda op, x, **_: x)),
    "PRelu forgets its slope": ("PRelu", rule_that("PRelu", lambda op, x, slope: x)),
    "Concat the other way round": (
        "Concat",
        rule_that("Concat", lambda op, x, *xs, **_: (x[0], np.concatenate([v[1] for v in (*xs, x)]), *x[2:])),
    ),
    "Transpose forgets to": ("Transpose", rule_that("Transpose", lambda op, **_: op.values[0])),
    "ReduceMax lets channels go": ("ReduceMax", rule_that("ReduceMax", OPERATORS["ReduceSum"].couple)),
    "ReduceMean lets any channels go": ("ReduceMean", rule_that("ReduceMean", deaf(OPERATORS["ReduceMean"].couple))),
    "DepthToSpace in the other order": (
        "DepthToSpace",
        rule_that("DepthToSpace", lambda op, x, mode=b"", **a: OPERATORS["SpaceToDepth"].couple(op, x, **a)),
    ),
    "Sigmoid keeps zeros": ("Sigmoid", keeps_zeros("Sigmoid")),
    "Add keeps zeros": ("Add", keeps_zeros("Add")),
    **{f"{op} keeps zeros": (op, keeps_zeros(op)) for op in ("Celu", "Conv", "LRN", "Resize", "Shrink")},
    "DequantizeLinear takes any zero for its own": (
        "DequantizeLinear",
        lambda patch: patch.setattr(Zeros, "reads_zero", lambda self, node, k: node.inputs[k] in self.known),
    ),
    **{f"{op} is not repaired": (op, no_repair(op)) for op in REPAIRED if op != TWIN},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_rows_catch(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, plant = FAULTS[fault]
    plant(monkeypatch)
    assert any(fails(case) for case in ROWS if case.op == op)


def fails(case: Row) -> bool:
    """Whether the law does not hold, or other channels are free than should be."""
    try:
        return any(free_channels(trial) != case.free for trial in trials(case))
    except (AssertionError, RuntimeError, IndexError, OnnxPruneError, RuntimeException, Fail, InvalidArgument):
        return True
