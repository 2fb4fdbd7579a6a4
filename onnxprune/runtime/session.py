"""Sessions: a model that is ready to run in onnxruntime, with the providers that really load."""

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from onnx import helper

from onnxprune.errors import ModelError, OnnxPruneError, UsageError
from onnxprune.model.elements import is_packed
from onnxprune.runtime.engine import engine, quiet, reason, usable_cpus
from onnxprune.runtime.isolate import Child, Limits, current
from onnxprune.runtime.providers import CPU, choose, configured, short
from onnxprune.runtime.source import Prepared, Source, Variant, prepare
from onnxprune.runtime.specs import Feed, Spec, from_argument, nbytes
from onnxprune.runtime.stoppable import stoppable

# Element types that numpy lacks go through OrtValues instead of `run`.
_NATIVE = frozenset("?bhilqBHILQefd")

NO_ROOM = "there is not enough memory; close other programs or use smaller --input-shapes"
OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate")

# What to do about the reasons that onnxruntime gives; the first phrase that occurs counts.
ADVICE = (
    ("is not a registered function/op", "it uses an operator that onnxruntime lacks; --no-verify prunes without it"),
    ("Missing opset", "it names no opset, as files older than ONNX 1.0 do; export it again"),
    ("opset", "convert it to an opset that this onnxruntime knows, or upgrade onnxruntime (--no-verify does without)"),
    ("IR version", "upgrade onnxruntime, or lower the IR version of the file (--no-verify does without)"),
    ("xternal data", "put the data file beside the model"),
    ("protobuf parsing failed", "the file is no ONNX model, or was cut off; get it again"),
    ("No graph was found", "the file is empty; get it again"),
    ("NOT_IMPLEMENTED", "onnxruntime has no kernel for this element type here; --no-verify prunes without it"),
    ("Could not find an impl", "onnxruntime has no kernel for this element type here; --no-verify prunes without it"),
    *((phrase, NO_ROOM) for phrase in OUT_OF_MEMORY),
)
DEFAULT_ADVICE = "is it valid? python -m onnx.checker shows more"


class Settings(NamedTuple):
    """How a session runs: whether the graph is optimized, threads wait busily, and memory is kept between runs."""

    optimize: bool
    spin: bool
    arena: bool


@dataclass(frozen=True)
class Session:
    """A model ready to run.

    `inputs` and `outputs` are what it takes and gives, `taps` the outputs that were added to those of the
    model, `fixed_inputs` those that are the same in every run, `provider` the one that leads, `threads` the number of
    CPU threads inside an operator.
    """

    native: Any = field(repr=False)
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    provider: str
    threads: int
    optimized: bool
    taps: tuple[str, ...] = ()
    fixed_inputs: Feed = field(default_factory=dict, repr=False)
    _holds: Any = field(default=None, repr=False, compare=False)

    def run(self, feed: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> Feed:
        """Outputs by name (all, or those in `names`) for one feed of arrays by input name.

        Of a sequence or a map the elements are outputs of their own: `name[0]`, `name.keys`, `name.values`.
        Raises `ModelError` with onnxruntime's reason when it cannot run the model on these shapes.
        """
        names = [o.name for o in self.outputs] if names is None else list(names)
        given = {**feed, **self.fixed_inputs}
        if isinstance(self.native, Child):
            return self.native.run(given, names)
        odd = any(s.dtype.char not in _NATIVE for s in (*self.inputs, *self.outputs) if s.element not in (0, 8))
        call = partial(_run_bound, self, given, names) if odd else partial(self.native.run, names, given)
        try:
            values = call(None) if self.optimized else stoppable(call)  # a thread of its own is not to be timed
        except OnnxPruneError:
            raise
        except Exception as error:  # onnxruntime's exception classes have no base of their own
            raise _not_run(error, feed) from error
        return {part: array for name, value in zip(names, values, strict=True) for part, array in _parts(name, value)}

    def with_fixed_inputs(self, fixed: Feed) -> "Session":
        """The same session, which takes some inputs from here, and no longer from those who run it."""
        return replace(self, inputs=tuple(i for i in self.inputs if i.name not in fixed), fixed_inputs=fixed)


def _parts(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """An output as arrays: itself, the elements of a sequence, or the keys and values of a map."""
    if isinstance(value, Mapping):
        yield f"{name}.keys", np.array(list(value), object if any(isinstance(k, str) for k in value) else None)
        yield f"{name}.values", np.array(list(value.values()))
    elif isinstance(value, list):
        for k, element in enumerate(value):
            yield from _parts(f"{name}[{k}]", element)
    elif value is not None:
        yield name, value


def _not_run(error: BaseException, feed: Mapping[str, np.ndarray]) -> ModelError:
    """onnxruntime's reason why it cannot run a model on a feed, and what to do if memory is what it lacks."""
    shapes = ", ".join(f"'{n}' {list(np.shape(v))}" for n, v in feed.items())
    advice = f": {NO_ROOM}" if any(phrase in str(error) for phrase in OUT_OF_MEMORY) else ""
    return ModelError(f"onnxruntime cannot run the model on {shapes or 'no inputs'}: {reason(error)}{advice}")


def make_session(
    model: Source | Variant,
    *,
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
    optimize: bool = False,
    spin: bool = False,
    arena: bool = True,
    taps: Iterable[str] = (),
) -> Session:
    """Load a model into onnxruntime, quietly.

    `providers`: see `choose`; the session falls back to the next one, and to the CPU in the end. `threads`:
    as many as this process may use when None. `optimize` turns on onnxruntime's graph optimizations and its
    repacking of weights, for speed; without them arithmetic follows the graph as written, which is what a
    comparison needs, and weights in external data are mapped instead of copied. `spin`: threads wait busily between
    operators, as in sessions with default settings; what is timed needs it, all else would only take processor time
    from others. `arena`: onnxruntime keeps memory that grows by doubling between the runs of an optimized session, in
    which the outputs lie, too; without it each output is freed by itself. `taps`: names of inner values that become
    outputs as well.

    Inside `isolated`, the session is in a process of its own.

    Raises `ModelError`, `UsageError` (providers, taps), `FileError`, and `CheckFailed` where that process fails.
    """
    variant = Variant.of(model)
    taps, chosen = tuple(taps), choose(providers)
    threads = threads or usable_cpus()
    prepared = prepare(variant, taps)
    limits, settings = current(), Settings(optimize, spin, arena)
    started = _load_apart(prepared, chosen, threads, settings, taps, limits) if limits else None
    session = started or load(prepared, chosen, threads, settings, taps)
    holds = prepared.holds
    if holds and os.name == "posix":
        holds.cleanup()  # mapped files live on without a name, and a killed process leaves none behind
        holds = None
    return replace(session, _holds=holds)


def load(prepared: Prepared, chosen: Sequence[str], threads: int, settings: Settings, taps: tuple[str, ...]) -> Session:
    """The session of a prepared model in this process.  Raises ModelError."""
    native = _first_that_loads(prepared, chosen, threads, settings)
    return Session(
        native=native,
        inputs=tuple(from_argument(a) for a in native.get_inputs()),
        outputs=tuple(from_argument(a) for a in native.get_outputs()),
        provider=short(native.get_providers()[0]),
        threads=threads,
        optimized=settings.optimize,
        taps=taps,
    )


def _load_apart(
    prepared: Prepared, chosen: Sequence[str], threads: int, settings: Settings, taps: tuple[str, ...], limits: Limits
) -> Session:
    """The session of a prepared model in a process of its own.  Raises ModelError and CheckFailed."""
    child = Child(limits)
    inline = prepared.model if isinstance(prepared.model, bytes) else None
    request = {
        "model": None if inline is not None else os.path.abspath(prepared.model),
        "folder": prepared.folder,
        "providers": list(chosen),
        "threads": threads,
        "settings": settings,
        "taps": taps,
    }
    return Session(child, *child.load(request, dict(prepared.values), inline), threads, settings.optimize, taps)


def _first_that_loads(prepared: Prepared, chosen: Sequence[str], threads: int, settings: Settings) -> Any:
    """The native session with the first provider that takes the model; the CPU's reason when none does."""
    for provider in chosen:
        pair = [provider] if provider == CPU else [provider, CPU]
        try:
            # The CPU speaks through the session's own log alone; and progress bars go to standard error.
            with quiet() if provider != CPU else contextlib.nullcontext():
                options = _options(prepared, threads, settings)
                return engine().InferenceSession(prepared.model, options, providers=configured(pair), enable_fallback=0)
        except Exception as error:  # onnxruntime's exception classes have no base of their own
            if provider == chosen[-1]:
                raise refused(error) from error
    raise UsageError("no execution provider to try")


def _options(prepared: Prepared, threads: int, settings: Settings) -> Any:
    ort = engine()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters arrives as an exception
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if prepared.folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", prepared.folder)
    if prepared.values:
        arrays = prepared.values.values()
        options.add_external_initializers(list(prepared.values), [_ortvalue(a) for a in arrays])
    # Threads that wait busily after a run would slow down the session that is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spin)))
    options.enable_cpu_mem_arena = settings.optimize and settings.arena  # it grows by doubling, which limits trip over
    if not settings.optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of every weight
    return options


def refused(error: BaseException | str) -> ModelError:
    """onnxruntime's refusal of a model in one line: its reason, shortened, and what to do."""
    text = str(error)
    advice = next((todo for phrase, todo in ADVICE if phrase in text), DEFAULT_ADVICE)
    return ModelError(f"onnxruntime cannot load the model ({reason(error)}): {advice}")


def _ortvalue(array: np.ndarray) -> Any:
    make = engine().OrtValue
    if array.dtype.char in _NATIVE:
        return make.ortvalue_from_numpy(array)
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    if is_packed(array.dtype):
        raise ModelError(f"arrays of {array.dtype} cannot be handed to onnxruntime")
    carrier = array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint8)
    return make.ortvalue_from_numpy_with_onnx_type(carrier, element)


def _run_bound(
    session: Session, feed: Mapping[str, np.ndarray], names: Sequence[str], options: Any
) -> list[np.ndarray]:
    """One run with inputs and outputs bound as OrtValues: the way in and out for bfloat16 and float8."""
    binding = session.native.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, _ortvalue(np.asarray(array)))
    for name in names:
        binding.bind_output(name, "cpu")
    session.native.run_with_iobinding(binding, options)
    dtypes = {s.name: s.dtype for s in session.outputs}
    return [_array(v, dtypes[n]) for n, v in zip(names, binding.get_outputs(), strict=True)]


def _array(value: Any, dtype: np.dtype) -> np.ndarray:
    """A copy of an OrtValue in CPU memory as numpy, for the element types that its own `numpy()` refuses."""
    if dtype.char in _NATIVE:
        return value.numpy()
    if is_packed(dtype):
        raise ModelError(f"outputs of {dtype} cannot be read from onnxruntime")
    shape = tuple(value.shape())
    data = ctypes.string_at(value.data_ptr(), nbytes(shape, dtype))
    return np.frombuffer(data, dtype).reshape(shape)
