"""The search over layers, on networks whose cost and loss are plain arithmetic."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest

from onnxprune.criteria import Filters
from onnxprune.criteria.msvfp import Kept, Msvfp, Step, search


def line(*values: float) -> Filters:
    """Filters of one weight each."""
    return Filters((np.array(values)[:, None],))


def chain(*names: str) -> tuple[dict[str, Filters], list[str]]:
    """Groups of ten filters of norms 1 to 10."""
    return {name: line(*range(1, 11)) for name in names}, list(names)


def product_cost(kept: Kept) -> float:
    """MACs of a chain of fully connected layers, which do not add up over groups: 3 inputs and 2 outputs."""
    widths = [3, *(len(v) for v in kept.values()), 2]
    return float(sum(a * b for a, b in pairwise(widths)))


class Loss:
    """Every filter of group g that is gone costs `weights[g]`; counts its calls."""

    def __init__(self, **weights: float) -> None:
        self.weights, self.calls = weights, 0

    def __call__(self, kept: Kept) -> float:
        self.calls += 1
        return sum(weight * (10 - len(kept[name])) for name, weight in self.weights.items())


def test_the_group_whose_trial_loses_least_is_thinned() -> None:
    groups, _ = chain("a", "b")
    loss = Loss(a=3, b=1)
    result = search(groups, 100, product_cost, loss, Msvfp(trials="all"))  # 3·10 + 10·10 + 10·2 = 150 at first
    assert {step.group for step in result.steps} == {"b"}
    assert result.reached
    # b of 10, 9, 8 ... costs 30 + 10b + 2b: 138, 126, 114, 102, 90.
    assert [step.cost for step in result.steps] == [138, 126, 114, 102, 90]
    assert [step.loss for step in result.steps] == [1, 2, 3, 4, 5]
    assert len(result.kept["a"]) == 10
    assert loss.calls == 1 + 2 * 5


def test_magnitude_until_half_of_the_target_then_similarity() -> None:
    groups = {"a": line(1, 2, 3, 30, 30.5, 40, 50, 60, 70, 80)}
    result = search(groups, 6, lambda kept: float(len(kept["a"])), lambda kept: 0.0)
    # Two of the four go by norm: 1 and 2. Of 3, 30, 30.5, 40 ... 80 the sums of distances are smallest for 40
    # (37 + 10 + 9.5 + 10 + 20 + 30 + 40 = 156.5; 50: 47 + 20 + 19.5 + 10 + 10 + 20 + 30 = 156.5): a tie, the later.
    assert [(step.criterion, step.removed.tolist()) for step in result.steps] == [
        ("magnitude", [0]),
        ("magnitude", [1]),
        ("similarity", [6]),
        ("similarity", [5]),
    ]


def test_a_step_is_a_share_of_the_current_filters() -> None:
    groups = {"a": line(*range(1, 101))}
    sizes = [step.removed.size for step in _alone(groups, 20, Msvfp(cap=1.0)).steps]
    left, expected = 100, []
    while left > 20:
        expected.append(min(int(left * 0.1 + 0.5), left - 20))
        left -= expected[-1]
    assert sizes == expected


def _alone(groups: Mapping[str, Filters], target: float, options: Msvfp | None = None):
    return search(groups, target, lambda kept: float(sum(map(len, kept.values()))), lambda kept: 0.0, options)


def test_a_layer_below_its_cap_is_left_alone_and_the_search_says_that_it_ended_early() -> None:
    groups, _ = chain("a", "b")
    result = _alone(groups, 2)
    assert {name: len(kept) for name, kept in result.kept.items()} == {"a": 3, "b": 3}
    assert not result.reached


def test_least_is_never_undercut() -> None:
    groups, _ = chain("a", "b")
    result = search(groups, 12, lambda k: float(sum(map(len, k.values()))), lambda k: 0.0, least={"a": 8, "b": 6})
    assert {name: len(kept) for name, kept in result.kept.items()} == {"a": 8, "b": 6}
    assert not result.reached
    assert len(_alone({"a": line(1, 2)}, 0, Msvfp(cap=1.0)).kept["a"]) == 1


def test_the_last_step_takes_no_more_than_it_needs() -> None:
    groups = {"a": line(*range(1, 101))}
    result = _alone(groups, 93)
    assert [step.removed.tolist() for step in result.steps] == [list(range(7))]
    assert len(result.kept["a"]) == 93


def test_groups_that_save_nothing_are_not_tried() -> None:
    groups, _ = chain("a", "idle")
    loss = Loss(a=1, idle=0)
    result = search(groups, 8, lambda kept: float(len(kept["a"])), loss)
    assert {step.group for step in result.steps} == {"a"}
    assert [step.trials for step in result.steps] == [1, 1]


def test_retraining_whenever_the_cost_has_fallen_enough_and_with_its_new_filters() -> None:
    groups = {"a": line(*range(1, 11))}
    seen: list[int] = []

    def retrain(kept: Kept) -> dict[str, Filters]:
        seen.append(len(kept["a"]))
        return {"a": line(*range(10, 0, -1))}  # from now on the last filters are the weak ones

    options = Msvfp(retrain_every=0.15, switch=1.0)
    result = search(groups, 6, lambda kept: float(len(kept["a"])), lambda kept: 0.0, options, retrain=retrain)
    assert seen == [8, 6]
    assert [step.retrained for step in result.steps] == [False, True, False, True]
    assert result.kept["a"].tolist() == [2, 3, 4, 5, 6, 7]


def test_lazy_trials_choose_alike_with_fewer_losses() -> None:
    groups, names = chain("a", "b", "c", "d")
    weights = dict(zip(names, (1.0, 1.73, 2.61, 9.13), strict=True))

    class Growing(Loss):
        def __call__(self, kept: Kept) -> float:
            self.calls += 1
            return sum(w * (10 - len(kept[n])) ** 2 for n, w in self.weights.items())

    eager, lazy = Growing(**weights), Growing(**weights)
    first = search(groups, 150, product_cost, eager, Msvfp(trials="all"))
    second = search(groups, 150, product_cost, lazy, Msvfp(trials="lazy"))
    assert [(s.group, s.removed.tolist(), s.loss) for s in first.steps] == [
        (s.group, s.removed.tolist(), s.loss) for s in second.steps
    ]
    assert lazy.calls < 0.7 * eager.calls


def test_a_loss_that_is_not_a_number_is_never_chosen() -> None:
    groups, _ = chain("a", "b")

    def loss(kept: Kept) -> float:
        return float("nan") if len(kept["a"]) < 10 else 1.0

    result = search(groups, 110, product_cost, loss)
    assert {step.group for step in result.steps} == {"b"}


@pytest.mark.parametrize("measure", ["cosine", "ncc"])
def test_other_similarities_remove_what_is_most_alike(measure: str) -> None:
    rows = np.array([[1.0, -1, 0, 0], [1, -1, 0.1, -0.1], [1, -1, -0.1, 0.1], [0, 0, 1, -1], [-1, 1, 0, 0]])
    result = search(
        {"a": Filters((rows,))},
        4,
        lambda kept: float(len(kept["a"])),
        lambda kept: 0.0,
        Msvfp(switch=0.0, similarity=measure),  # type: ignore[arg-type]
    )
    assert result.steps[0].criterion == "similarity"
    assert result.steps[0].removed.tolist() == [1]  # alike to the first two and leaning to the fourth


def test_progress_hears_every_step() -> None:
    heard: list[Step] = []
    groups, _ = chain("a")
    result = search(groups, 7, lambda k: float(len(k["a"])), lambda k: 0.0, progress=heard.append)
    assert heard == list(result.steps)
    assert len(heard) == 3


def test_what_stays_comes_in_multiples() -> None:
    groups, _ = chain("a", "b")
    result = search(groups, 60, product_cost, Loss(a=3, b=1), multiple={"a": 2, "b": 4}, least={"b": 4})
    assert result.reached
    # 10 → 8 → 4 of b, then it is at its least and a gives 2 at a time: 3·a + a·4 + 8 <= 60 from a = 6 on.
    assert [(s.group, len(s.removed)) for s in result.steps] == [("b", 2), ("b", 4), ("a", 2), ("a", 2)]
    assert result.steps[-1].cost == 50


def test_a_fine_search_leaves_a_coarse_step_to_finer_groups() -> None:
    groups, _ = chain("a", "b")
    cost = {"a": 10.0, "b": 1.0}

    def total(kept: Kept) -> float:
        return sum(cost[name] * len(channels) for name, channels in kept.items())

    coarse = search(groups, 95, total, Loss(a=1, b=99))  # 110 at first; each of a is worth ten of b
    assert [(s.group, s.cost) for s in coarse.steps] == [("a", 100), ("a", 90)]
    fine = search(groups, 95, total, Loss(a=1, b=99), fine=True)
    assert [(s.group, s.cost) for s in fine.steps] == [("a", 100), *(("b", c) for c in (99, 98, 97, 96, 95))]
    assert fine.reached
    stuck = search(groups, 95, total, Loss(a=1, b=99), fine=True, least={"b": 10})
    assert stuck.reached
    assert stuck.steps[-1].cost == 90
