"""The training itself: epochs of steps, the best state on held-out samples, and an end whenever it is wanted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxprune.errors import FileError
from onnxprune.progress import Progress
from onnxprune.runtime.specs import Feed
from onnxprune.training import checkpoint, optimizer
from onnxprune.training.augment import Change, Mixing
from onnxprune.training.module import TorchModule
from onnxprune.training.objective import Mixed, Objective
from onnxprune.training.precision import products
from onnxprune.training.recipe import Recipe
from onnxprune.training.samples import TrainingSamples
from onnxprune.training.teacher import Teacher, tensors

AT_ONCE = 64  # held-out samples that are run together
COPIES = 512  # changed copies of held-out samples, about
INTERRUPTED = "interrupted"  # by Ctrl-C
RECENT = 50  # steps whose mean loss is told

Target = tuple[Feed, dict[str, Tensor], Tensor | None, Mixed | None]  # a feed, the original's outputs, labels, mixing


@dataclass(frozen=True)
class Outcome:
    """How a training went; the network holds the best state that there was.

    before, best: mean loss on the held-out samples, before training and of that state.
    epochs: that were gone through, `best_epoch` the one that was best (0: none was better than before).
    rate: the largest step of a weight, in units of its tensor.
    ended: why it ended before its time, "" where it did not.
    unsaved: why the state to resume from could not be kept, "" where it was.
    """

    before: float
    best: float
    best_epoch: int
    epochs: int
    seconds: float
    rate: float
    ended: str = ""
    unsaved: str = ""


@dataclass
class Training:
    """A training under way.

    Args:
        student: the pruned network; its parameters change.
        inner: values that the loss is taken of besides the outputs.
        teacher: what the original makes of a feed.
        exact: the same in float32, for what is judged.
        load: the samples of an epoch, by its number.
        held: samples that states are told apart by.
        least: samples of an epoch; where there are fewer they are gone through again, changed anew.
        key: of the job, for the file that it can be resumed from.
        mixed: whether products are taken in bfloat16.
    """

    student: TorchModule
    inner: Sequence[str]
    teacher: Teacher
    exact: Teacher
    objective: Objective
    change: Change
    load: Callable[[int], TrainingSamples]
    held: TrainingSamples
    recipe: Recipe
    progress: Progress
    least: int = 1
    key: str = ""
    mixed: bool = False
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0  # of the runs before this one
    before: float = math.inf
    best: float = math.inf
    best_epoch: int = 0
    rate: float = 0.0  # the largest step
    _targets: list[Target] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.student.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.parameters]
        self.chosen = [p.detach().clone() for p in self.parameters]
        self.optimizer = optimizer.Optimizer(self.parameters)
        self.begun = time.perf_counter()
        self.losses: list[float] = []
        self.unsaved = ""

    def run(self) -> Outcome:
        """Train; Ctrl-C ends it, and the best state so far is kept.

        Raises:
            UsageError, FileError: the file to resume from is of another job, or cannot be read or written.
            ModelError: a network cannot be run on the samples.
        """
        ended = ""
        try:
            self._start()
            if not math.isfinite(self.before):
                ended = "the loss is no number before it: a network gives none on the samples"
            while self.epoch < self.recipe.epochs and self._done() < 1 and not ended:
                ended = self._epoch()
        except KeyboardInterrupt:
            ended = INTERRUPTED
            if self.before < math.inf:
                self._judge()
        self._put(self.chosen)
        return Outcome(
            self.before, self.best, self.best_epoch, self.epoch, self._seconds(), self.rate, ended, self.unsaved
        )

    # --- steps ---------------------------------------------------------------

    def _start(self) -> None:
        self.before = self.best = self._held_loss(self.averages)
        if (rate := self.recipe.lr) is None:
            plain = all(labels is None for _, _, labels, _ in self.targets())  # nothing to be left out of the loss
            rate = optimizer.largest_step(self.before if plain else self._held_loss(self.averages, labelled=False))
        self.rate = rate
        state = checkpoint.read(self.recipe.resume, self.key, self.recipe.device) if self.recipe.resume else None
        if state is not None:
            self._restore(state)
        elif self.recipe.resume:
            self._save()  # what keeps it from being written is told before the work

    def _epoch(self) -> str:
        """One epoch; gives the reason where there is nothing to go on with."""
        samples = self.load(self.epoch)
        generator = np.random.default_rng((self.recipe.seed, self.epoch))
        batches = list(_orders(len(samples), self.least, self.recipe.batch_size, generator))
        self.steps_an_epoch = len(batches)
        for places in batches:
            loss = self._step(samples, places, generator)
            if not math.isfinite(loss):
                return "the loss was no number any more; a smaller rate may help"
            if self._done() >= 1:
                break
        self.epoch += 1
        self._judge()
        try:
            self._save()
        except FileError as error:
            self.unsaved = str(error)  # a full disk takes the state, and not the training
        return ""

    def _step(self, samples: TrainingSamples, places: Sequence[int], generator: np.random.Generator) -> float:
        share = optimizer.rate(self.step, self._steps(), self._done())
        self.optimizer.zero_grad()
        batches, total = samples.batches(places), 0.0
        for feed, labels in batches:
            feed, mixing = self.change(feed, generator)
            loss = self._loss(feed, labels, mixing) / len(batches)
            loss.backward()
            total += loss.item()
        if math.isfinite(total):
            self.optimizer.step(self.rate * share)
            self.step += 1
            optimizer.average(self.averages, self.parameters, self.step, self._steps())
            self.losses.append(total)
            self._tell()
        return total

    def _loss(self, feed: Any, labels: np.ndarray | None, mixing: Mixing | None) -> Tensor:
        device = self.recipe.device
        wanted = self.teacher(feed)
        with products(self.mixed):
            given = self.student(tensors(feed, device), [*self.inner, *(p.name for p in self.objective.places)])
        whole = {name: value.to(wanted[name].dtype) for name, value in given.items() if name in wanted}
        return self.objective(whole, wanted, _labels(labels, device), _mixed(mixing, device))

    # --- how far -------------------------------------------------------------

    def _steps(self) -> int:
        return self.recipe.epochs * self.steps_an_epoch

    def _seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.begun

    def _done(self) -> float:
        """Share of the training that is done, by steps or by time, whichever is further."""
        share = self.step / self._steps() if self.step else 0.0
        limit = self.recipe.minutes
        return share if limit is None else max(share, self._seconds() / (60 * limit))

    def _tell(self) -> None:
        recent = self.losses[-RECENT:]
        held = f"held-out {self.best:.4g}, before {self.before:.4g}"
        what = f"epoch {self.epoch + 1}/{self.recipe.epochs}: loss {sum(recent) / len(recent):.4g}, {held}"
        self.progress(what, round(1000 * self._done()), 1000)

    # --- states --------------------------------------------------------------

    def _judge(self) -> None:
        """Keep the averages where they are the best so far on the held-out samples."""
        loss = self._held_loss(self.averages)
        if loss < self.best:
            self.best, self.best_epoch = loss, self.epoch
            self.chosen = [a.clone() for a in self.averages]

    def _held_loss(self, values: Sequence[Tensor], labelled: bool = True) -> float:
        current = [p.detach().clone() for p in self.parameters]
        total, number = 0.0, 0
        self._put(values)
        with torch.no_grad():
            for feed, wanted, labels, mixed in self.targets():
                given = self.student(tensors(feed, self.recipe.device), self.inner)
                total += float(self.objective.judged(given, wanted, labels if labelled else None, mixed))
                number += 1
        self._put(current)
        return total / max(number, 1)

    def targets(self) -> Sequence[Target]:
        """What is judged: the held-out samples, some at a time, and changed copies of them.

        The original may have been trained on these very samples, and answer so surely that nothing is to be told from
        them; of the copies it is less sure.  It is asked once.
        """
        if not self._targets:
            names, device = [t.output for t in self.objective.outputs], self.recipe.device
            for feed, labels, mixing in changed_batches(self.held, self.change, self.recipe.seed):
                wanted = self.exact(feed)
                mixed = _mixed(mixing, device)
                self._targets.append((feed, {n: wanted[n] for n in names}, _labels(labels, device), mixed))
        return self._targets

    def _save(self) -> None:
        if not self.recipe.resume:
            return
        state = {
            "epoch": self.epoch, "step": self.step, "seconds": self._seconds(), "best": self.best,
            "best_epoch": self.best_epoch, "parameters": [p.detach() for p in self.parameters],
            "averages": self.averages, "chosen": self.chosen, "optimizer": self.optimizer.state(),
        }  # fmt: skip
        checkpoint.write(self.recipe.resume, self.key, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.averages, self.chosen = state["averages"], state["chosen"]
        self.steps_an_epoch = self.step // max(self.epoch, 1)
        self.optimizer.restore(state["optimizer"])
        self._put(state["parameters"])

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        """Give the student these weights."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def held_batches(
    held: TrainingSamples, most: int | None = None, size: int = AT_ONCE
) -> Iterator[tuple[Feed, np.ndarray | None]]:
    """The held-out samples, or the first of them, some at a time."""
    end = min(len(held), most or len(held))
    for start in range(0, end, size):
        yield from held.batches(range(start, min(start + size, end)))


def changed_batches(
    held: TrainingSamples, change: Change, seed: int
) -> Iterator[tuple[Feed, np.ndarray | None, Mixing | None]]:
    """The held-out samples as they are, and, where samples are changed, `COPIES` changed ones or one of each."""
    for feed, labels in held_batches(held):
        yield feed, labels, None
    generator = np.random.default_rng(seed)
    for _ in range(-(-COPIES // len(held)) if change.inputs else 0):
        for feed, labels in held_batches(held):
            yield (altered := change(feed, generator))[0], labels, altered[1]


def _mixed(mixing: Mixing | None, device: str) -> Mixed | None:
    return None if mixing is None else Mixed(torch.from_numpy(mixing[0]).to(device), mixing[1])


def _orders(count: int, least: int, size: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Places of the samples of each step of an epoch, in another order every time they are gone through."""
    wanted = max(least, count)
    rounds = -(-wanted // count)
    order = np.concatenate([generator.permutation(count) for _ in range(rounds)])[:wanted]
    for start in range(0, max(1, wanted // size) * size, size):
        yield [int(k) for k in order[start : start + size]]


def _labels(labels: np.ndarray | None, device: str) -> Tensor | None:
    return None if labels is None else torch.from_numpy(labels.astype(np.int64)).to(device)
