"""One battery over every row of the table of methods."""

import hashlib
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from onnxprune.criteria import METHODS, Filters, Method, method
from onnxprune.errors import ModelError, UsageError

NAMES = list(METHODS)
SIMILARITY = ["ncc", "apssf", "spectral"]  # methods in which copies must fall together


def group(channels: int, seed: int = 0) -> Filters:
    """A coupled group: a 3×3 layer, a 1×1 layer and a fully connected one, of different dtypes, with two scales."""
    generator = np.random.default_rng(seed)
    shapes = ((channels, 3, 3, 3), (channels, 5, 1, 1), (channels, 7))
    kinds = (np.float32, np.float16, np.float64)
    weights = tuple(generator.standard_normal(s).astype(k) for s, k in zip(shapes, kinds, strict=True))
    return Filters(weights, tuple(generator.standard_normal((2, channels)).astype(np.float32)))


def evidence_for(way: Method, channels: int) -> np.ndarray | None:
    return np.random.default_rng(channels).random(channels) if "images" in way.needs else None


@pytest.fixture(params=NAMES)
def way(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


def keep(way: Method, filters: Filters, count: int) -> np.ndarray:
    return way.select(filters, count, evidence_for(way, filters.channels))


@pytest.mark.parametrize("channels", [1, 2, 3, 13, 40])
def test_every_count_is_met_exactly_with_sorted_unique_indices(way: Method, channels: int) -> None:
    filters = group(channels)
    ranking = way.rank(filters, evidence_for(way, channels))
    for count in range(1, channels + 1):
        kept = ranking.keep(count)
        assert kept.dtype == np.int64
        assert len(kept) == count
        assert (np.diff(kept) > 0).all()
        assert kept[0] >= 0
        assert kept[-1] < channels
    assert ranking.keep(channels).tolist() == list(range(channels))


def test_a_count_of_all_needs_no_look_at_the_weights(way: Method) -> None:
    broken = Filters((np.full((4, 2), np.nan),), (np.ones(4),))
    assert way.select(broken, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [0, -1, 6])
def test_impossible_counts_are_refused(way: Method, count: int) -> None:
    with pytest.raises(UsageError, match="of 5 channels"):
        keep(way, group(5), count)


def test_the_same_filters_give_the_same_answer(way: Method) -> None:
    first, second = (keep(way, group(30), 11) for _ in range(2))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_permutation_of_the_filters_permutes_the_answer(way: Method, seed: int) -> None:
    channels, count = 24, 9
    filters, order = group(channels, seed), np.random.default_rng(seed + 100).permutation(channels)
    evidence = evidence_for(way, channels)
    kept = way.select(filters, count, evidence)
    moved = way.select(filters.take(order), count, None if evidence is None else evidence[order])
    assert sorted(order[moved]) == kept.tolist()


@pytest.mark.parametrize("name", SIMILARITY)
def test_of_each_pair_of_copies_one_stays(name: str) -> None:
    once = group(12)
    order = np.random.default_rng(3).permutation(24)
    twice = once.take(np.repeat(np.arange(12), 2)[order])
    kept = METHODS[name].select(twice, 12)
    assert sorted(order[kept] // 2) == list(range(12))


def test_scaled_and_shifted_copies_fall_together_under_ncc() -> None:
    once = np.random.default_rng(0).standard_normal((6, 40))
    weights = np.concatenate([once, 3 * once + 1, 0.1 * once])
    assert METHODS["ncc"].select(Filters((weights,)), 6).tolist() == [6, 7, 8, 9, 10, 11]  # of each the largest


def test_filters_of_zeros_leave_first(way: Method) -> None:
    filters = group(20)
    dead = np.arange(0, 20, 2)
    for weight in filters.weights:
        weight[dead] = 0
    alive = np.arange(1, 20, 2)
    assert keep(way, filters, 10).tolist() == alive.tolist()
    assert set(keep(way, filters, 4)) < set(alive)
    assert set(keep(way, filters, 13)) == {*alive, 0, 2, 4}


def test_filters_that_a_zero_gamma_erases_leave_first(way: Method) -> None:
    filters = group(12)
    scales = tuple(np.where(np.arange(12) % 3 == 0, 0, s) for s in (*filters.scales, filters.scales[0]))
    erased = Filters(filters.weights, scales)
    assert keep(way, erased, 8).tolist() == [k for k in range(12) if k % 3]


@pytest.mark.parametrize(
    "weights",
    [
        np.zeros((7, 3, 2, 2)),
        np.ones((7, 3, 2, 2)),
        np.linspace(-3, 3, 7)[:, None, None, None] * np.ones((1, 3, 2, 2)),
        np.eye(7).reshape(7, 7, 1, 1),
        np.concatenate([np.zeros((3, 4)), np.ones((2, 4)), np.eye(2, 4)]),
        np.full((7, 3), 1e-30, np.float32),
        np.full((7, 3), 3e38, np.float32),
    ],
    ids=["zero", "equal", "constant", "orthogonal", "mixed", "tiny", "huge"],
)
def test_degenerate_filters_do_not_crash(way: Method, weights: np.ndarray) -> None:
    filters = Filters((weights,), (np.ones(7),))
    with np.errstate(all="raise", under="ignore"):
        ranking = way.rank(filters, evidence_for(way, 7))
        assert [len(ranking.keep(count)) for count in range(1, 8)] == list(range(1, 8))
    assert np.isfinite(ranking.losses).all()


def test_weights_that_are_not_finite_are_an_error(way: Method) -> None:
    weights = np.ones((5, 3), np.float32)
    weights[2, 1] = np.inf
    with pytest.raises(ModelError, match="filter 2 "):
        keep(way, Filters((weights,), (np.ones(5),)), 2)


def test_order_and_losses_describe_every_removal_once(way: Method) -> None:
    ranking = way.rank(group(16), evidence_for(way, 16))
    assert sorted(ranking.order) == list(range(16))
    assert (ranking.losses >= 0).all()
    assert ranking.losses.sum() <= 1 + 1e-9
    assert (np.diff(ranking.curve) >= 0).all()
    assert len(ranking.curve) == 17


@pytest.mark.parametrize("name", ["ncc", "l1", "l2", "fpgm", "bn", "random"])
def test_nested_methods_keep_what_their_order_leaves(name: str) -> None:
    ranking = METHODS[name].rank(group(16))
    for count in range(1, 17):
        assert ranking.keep(count).tolist() == sorted(ranking.order[16 - count :])


def test_rows_say_what_they_are(way: Method) -> None:
    assert METHODS[way.name] is way
    assert way.needs
    assert way.summary
    assert way.source
    assert all(option.text for option in way.options)
    assert way.with_options({option.name: option.default for option in way.options}) == way
    with pytest.raises(FrozenInstanceError):
        way.name = "other"  # type: ignore[misc]


def test_every_choice_of_every_option_works(way: Method) -> None:
    filters, evidence = group(10), evidence_for(way, 10)
    for option in way.options:
        for choice in option.choices:
            assert len(way.with_options({option.name: choice}).select(filters, 4, evidence)) == 4


@pytest.mark.parametrize("name", ["cshe", "spectral", "random"])
def test_methods_that_draw_have_a_seed(name: str) -> None:
    filters = group(60)
    answers = {tuple(method(name, seed=s).select(filters, 20, evidence_for(METHODS[name], 60))) for s in range(6)}
    assert len(answers) > 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nnc", {}, "no method 'nnc'; there are ncc,"),
        ("ncc", {"linkge": "single"}, "no option 'linkge'; it has: absolute, floor, lag"),
        ("ncc", {"linkage": "ward"}, "one of complete, average, single, not 'ward'"),
        ("ncc", {"absolute": "perhaps"}, "wants yes or no"),
        ("apssf", {"share": 1.5}, "from 0.0 to 1.0"),
        ("apssf", {"alpha": 0, "beta": 0}, "compares nothing"),
        ("spectral", {"restarts": 0}, "at least 1"),
        ("spectral", {"seed": "x"}, "wants a whole number"),
        ("spectral", {"sigma": "nan"}, "at least 0.0"),
        ("l2", {"seed": 1}, "it has: none"),
    ],
)
def test_unfit_names_and_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        method(name, **options)


def test_options_may_come_as_text() -> None:
    rule = method("cshe", clusters="3", q="5", restarts="1").rule
    assert (rule.clusters, rule.q, rule.restarts) == (3, 5.0, 1)
    assert method("ncc", absolute="yes").rule.absolute is True


def test_what_a_method_lacks_is_said() -> None:
    bare = Filters((np.ones((3, 2)),))
    with pytest.raises(UsageError, match=r"unfused BatchNormalization.*'l2'"):
        METHODS["bn"].select(bare, 1)
    with pytest.raises(UsageError, match="calibration images"):
        METHODS["cshe"].select(bare, 1)
    with pytest.raises(UsageError, match="3 finite numbers"):
        METHODS["cshe"].select(bare, 1, np.ones(2))
    assert METHODS["l2"].lacks(bare) is None


@pytest.mark.parametrize(
    "arrays",
    [
        ((), ()),
        ((np.ones(3),), ()),
        ((np.ones((3, 2)), np.ones((4, 2))), ()),
        ((np.ones((3, 0)),), ()),
        ((np.ones((3, 2)),), (np.ones(2),)),
    ],
)
def test_filters_that_do_not_fit_are_refused(arrays: tuple) -> None:
    with pytest.raises(UsageError):
        Filters(*arrays)


PROGRAM = """
import hashlib, numpy as np
from onnxprune.criteria import METHODS, Filters
from onnxprune.criteria.similarity import correlations
generator = np.random.default_rng(5)
weights = generator.standard_normal((512, 240, 3, 3)).astype(np.float32)  # wide enough for products in float32
weights[1::4] = weights[::4] * np.float32(0.7)
wide, small = Filters((weights,), (np.ones(512),)), Filters((weights[:96, :5],), (weights[:96, 0, 0, 0],))
digest = hashlib.sha256(correlations(wide).pairs().tobytes())
for filters in (wide, small):
    for way in METHODS.values():
        evidence = np.arange(filters.channels) * 0.37 % 1 if "images" in way.needs else None
        digest.update(way.select(filters, filters.channels * 5 // 8, evidence).tobytes())
print(digest.hexdigest())
"""


def test_threads_and_hash_seeds_do_not_change_the_bytes() -> None:
    def run(threads: str) -> str:
        settings = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        paths = os.pathsep.join(p for p in sys.path if p)
        environment = {**os.environ, **settings, "PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    one, two = run("1"), run("2")
    assert len(one) == len(hashlib.sha256().hexdigest())
    assert one == two
