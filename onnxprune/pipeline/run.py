"""A run under way: what the stages share, from loading and analysing on."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxprune.channels.analysis import analyse
from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import ModelError
from onnxprune.model import Model, load
from onnxprune.model.functions import inlined
from onnxprune.model.sequences import without_sequences
from onnxprune.pipeline.fold import folded
from onnxprune.pipeline.limits import require_analysed
from onnxprune.pipeline.progress import Progress, begin
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.table import Reading
from onnxprune.pipeline.unrunnable import recorded, runnable
from onnxprune.report.summary import DriftRow, MetricRow, Samples, Span
from onnxprune.runtime.accuracy import Metric
from onnxprune.runtime.data import Dataset, open_data
from onnxprune.runtime.inputs import KINDS, NORMAL, parse_input_shapes, random_inputs
from onnxprune.runtime.observe import missing_shapes, observe
from onnxprune.runtime.proof import Proof
from onnxprune.runtime.prove import prove
from onnxprune.runtime.providers import choose
from onnxprune.runtime.resolve import resolve_shapes
from onnxprune.runtime.specs import Feed, Spec, model_inputs
from onnxprune.runtime.stimuli import Stimuli
from onnxprune.surgery.align import Alignment, aligned, alignment_of
from onnxprune.surgery.rotation.turn import Rotation

if TYPE_CHECKING:
    from onnxprune.pipeline.rotate import Rotatable

if TYPE_CHECKING:
    from onnxprune.training.distillation import Trained

DATA_FEEDS = 2  # batches of the user's data that the proof runs on
FLAT = "local functions were written out: each call is cut on its own"
PLAIN = "sequences of tensors were written out: Split and Concat in place of what makes and takes them"
FOLDED = "weights that the graph computes from weights alone were computed beforehand"
MOST_UNKNOWN = 8  # operators behind each other whose output shapes are told by the weights of the next layer


@dataclass(frozen=True)
class Measurements:
    """What running both models has shown; nothing where it was not asked for or did not work."""

    latency: tuple[float | None, float | None] = (None, None)  # seconds per run, before and after
    latency_note: str = ""
    drift: tuple[DriftRow, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    problem: str = ""  # why time and drift could not be measured
    spans: tuple[Span | None, Span | None] = (None, None)  # seconds between which the middle half of the runs lie
    gain: Span | None = None  # times faster: the interval of 95 %; None where it cannot be told


@dataclass
class Run:
    """A run under way: what the stages share, and how long each takes."""

    model: Model
    request: Request
    progress: Progress
    shapes: Mapping[str, tuple[int, ...]]
    deps: Dependencies
    data: Dataset | None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    proof: Proof | None = None
    measured: Measurements = field(default_factory=Measurements)
    base: onnx.ModelProto | None = None  # what is cut and masked instead of the model, once weights have changed
    full: Dependencies | None = None  # the analysis of `base`, where that has tensors that the model has not
    own: onnx.ModelProto | None = None  # the user's, where `model` has its channels in another order
    alignment: Alignment = field(default_factory=Alignment)
    rotation: Rotation = field(default_factory=Rotation)  # in which bases `model` has its linear widths
    upright: "Rotatable | None" = None  # the network before it was rotated
    search: Dataset | None = None  # what a search for the largest drop decides on
    test: Dataset | None = None  # what the figures of the report come from
    samples: Samples | None = None  # how many samples had which part
    judges: Sequence[Feed] = ()  # drawn samples that the repair has not seen, where it has drawn some
    train: Dataset | None = None  # what the user gave to train on
    trainings: list["Trained"] = field(default_factory=list)  # of the pruned network, in their order
    metrics: tuple[Metric, ...] = ()  # the figures, the first of which a search goes by
    assumed: tuple[str, ...] = ()  # inputs whose open sizes the user did not give
    timed: bool = True  # whether latency is measured where that is asked for: not beside other work

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and tell of it."""
        begin(self.progress, name)
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def training_data(self) -> Dataset | None:
        """Samples to train on; None where they are to be drawn."""
        return self.data if self.train is None else self.train

    def stimuli(self) -> Stimuli:
        """What the proof runs on: made input of several kinds and sizes, and the first batches of the user's data."""
        batches = () if self.data is None else zip(self.data, range(DATA_FEEDS), strict=False)
        data = tuple(batch.feeds for batch, _ in batches)
        return Stimuli(model_inputs(self.model.proto), self.shapes, self.request.seed, data)

    def made(self) -> list[Feed]:
        """One feed of made input, of the kind that reaches furthest where the proof has shown that."""
        kind = next((k for k in (self.proof.inputs if self.proof else ()) if k in KINDS), NORMAL)
        return random_inputs(model_inputs(self.model.proto), self.shapes, seed=self.request.seed, kind=kind)


def start(source: Any, request: Request, progress: Progress, alignment: Alignment | None = None) -> Run:
    """Load and analyse, and bring faded filters of grouped convolutions together, or what an earlier run brought so."""
    begun = time.perf_counter()
    begin(progress, "load")
    model = load(source)
    own, flat = model.proto, inlined(model.proto)
    plain = without_sequences(flat)
    model = replace(model, proto=folded(plain) or plain)
    loaded = time.perf_counter()
    specs = model_inputs(model.proto)
    hints = parse_input_shapes(request.input_shapes, specs)
    if request.providers != "auto":
        choose(request.providers)  # names that there are not, and what does not load, are said before the work
    begin(progress, "analyse")
    request, shapes, problems = _sizes(request, model, hints)
    request, problems = (found := runnable(request, model))[0], [*problems, *found[1]]
    resolved = time.perf_counter()
    deps = analysis_of(model, request, shapes)
    require_analysed(request, model, deps)
    analysed = time.perf_counter()
    data = _open_data(request, model, request.data)
    test, train = (_open_data(request, model, source) for source in (request.test_data, request.train_data))
    seconds = {"load": loaded - begun, "find input shapes": resolved - loaded, "analyse": analysed - resolved}
    told = [
        f"{name}: {n}"
        for name, d in (("data", data), ("test data", test), ("train data", train))
        for n in (d.notes if d else ())
    ]
    notes = [*_assumed(specs, hints, deps), *told]
    run = Run(
        model, request, progress, shapes, deps, data, seconds, [*model.warnings, *problems], notes,
        test=test, train=train,
    )  # fmt: skip
    run.assumed = tuple(s.name for s in specs if s.name not in hints and not s.closed)
    if model.proto is not own:
        run.own = own
        run.notes += [FLAT] * (flat is not own) + [PLAIN] * (plain is not flat) + [FOLDED] * (model.proto is not plain)
        if request.verify:
            prove(own, model.proto, run.stimuli()).require()
    _align(run, alignment_of(model.proto, deps) if alignment is None else alignment)
    return run


def _align(run: Run, alignment: Alignment) -> None:
    """Go on with the model in another order of its channels, if it gives what the user's own gives."""
    if not alignment:
        return
    own, other = run.own or run.model.proto, aligned(run.model.proto, alignment)
    if run.request.verify and not prove(own, other, run.stimuli()).passed:
        run.warnings.append("channels of grouped convolutions could not be reordered, so that fewer can go")
        return
    run.own, run.model, run.alignment = own, replace(run.model, proto=other), alignment


def analysis_of(
    model: Model, request: Request, shapes: Mapping[str, tuple[int, ...]], changed: onnx.ModelProto | None = None
) -> Dependencies:
    """Analyse; where nodes were given up for shapes that cannot be inferred, once more with those that a run shows."""
    heads, thaw = request.heads != "dims", request.thaw
    proto = model.proto if changed is None else changed
    deps = analyse(proto, input_shapes=shapes, heads=heads, thaw=thaw)
    missing = missing_shapes(proto, deps.statics.shapes)
    if not (deps.unknown and missing):
        return deps
    if request.verify or request.measure:
        feed = random_inputs(model_inputs(proto), shapes, seed=request.seed)[0]
        deps = analyse(proto, input_shapes=shapes, observed=observe(proto, missing, feed), heads=heads, thaw=thaw)
    return deps if request.verify else _analysed_without_runs(proto, deps, shapes, heads, thaw)


def _analysed_without_runs(
    proto: onnx.ModelProto, deps: Dependencies, shapes: Mapping[str, tuple[int, ...]], heads: bool, thaw: bool
) -> Dependencies:
    """Analyse with the shapes that weights and the file tell, one unknown operator behind the other."""
    told: dict[str, np.ndarray] = {}
    for _ in range(MOST_UNKNOWN):
        missing = missing_shapes(proto, deps.statics.shapes)
        if not (new := recorded(proto, missing, deps.statics.shapes)):
            break
        told |= new
        deps = analyse(proto, input_shapes=shapes, observed=told, heads=heads, thaw=thaw)
    return deps


def _sizes(
    request: Request, model: Model, hints: Mapping[str, tuple[int, ...]]
) -> tuple[Request, Mapping[str, tuple[int, ...]], list[str]]:
    """Input sizes to run the model with; where it need not be verified and cannot be run, it is not measured either."""
    if not (request.verify or request.measure):
        return request, hints, []
    try:
        for spec in model_inputs(model.proto):
            _ = spec.dtype  # a ModelError for what is no tensor, and so cannot be drawn
        return request, resolve_shapes(model.proto, hints), []
    except ModelError as error:
        if request.verify:
            raise
        return request.changed(measure=False), hints, [f"latency and drift were not measured: {error}"]


def _assumed(specs: Sequence[Spec], hints: Mapping[str, tuple[int, ...]], deps: Dependencies) -> list[str]:
    """What was taken for the sizes that the model leaves open, and that the user did not give."""
    open_sizes = [s for s in specs if s.name not in hints and not s.closed]
    taken = [(s, deps.statics.shapes.get(s.name)) for s in open_sizes]
    return [
        f"input {spec} was taken as {spec.name}:{'x'.join(map(str, shape)) or '[]'}; --input-shapes sets other sizes"
        for spec, shape in taken
        if shape is not None
    ]


def _open_data(request: Request, model: Model, source: Any) -> Dataset | None:
    if source is None:
        return None
    return open_data(source, model_inputs(model.proto), **request.part(Reading))
