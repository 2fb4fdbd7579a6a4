"""One training from beginning to end: the original as the teacher, the pruned network as the student."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxprune.errors import CheckFailed, UsageError, spelled
from onnxprune.model.network import Network
from onnxprune.model.tensors import quoted
from onnxprune.progress import Progress
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Feed
from onnxprune.runtime.trim import kept_memory
from onnxprune.surgery.binding import content, digest
from onnxprune.training.agree import agreement
from onnxprune.training.augment import Change, change_of
from onnxprune.training.loop import Outcome, Training, held_batches
from onnxprune.training.module import TorchModule
from onnxprune.training.objective import Objective, ScoredOutput, objective
from onnxprune.training.places import FeaturePlace, spread
from onnxprune.training.precision import fits
from onnxprune.training.recipe import Recipe
from onnxprune.training.samples import TrainingSamples
from onnxprune.training.teacher import Teacher, real, rounded, teacher_of, tensors

LOOKED_AT = 128  # samples that outputs are looked at on
COMPARED = 4  # batches on which torch has to equal onnxruntime


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained.

    Args:
        original: the network that is learnt from.
        pruned: the network that learns; never changed.
        places: inner maps that both may have.
        load: samples of an epoch, by its number.
        held: samples that states are told apart by, and that nothing is trained on.
        recipe: how.
        least: samples of an epoch, where there are fewer.
        threads: of the CPU.
        fixed: keys of tensors that stay what they are.
        progress: told of every step.
    """

    original: Network
    pruned: Network
    places: Sequence[FeaturePlace]
    load: Callable[[int], TrainingSamples]
    held: TrainingSamples
    recipe: Recipe
    least: int
    threads: int
    fixed: Collection[str]
    progress: Progress


@dataclass(frozen=True)
class Distilled:
    """A trained network, and what was found on the way.

    model: the pruned one with other weights; the pruned one itself where training has not helped.
    changed: keys of the weights that are others.
    frozen: what was not trained, and why.
    apart: how far torch was from onnxruntime before, as a share of the largest output.
    loss: mean on the held-out samples as onnxruntime gives it, before and after.
    """

    model: Network
    changed: tuple[str, ...]
    frozen: Mapping[str, str]
    apart: float
    loss: tuple[float, float]
    outcome: Outcome
    objective: Objective
    change: Change
    mixed: bool  # whether products were taken in bfloat16

    @property
    def helped(self) -> bool:
        """Whether the weights are those of training."""
        return self.loss[1] < self.loss[0]


def train(job: TrainingJob) -> Distilled:
    """Train, and keep the best state on the held-out samples, if onnxruntime finds it better than none.

    Raises:
        ModelError: the network cannot be trained, since torch does not compute what onnxruntime does, or has no
            gradient for an operator; named.
        UsageError, FileError: the state to resume from does not fit, or cannot be read or written.
        CheckFailed: more than weights would change.
    """
    _require(job.recipe.device)
    with _threads(job.threads):
        student = TorchModule.of(job.pruned, job.recipe.device)
        for key, parameter in student.parameters_by_key().items():
            parameter.requires_grad_(key not in job.fixed)
        compared = [feed for feed, _ in held_batches(job.held, COMPARED, COMPARED)]
        apart = max(agreement(student, job.pruned, compared).values(), default=0.0)
        training = _training(job, student)
        outcome = training.run()
        model = student.written(job.pruned)
        keys = [k for k, p in student.parameters_by_key().items() if p.requires_grad]
        changed = changed_weights(job.pruned, model, keys)
        before = held_loss(job, job.pruned, training)
        after = held_loss(job, model, training) if changed else before
    helped = after < before
    return Distilled(
        model if helped else job.pruned, changed if helped else (), student.frozen, apart, (before, after), outcome,
        training.objective, training.change, training.mixed,
    )  # fmt: skip


def _require(device: str) -> None:
    """Raise UsageError where torch has no such device here."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{spelled('device', device)} cannot be used here: {reason}") from None


def _training(job: TrainingJob, student: TorchModule) -> Training:
    places = spread(_comparable(job, student))
    inner = inner_ends(student)
    teacher = teacher_of(job.original, inner, places, job.recipe.device, job.threads)

    def given(feed: Feed) -> dict[str, np.ndarray]:
        return {n: t.cpu().numpy() for n, t in teacher(feed).items()}

    seen = list(held_batches(job.held, LOOKED_AT))
    looks = [(given(feed), labels) for feed, labels in seen]
    wanted = objective(looks, _alike(job, student, teacher), places)
    scored = next((t.output for t in wanted.outputs if isinstance(t, ScoredOutput)), None)
    change = change_of([feed for feed, _ in seen], scored, given)
    names = [*(t.output for t in wanted.outputs), *(p.name for p in wanted.places)]
    mixed = fits(student, [tensors(feed, job.recipe.device) for feed, _ in seen[:1]], names)
    quick = rounded(job.original, [feed for feed, _ in seen[:1]], inner, wanted.places) if mixed else None
    return Training(
        student, inner, quick or teacher, teacher, wanted.to(job.recipe.device), change, job.load, job.held, job.recipe,
        job.progress, job.least, _key(job) if job.recipe.resume else "", mixed,
    )  # fmt: skip


def _comparable(job: TrainingJob, student: TorchModule) -> list[FeaturePlace]:
    """Places where the map of the pruned network is as large as what stays of the original's."""
    names = [p.name for p in job.places]
    if not names:
        return []
    feed = job.held.batches([0])[0][0]
    there = make_session(job.original, providers="cpu", taps=names).run(feed, names)
    with torch.no_grad():
        here = student(tensors(feed, job.recipe.device), names)
    return [
        p
        for p in job.places
        if there[p.name].dtype.kind == "f" and p.kept(there[p.name]).shape == tuple(here[p.name].shape)
    ]


def _alike(job: TrainingJob, student: TorchModule, teacher: Teacher) -> list[str]:
    """Values that the loss is taken of, which both networks give in the same size."""
    feed = job.held.batches([0])[0][0]
    there = teacher(feed)
    with torch.no_grad():
        here = student(tensors(feed, job.recipe.device), inner_ends(student))
    return [name for name in student.ends if name in there and there[name].shape == here[name].shape]


def inner_ends(student: TorchModule) -> list[str]:
    """Values that a loss is taken of besides the outputs: what a class or an index is made from."""
    return [name for name in student.ends if name not in student.outputs]


def held_loss(job: TrainingJob, model: Network, training: Training) -> float:
    """Mean loss of a model on the held-out samples and changed copies of them, computed by onnxruntime."""
    session = make_session(model, providers="cpu", threads=job.threads, optimize=True, taps=training.inner)
    total, measured = 0.0, training.objective.to("cpu")
    for feed, wanted, labels, mixed in training.targets():
        given: dict[str, Tensor] = {n: real(a) for n, a in session.run(feed).items() if a.dtype.kind in "fiub"}
        right = {n: t.cpu() for n, t in wanted.items()}
        truth = None if labels is None else labels.cpu()
        total += float(measured.judged(given, right, truth, mixed and mixed.cpu()))
    return total / max(len(training.targets()), 1)


def _key(job: TrainingJob) -> str:
    """What tells this job from others, so that a state is not gone on from in another one."""
    recipe = {"lr": job.recipe.lr, "batch_size": job.recipe.batch_size, "seed": job.recipe.seed}
    held = [digest(array) for feed in job.held.feeds for array in feed.values()] + [*map(digest, job.held.labels or ())]
    facts = [content(job.original), content(job.pruned), recipe, held, job.least, [p.name for p in job.places]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many threads for torch, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with kept_memory():
            yield
    finally:
        torch.set_num_threads(before)


def changed_weights(before: Network, after: Network, trained: Collection[str]) -> tuple[str, ...]:
    """Keys of the tensors that have other elements; all else is the same to the last bit.

    Args:
        before, after: the model before and after training.
        trained: keys of the tensors that may differ.

    Raises CheckFailed where a tensor has another shape or type, one that was not trained has changed, or anything else
    in the file has.
    """
    old, new = before.headers, after.headers
    changed = tuple(k for k in old if k in new and digest(before.array(k)) != digest(after.array(k)))
    for key in changed:
        if key not in trained:
            raise CheckFailed(f"training has changed {quoted(key)}, which is no weight that was trained")
        if (list(old[key].dims), old[key].data_type) != (list(new[key].dims), new[key].data_type):
            raise CheckFailed(f"training has changed the shape or the type of {quoted(key)}")
    if content(_blank(before, trained)) != content(_blank(after, trained)):
        raise CheckFailed("training has changed more of the model than its weights")
    return changed


def _blank(network: Network, keys: Collection[str]) -> Network:
    """The network with zeros in some tensors."""
    own = (key for key in keys if key in network)
    return network.with_tensors({key: np.zeros_like(network.array(key)) for key in own})
