"""What the stages of a run start from, and what they hand on: values that do not change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import CheckFailed, ModelError, spelled
from onnxprune.model import Model, load
from onnxprune.model.network import Network
from onnxprune.model.static import runs_out
from onnxprune.pipeline.fold import plain_form
from onnxprune.pipeline.limits import require_analysed
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.split import Split
from onnxprune.pipeline.study import Study
from onnxprune.pipeline.table import ReadingOptions
from onnxprune.pipeline.unrunnable import runnable
from onnxprune.progress import Progress, begin, silent
from onnxprune.runtime.accuracy import Metric
from onnxprune.runtime.data import Dataset, open_data
from onnxprune.runtime.inputs import KINDS, NORMAL, parse_input_shapes, random_inputs
from onnxprune.runtime.proof import Proof
from onnxprune.runtime.prove import prove
from onnxprune.runtime.providers import choose
from onnxprune.runtime.resolve import resolve_shapes
from onnxprune.runtime.specs import Feed, Spec, model_inputs
from onnxprune.runtime.stimuli import Stimuli
from onnxprune.surgery.align import Alignment, aligned, alignment_of
from onnxprune.surgery.rotation.turn import Rotation

Messages = tuple[tuple[str, ...], tuple[str, ...]]  # notes, warnings


@dataclass
class Log:
    """The only part of a run that changes: stages add to it, and none decides by what another one has said.

    seconds: wall time by stage; of one that comes again, the sum.
    interrupted: whether the user has ended the training, after which there is none.
    inner: seconds of the stages inside each of those that are open.
    """

    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    inner: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and tell of it; what stages inside it take is theirs."""
        begin(self.progress, name)
        begun = time.perf_counter()
        self.inner.append(0.0)
        try:
            yield
        finally:
            spent, inside = time.perf_counter() - begun, self.inner.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - inside
            if self.inner:
                self.inner[-1] += spent

    @property
    def messages(self) -> Messages:
        """The notes and warnings that there are."""
        return tuple(self.notes), tuple(self.warnings)

    def forget(self, messages: Messages) -> None:
        """Take back what was said since there were these, at whatever place among them."""
        self.notes[:], self.warnings[:] = messages

    def add(self, other: Log) -> None:
        """What another log tells that is new."""
        self.interrupted |= other.interrupted
        self.notes += [line for line in other.notes if line not in self.notes]
        self.warnings += [line for line in other.warnings if line not in self.warnings]


DATA_FEEDS = 2  # batches of the user's data that the proof runs on


@dataclass(frozen=True)
class Run:
    """What was asked and what was read.

    file: the user's network.
    original: what is cut: the same network, written out where that was needed, with its channels in the order, and its
        linear widths in the bases, in which it is cut.
    split: the user's samples by what they are for; before they are divided, those of `data` and, as those that
        figures come from, of `test_data`.
    train: samples that the user gave to train on.
    teacher: the network that nothing is cut of, where that is not `original`: in all cuts of several but the first.
        Training learns from it, and shares of channels are of those that it has.
    metrics: the figures of merit, the first of which a search goes by.
    alignment, rotation: how the channels of `original` differ from those of `file`.
    unrotated: `original` before it was rotated, where it was.
    assumed: inputs whose open sizes the user did not give.
    timed: whether latency is measured where that is asked for: not beside other work.
    messages: notes and warnings that hold whatever is cut.
    """

    request: Request
    file: Model
    original: Study
    log: Log
    split: Split = field(default_factory=Split)
    train: Dataset | None = None
    teacher: Study | None = None
    metrics: tuple[Metric, ...] = ()
    alignment: Alignment = field(default_factory=Alignment)
    rotation: Rotation = field(default_factory=Rotation)
    unrotated: Study | None = None
    assumed: tuple[str, ...] = ()
    timed: bool = True
    messages: Messages = ((), ())

    @property
    def before(self) -> Dependencies:
        """The analysis that tells what the network costs as it came; a rotation may need more tensors."""
        return (self.unrotated or self.original).deps

    @property
    def training_data(self) -> Dataset | None:
        """Samples to train on; None where they are to be drawn."""
        return self.split.fit if self.train is None else self.train

    def stimuli(self) -> Stimuli:
        """What the proof runs on: made input of several kinds and sizes, and the first batches of the user's data."""
        batches = () if self.split.fit is None else zip(self.split.fit, range(DATA_FEEDS), strict=False)
        data = tuple(batch.feeds for batch, _ in batches)
        statics = self.original.deps.statics
        return Stimuli(
            model_inputs(self.original.graph),
            self.original.shapes,
            self.request.seed,
            data,
            partial(runs_out, statics),
        )

    def made(self, proof: Proof | None = None) -> list[Feed]:
        """One feed of made input, of the kind that reaches furthest where a proof has shown that."""
        kind = next((k for k in (proof.inputs if proof else ()) if k in KINDS), NORMAL)
        return random_inputs(model_inputs(self.original.graph), self.original.shapes, seed=self.request.seed, kind=kind)


def start(source: Any, request: Request, progress: Progress, alignment: Alignment | None = None) -> Run:
    """Load and analyse, and bring faded filters of grouped convolutions together, or what an earlier run brought so."""
    begun = time.perf_counter()
    begin(progress, "load")
    file = replace(load(source))  # of its own, since its weights may be left behind
    network, written_out = plain_form(given := file.network)
    loaded = time.perf_counter()
    specs = model_inputs(network.graph)
    hints = parse_input_shapes(request.input_shapes, specs)
    if request.providers != "auto":
        choose(request.providers)  # names that there are not, and what does not load, are said before the work
    begin(progress, "analyse")
    request, shapes, problems = _sizes(request, network, hints)
    request, more = runnable(request, network, file.size)
    resolved = time.perf_counter()
    original = Study.of(network, shapes, request)
    require_analysed(request, file.size, original.deps)
    analysed = time.perf_counter()
    sources = {"data": request.data, "test data": request.test_data, "train data": request.train_data}
    opened = {name: open_data(s, specs, **request.part(ReadingOptions)) for name, s in sources.items() if s is not None}
    data, test, train = map(opened.get, sources)
    seconds = {"load": loaded - begun, "find input shapes": resolved - loaded, "analyse": analysed - resolved}
    notes = [*_assumed(specs, hints, original), *(f"{name}: {n}" for name, d in opened.items() for n in d.notes)]
    log = Log(progress, seconds, [*file.warnings, *problems, *more], [*notes, *written_out])
    run = Run(
        request, file, original, log, Split(data, test=test), train,
        assumed=tuple(s.name for s in specs if s.name not in hints and not s.closed),
    )  # fmt: skip
    if network is not given and request.verify:
        prove(given, network, run.stimuli()).require("written out in plain operators, the network is not what it was")
    return _aligned(run, alignment_of(network, original.deps) if alignment is None else alignment)


def _aligned(run: Run, alignment: Alignment) -> Run:
    """The run with the channels of its network in another order, if that gives what the user's own gives."""
    if not alignment:
        return run
    other = aligned(run.original.network, alignment)
    if run.request.verify and not prove(run.file.network, other, run.stimuli()).passed:
        run.log.warnings.append("channels of grouped convolutions could not be reordered, so that fewer can go")
        return run
    return replace(run, original=run.original.with_network(other), alignment=alignment)


def _sizes(
    request: Request, network: Network, hints: Mapping[str, tuple[int, ...]]
) -> tuple[Request, Mapping[str, tuple[int, ...]], list[str]]:
    """Input sizes to run the model with; where it need not be verified and cannot be run, it is not measured either.

    Raises CheckFailed where a gate asks for that.
    """
    if not (request.verify or request.measure):
        return request, hints, []
    try:
        for spec in model_inputs(network.graph):
            _ = spec.dtype  # a ModelError for what is no tensor, and so cannot be drawn
        return request, resolve_shapes(network, hints), []
    except ModelError as error:
        if request.verify:
            raise
        if request.min_snr is not None:
            raise CheckFailed(f"{spelled('min_snr')} cannot be checked: {error}") from None
        return replace(request, measure=False), hints, [f"latency and drift were not measured: {error}"]


def _assumed(specs: Sequence[Spec], hints: Mapping[str, tuple[int, ...]], original: Study) -> list[str]:
    """What was taken for the sizes that the model leaves open, and that the user did not give."""
    open_sizes = [s for s in specs if s.name not in hints and not s.closed]
    taken = [(s, original.deps.statics.shapes.get(s.name)) for s in open_sizes]
    return [
        f"input {spec} was taken as {spec.name}:{'x'.join(map(str, shape)) or '[]'}; --input-shapes sets other sizes"
        for spec, shape in taken
        if shape is not None
    ]
