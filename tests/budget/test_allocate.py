"""Budgets: from shares of cost to counts of channels, by hand and by their laws."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.budget import ALLOCATORS, Budget, Costs, allocate, hand_back, step_of
from onnxprune.budget.cost import Term
from onnxprune.budget.order import convex
from onnxprune.errors import UsageError


def chain(*widths: int, times: float = 1.0) -> Costs:
    """A chain of layers from 3 inputs to 2 outputs, each of one group but the last: macs and params are the same."""
    groups = {f"g{k}": n for k, n in enumerate(widths)}
    axes = [(3.0, ()), *((0.0, ((k, 1.0),)) for k in range(len(widths))), (2.0, ())]
    terms = tuple(Term(times, (a, b)) for a, b in pairwise(axes))
    return Costs(groups, {"macs": terms, "params": terms, "size": (*terms, Term(50, ()))})


def rising(costs: Costs, power: float = 2.0) -> dict[str, np.ndarray]:
    """Convex losses that weigh later groups less."""
    return {g: np.arange(n + 1) ** power / n**power / (k + 1) for k, (g, n) in enumerate(costs.groups.items())}


def test_costs_add_up_and_change_by_what_a_group_touches() -> None:
    costs = chain(10, 20)  # 3·10 + 10·20 + 20·2
    assert costs.total("macs") == 270
    assert costs.total("size") == 320
    kept = np.array([10, 20])
    assert costs.change("macs", kept, 0, 5) == -(15 + 100)
    assert costs.share("macs", [5, 20]) == pytest.approx(155 / 270)


def test_a_ratio_is_rounded_to_the_step_of_the_width() -> None:
    budget = Budget(ratio=0.3)
    assert [step_of(n, None) for n in (16, 32, 64)] == [1, 4, 8]
    assert [budget.keep("g", n) for n in (10, 16, 32, 64, 100)] == [7, 11, 24, 48, 72]  # 22.4, 44.8, 70 rounded
    assert Budget(ratio=0.9).keep("g", 3) == 1
    assert Budget(ratio=0.5, round_to=5).keep("g", 64) == 30
    assert Budget(ratio=0.9, max_ratio=0.25).keep("g", 64) == 48


def test_after_earlier_cuts_shares_are_of_the_channels_that_there_were() -> None:
    again = Budget(ratio=0.3, max_ratio=0.5, ratio_for={"h": 0.0}, widths={"g": 64, "h": 64})
    assert [again.keep("g", n) for n in (64, 56, 48, 40)] == [48, 48, 48, 40]
    assert again.keep("h", 56) == 56
    assert [again.counts("g", n) for n in (64, 52, 40, 32)] == [(64, 56, 48, 40, 32), (52, 48, 40, 32), (40, 32), (32,)]


def test_round_to_wider_than_a_group_leaves_it_single_channels() -> None:
    assert Budget(ratio=0.5, round_to=8).keep("g", 6) == 3


def test_a_target_removes_the_same_share_everywhere() -> None:
    costs = chain(10, 10)  # 30 + 100 + 20
    found = allocate(costs, Budget(target=("macs", 0.5)))
    # 7 and 7: 21 + 49 + 14 = 84 is too much; 6 and 7: 18 + 42 + 14 = 74 holds 75; no channel fits in any more.
    assert found.kept == {"g0": 6, "g1": 7}
    assert not found.stopped_by


def test_a_ratio_of_its_own_is_not_touched_by_the_target() -> None:
    found = allocate(chain(10, 10), Budget(target=("macs", 0.5), ratio_for={"g0": 0.1, "g1": 0.0}))
    assert found.kept == {"g0": 9, "g1": 10}
    assert "macs can only go down to 93" not in found.stopped_by
    assert found.stopped_by.startswith("macs can only go down to ")
    free = allocate(chain(10, 10), Budget(target=("macs", 0.5), ratio_for={"g0": 0.1}))
    assert free.kept["g0"] == 9
    assert 27 + 11 * free.kept["g1"] <= 75 < 27 + 11 * (free.kept["g1"] + 1)


def test_the_most_of_a_group_is_its_limit() -> None:
    found = allocate(chain(10, 10), Budget(target=("macs", 0.05), max_ratio=0.4))
    assert found.kept == {"g0": 6, "g1": 6}
    assert found.stopped_by == "macs can only go down to 44.0%: the rest is frozen, excluded or at its largest ratio"


def test_channels_go_where_they_cost_least_for_what_they_save() -> None:
    costs = chain(10, 10)
    losses = {"g0": np.arange(11.0), "g1": 100 * np.arange(11.0)}
    found = allocate(costs, Budget(target=("macs", 0.6)), "sensitivity", losses)
    assert found.kept == {"g0": 5, "g1": 10}  # each channel of g0 saves 13: 150 − 65 = 85 ≤ 90 < 98


def test_a_loss_that_comes_late_does_not_hide_behind_its_start() -> None:
    losses = np.array([0, 8, 8, 8, 8.0])  # the first channel costs all
    assert convex([4, 3, 2, 1], losses).tolist() == pytest.approx([0, 8 / 3, 16 / 3, 8])
    assert convex([4, 2, 1], np.array([0, 1, 2, 6, 9.0])).tolist() == [0, 2, 6]


def test_a_ratio_under_another_allocation_leaves_the_macs_of_the_same_share_everywhere() -> None:
    costs = chain(10, 30)
    found = allocate(costs, Budget(ratio=0.5, round_to=1), "global", rising(costs)).kept
    assert found["g0"] != 5
    left, same = (costs.total("macs", kept) for kept in (list(found.values()), [5, 15]))
    assert same - found["g1"] - found["g0"] < left <= same  # a channel more of either group does not fit in
    part = allocate(costs, Budget(ratio=0.5, round_to=1, ratio_for={"g1": 0.0}), "global", rising(costs))
    assert part.kept == {"g0": 5, "g1": 30}


def test_a_group_without_macs_loses_the_ratio_itself() -> None:
    costs = Costs({"idle": 8, "busy": 10, "other": 10}, {"macs": (Term(1, ((0, ((1, 1),)), (0, ((2, 1),)))),)})
    losses = {g: np.arange(n + 1.0) * (1 + 9 * (g == "busy")) for g, n in costs.groups.items()}
    assert allocate(costs, Budget(ratio=0.5), "global", losses).kept == {"idle": 4, "busy": 8, "other": 3}  # 24 of 25
    alone = Costs({"idle": 8}, {"macs": ()})
    assert allocate(alone, Budget(ratio=0.5), "global", {"idle": np.arange(9.0)}).kept == {"idle": 4}


@pytest.mark.parametrize("allocation", ALLOCATORS)
def test_a_ratio_of_no_channels_is_none(allocation: str) -> None:
    assert not allocate(chain(), Budget(ratio=0.5), allocation, {}).kept


def test_steps_that_are_too_coarse_are_left_to_finer_groups() -> None:
    costs = Costs({"wide": 10, "fine": 10}, {"macs": (Term(10, ((0, ((0, 1),)),)), Term(1, ((0, ((1, 1),)),)))})
    losses = {"wide": np.arange(11.0), "fine": 1000 * np.arange(11.0)}
    found = allocate(costs, Budget(target=("macs", 95 / 110)), "sensitivity", losses)
    assert found.kept == {"wide": 9, "fine": 5}  # 95, where two of the wide group would leave 90


def test_what_can_be_given_back_is() -> None:
    costs = chain(10, 10)
    choices = [tuple(range(10, 0, -1))] * 2
    assert hand_back(costs, "macs", 0.5, np.array([2, 3]), choices).tolist() == [7, 6]  # 21 + 42 + 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=6),
    st.floats(0.05, 1.0),
    st.sampled_from(sorted(ALLOCATORS)),
    st.sampled_from(["macs", "params", "size"]),
    st.sampled_from([None, 1, 4, 8]),
)
def test_a_target_is_met_to_within_the_finest_step(
    widths: list[int], share: float, allocation: str, kind: str, round_to: int | None
) -> None:
    costs = chain(*widths)
    budget = Budget(target=(kind, share), round_to=round_to)
    found = allocate(costs, budget, allocation, rising(costs))
    kept = np.array(list(found.kept.values()))
    counts = [budget.counts(g, n) for g, n in costs.groups.items()]
    assert all(k in c for k, c in zip(kept, counts, strict=True))
    if found.stopped_by:
        assert [c[-1] for c in counts] == kept.tolist()
        return
    assert costs.share(kind, kept) <= share * (1 + 1e-9)
    for g, c in enumerate(counts):  # no group gets a step back
        above = [k for k in c if k > kept[g]]
        if above:
            more = kept.copy()
            more[g] = min(above)
            assert costs.share(kind, more) > share


def test_wrong_budgets_say_what_is_right() -> None:
    for wrong, words in (
        ({"ratio": 1.0}, "at least 0 and below 1"),
        ({"target": ("watts", 0.5)}, "macs=, params=, size="),
        ({"target": ("macs", 0.0)}, "above 0"),
        ({"ratio_for": {"conv": 2.0}}, "ratio for conv"),
        ({"max_ratio": 1.5}, "between 0 and 1"),
        ({"round_to": 0}, "1 or more"),
    ):
        with pytest.raises(UsageError, match=words):
            Budget(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="uniform, global, sensitivity"):
        allocate(chain(4), Budget(ratio=0.5), "fair")
    with pytest.raises(UsageError, match="needs the losses"):
        allocate(chain(4), Budget(ratio=0.5), "global")
