"""The parts of training: what is learnt, which inner maps are compared, changed samples, the size of a step."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from cli_runs import DIGITS
from onnx import TensorProto, helper
from runtime_models import build
from test_finetune import samples

import onnxprune
from onnxprune.pipeline.inspect import analysed
from onnxprune.surgery.rewrite import cut

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'onnxprune[train]'")

from onnxprune.runtime import trim  # noqa: E402
from onnxprune.training import augment, loop, optimizer, teacher  # noqa: E402 - they need torch
from onnxprune.training.loop import changed_batches  # noqa: E402
from onnxprune.training.module import TorchModule  # noqa: E402
from onnxprune.training.objective import Mixed, ScoredOutput, Valued, objective  # noqa: E402
from onnxprune.training.places import places, spread  # noqa: E402
from onnxprune.training.precision import fits  # noqa: E402
from onnxprune.training.samples import TrainingSamples  # noqa: E402

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(64, 10)).astype(np.float32) * 3
PROBABLE = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def loss_of(given: np.ndarray, wanted: np.ndarray, labels: np.ndarray | None = None, name: str = "scores") -> float:
    found = objective([({name: wanted}, labels)], [name], [])
    truth = None if labels is None else torch.from_numpy(labels)
    return float(found({name: torch.from_numpy(given)}, {name: torch.from_numpy(wanted)}, truth))


# --- what is learnt -----------------------------------------------------------


def test_logits_and_probabilities_are_learnt_alike() -> None:
    other = LOGITS + RANDOM.normal(size=LOGITS.shape).astype(np.float32)
    same = np.exp(other) / np.exp(other).sum(1, keepdims=True)
    assert loss_of(other, LOGITS) == pytest.approx(loss_of(same, PROBABLE), rel=1e-3)
    assert loss_of(LOGITS, LOGITS) == pytest.approx(0, abs=1e-5)
    assert loss_of(LOGITS + 5, LOGITS) == pytest.approx(0, abs=1e-4)  # a constant on all classes changes none


def test_labels_count_where_they_are_classes_of_the_output() -> None:
    right, wrong = LOGITS.argmax(1), (LOGITS.argmax(1) + 1) % 10
    assert loss_of(LOGITS, LOGITS, right) < loss_of(LOGITS, LOGITS, wrong)
    assert loss_of(LOGITS, LOGITS, right + 100) == pytest.approx(0, abs=1e-5)


def test_a_mixture_has_the_labels_of_both() -> None:
    found = objective([({"scores": LOGITS}, LOGITS.argmax(1))], ["scores"], [])
    given, labels = {"scores": torch.from_numpy(LOGITS)}, torch.from_numpy(LOGITS.argmax(1))
    partner = torch.arange(63, -1, -1)
    whole, swapped, half = (
        float(found(given, given, y, Mixed(partner, share)))
        for y, share in ((labels, 1.0), (labels, 0.0), (labels, 0.5))
    )
    assert half == pytest.approx((whole + swapped) / 2, rel=1e-5)


def test_boxes_in_pixels_and_scores_in_one_output_both_count() -> None:
    boxes, scores = RANDOM.normal(size=(8, 50, 4)) * 100, RANDOM.random(size=(8, 50, 2)) / 10
    wanted = np.concatenate([boxes, scores], 2).astype(np.float32)
    one, two = wanted.copy(), wanted.copy()
    one[..., :4] *= 1.1
    two[..., 4:] *= 1.1
    assert 0.05 < loss_of(two, wanted, name="dets") / loss_of(one, wanted, name="dets") < 20


def test_every_output_is_measured_in_its_own_unit() -> None:
    small = RANDOM.normal(size=(8, 5, 7)).astype(np.float32)
    found = objective([({"a": small, "b": small * 1e4}, None)], ["a", "b"], [])
    assert all(isinstance(t, Valued) for t in found.outputs)
    wanted = {n: torch.from_numpy(a) for n, a in (("a", small), ("b", small * 1e4))}
    losses = [float(found({**wanted, n: wanted[n] * 1.1}, wanted)) for n in wanted]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# --- inner maps ---------------------------------------------------------------


def test_an_inner_map_of_the_original_is_cut_to_what_the_pruned_network_has() -> None:
    run = analysed(str(DIGITS), "inspect", {})
    group = next(g for g in run.original.deps.groups if len(g) > 8)
    kept = {group.name: np.arange(0, len(group), 2)}
    pruned = cut(run.original.network, run.original.deps, run.original.deps.dead(kept))
    found = places(run.original.deps, run.original.deps.dead(kept), pruned)
    halved = [p for p in found if not all(m.all() for m in p.live)]
    assert halved
    whole = np.arange(np.prod([2, *(m.size for m in halved[0].live[1:])])).reshape(
        2, *(m.size for m in halved[0].live[1:])
    )
    assert np.array_equal(halved[0].kept(whole), whole[:, ::2])
    assert np.array_equal(teacher._kept(torch.from_numpy(whole), halved[0]).numpy(), whole[:, ::2])
    assert len(spread(found * 5)) <= 6


# --- changed samples ----------------------------------------------------------

IMAGES = {"x": RANDOM.normal(size=(64, 3, 16, 16)).astype(np.float32)}


def run_by(score: Callable[[np.ndarray], np.ndarray]) -> augment.Run:
    """A network of two classes, by the sign of a number."""
    return lambda feed: {"y": np.stack([score(feed["x"]), -score(feed["x"])], 1)}


@pytest.mark.parametrize(
    ("score", "shifts", "mirrors"),
    [
        (lambda x: x.mean((1, 2, 3)), True, True),
        (lambda x: x[..., :8].mean((1, 2, 3)) - x[..., 8:].mean((1, 2, 3)), False, False),
        (lambda x: x[:, 0, 8, 8] + x[:, 0, 8, 7], False, True),
    ],
    ids=["of all pixels", "left against right", "of two pixels in the middle"],
)
def test_samples_are_changed_where_the_class_stays(
    score: Callable[[np.ndarray], np.ndarray], shifts: bool, mirrors: bool
) -> None:
    flat = {"x": IMAGES["x"] + np.sign(IMAGES["x"].mean((1, 2, 3), keepdims=True))} if shifts else IMAGES
    found = augment.change_of([flat], "y", run_by(score))
    assert (found.shift > 0, found.mirror, found.mix) == (shifts, mirrors, True)


def test_what_is_no_image_or_no_class_stays_as_it_is() -> None:
    assert augment.change_of([IMAGES], None, run_by(lambda x: x.mean((1, 2, 3)))) == augment.Change()
    rows = {"x": RANDOM.normal(size=(8, 40)).astype(np.float32)}
    assert augment.change_of([rows], "y", run_by(lambda x: x.mean(1))) == augment.Change()


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_shifted_image_is_the_image_elsewhere(channels_last: bool) -> None:
    images = IMAGES["x"].transpose(0, 2, 3, 1) if channels_last else IMAGES["x"]
    change, generator = augment.Change(("x",), shift=3), np.random.default_rng(1)
    moved, _ = change({"x": images}, generator)
    down, right = np.random.default_rng(1).integers(-3, 4, (64, 2))[0]
    one, two = (a["x"][0].transpose(2, 0, 1) if channels_last else a["x"][0] for a in ({"x": images}, moved))
    inner = slice(3, 13)
    assert np.array_equal(two[:, inner, inner], one[:, 3 - down : 13 - down, 3 - right : 13 - right])
    assert moved["x"].shape == images.shape


def test_a_mixture_is_made_of_the_image_and_its_partner() -> None:
    change, seen = augment.Change(("x",), mix=True), set()
    for seed in range(30):
        mixed, pair = change(IMAGES, np.random.default_rng(seed))
        if pair is None:
            continue
        partner, share = pair
        one, two, out = IMAGES["x"], IMAGES["x"][partner], mixed["x"]
        pasted = (out == one) | (out == two)
        seen.add(bool(pasted.all()))
        if pasted.all():
            different = (one != two).any(axis=(0, 1))
            assert (out == one).all((0, 1))[different].mean() == pytest.approx(share, abs=1e-6)
        else:
            assert np.allclose(out, share * one + (1 - share) * two, atol=1e-5)
    assert seen == {True, False}  # both kinds of mixture


def test_what_is_judged_has_changed_copies_the_same_each_time() -> None:
    held = TrainingSamples.drawn([IMAGES])
    still = list(changed_batches(held, augment.Change(), 0))
    assert sum(len(feed["x"]) for feed, *_ in still) == 64  # nothing can be changed: the samples as they are
    change = augment.Change(("x",), shift=2, mix=True)
    one, two, other = (list(changed_batches(held, change, seed)) for seed in (0, 0, 1))
    assert np.array_equal(one[0][0]["x"], IMAGES["x"])
    assert sum(len(feed["x"]) for feed, *_ in one) == 64 + loop.COPIES
    assert not any(np.array_equal(feed["x"], IMAGES["x"]) for feed, *_ in one[1:])
    assert any(mixing for *_, mixing in one)
    assert all(np.array_equal(a["x"], b["x"]) for (a, *_), (b, *_) in zip(one, two, strict=True))
    assert not all(np.array_equal(a["x"], b["x"]) for (a, *_), (b, *_) in zip(one, other, strict=True))


# --- steps --------------------------------------------------------------------


def test_steps_are_the_larger_the_more_there_is_to_learn() -> None:
    steps = [optimizer.largest_step(gap) for gap in (0.0, 0.05, 0.2, 0.8, 100.0, math.inf, math.nan, -1e-9)]
    assert steps[:5] == sorted(steps[:5])
    assert steps[3] == pytest.approx(2 * steps[2]) == pytest.approx(4 * steps[1])
    assert {steps[0], *steps[5:]} == {optimizer.LEAST}  # a divergence of nothing may round to less
    assert steps[4] == optimizer.MOST


def test_a_step_is_a_share_of_the_size_of_a_tensor() -> None:
    generator = torch.Generator().manual_seed(0)
    large, small = (torch.randn(64, 64, generator=generator) * s for s in (10.0, 0.001))
    bias = torch.zeros(64)
    units = optimizer.units([large, small, bias, torch.ones(64)])
    assert units[0] / units[1] == pytest.approx(1e4, rel=0.7)
    assert 0 < units[2] <= units[3]


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (40, 24), (24, 100)], ids=["filters", "tall", "wide"])
def test_a_matrix_moves_in_all_its_directions_alike(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    weight.grad = torch.randn(shape, generator=generator) * 1e-3
    weight.grad[0] *= 30  # one output has by far the largest gradient
    before, made = weight.detach().clone(), optimizer.Optimizer([weight])
    made.step(0.01)
    moved = (before - weight.detach()).flatten(1)
    values = torch.linalg.svdvals(moved)
    assert values.min() > values.max() / 3
    assert moved.square().mean().sqrt() == pytest.approx(0.01 * optimizer.SHARE * made.units[0], rel=0.3)


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((8, 4, 3, 3), True), ((8, 1, 3, 3), False), ((8,), False), ((1, 64, 8), False), ((600, 600), False)],
    ids=["filters", "depthwise", "bias", "recurrent", "too large"],
)
def test_what_is_no_matrix_moves_by_adam(shape: tuple[int, ...], matrix: bool) -> None:
    weight = torch.nn.Parameter(torch.ones(shape))
    weight.grad = torch.ones(shape)
    assert optimizer.is_matrix(weight) is matrix
    if not matrix:
        optimizer.Optimizer([weight]).step(0.01)
        assert torch.allclose(weight, torch.full(shape, 0.99))  # the first step is as large as the rate


@pytest.mark.parametrize("number", [50, 1000, 20_000])
def test_the_rate_rises_falls_and_ends_at_nothing(number: int) -> None:
    rates = [optimizer.rate(k, number, k / number) for k in range(number + 1)]
    top = int(np.argmax(rates))
    assert 0 < top <= min(200, number / 10)
    assert rates[top] == pytest.approx(1, abs=0.05)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_scores_are_found_by_their_probabilities() -> None:
    found = objective([({"p": PROBABLE, "z": LOGITS[:, :3]}, None)], ["p", "z"], [])
    assert [type(t) for t in found.outputs] == [ScoredOutput, Valued]


# --- mixed precision ----------------------------------------------------------


@pytest.mark.parametrize(
    ("centred", "supported", "mixed"),
    [(False, True, True), (True, True, False), (False, False, False)],
    ids=["harmless", "a difference of large values", "a processor without bfloat16"],
)
def test_products_are_rounded_where_the_processor_can_and_the_values_stay(
    monkeypatch: pytest.MonkeyPatch, centred: bool, supported: bool, mixed: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    w = np.abs(RANDOM.normal(size=(64, 8))).astype(np.float32)
    x = np.ones((4, 64), np.float32) + RANDOM.normal(size=(4, 64)).astype(np.float32) / 100
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Sub", ["h", "means"], ["y"])]
    weights = {"w": w, "means": (x @ w).mean(0) * centred}
    model = build(nodes, [("x", TensorProto.FLOAT, [4, 64])], [("y", TensorProto.FLOAT, [4, 8])], weights)
    assert fits(TorchModule.of(model), [{"x": torch.from_numpy(x)}], ["y"]) is mixed
    quick = teacher.rounded(model, [{"x": x}], [], [])
    assert (quick is not None) is mixed
    if quick:
        exact = teacher.teacher_of(model, [], [], "cpu", 1)({"x": x})["y"]
        assert quick({"x": x})["y"].dtype == torch.float32
        assert 0 < (quick({"x": x})["y"] - exact).abs().max() < 0.05 * exact.abs().max()


def test_memory_is_kept_inside_and_handed_back_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, kept, usual = [], [(-1, 1 << 30), (-3, 1 << 30)], [(-1, 128 << 10), (-3, 128 << 10)]  # of mallopt(3)
    glibc = SimpleNamespace(mallopt=lambda *given: calls.append(given))
    monkeypatch.setattr(trim.ctypes, "CDLL", lambda name: glibc)

    def interrupted() -> None:
        with trim.kept_memory():
            assert calls == kept
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert calls == kept + usual
    monkeypatch.setattr(trim.ctypes, "CDLL", lambda name: SimpleNamespace())
    with trim.kept_memory():  # of a library that has no such call
        assert calls == kept + usual


@pytest.mark.parametrize(("labels", "lr", "passes"), [(False, None, 1), (True, None, 2), (True, 0.1, 1)])
def test_held_out_samples_are_gone_through_again_for_the_rate_alone(
    monkeypatch: pytest.MonkeyPatch, labels: bool, lr: float | None, passes: int
) -> None:
    """Where labels are in the loss, and no rate is given."""
    started, begun, judge = [], loop.Training._start, loop.Training._held_loss

    def start(training: loop.Training) -> None:
        done: list[float] = []
        with monkeypatch.context() as patch:
            patch.setattr(loop.Training, "_held_loss", lambda *a, **k: done.append(judge(*a, **k)) or done[-1])
            begun(training)
        gap = judge(training, training.averages, labelled=False)
        started.append((len(done), training.rate, optimizer.largest_step(gap)))

    monkeypatch.setattr(loop.Training, "_start", start)
    onnxprune.prune(
        DIGITS, ratio=0.5, compensate="none", finetune=1, data=samples(labels=labels), lr=lr, measure=False,
        verify=False, threads=1,
    )  # fmt: skip
    ((found, rate, step),) = started
    assert found == passes
    assert rate == pytest.approx(lr or step)
