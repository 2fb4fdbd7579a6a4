"""Feeds for a model: shapes for what it leaves open, found by running it, and seeded random arrays."""

import itertools
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnxprune.errors import ModelError, UsageError
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import Source, Variant
from onnxprune.runtime.specs import Feed, Shape, Spec, anonymous, describe, fits, model_inputs

# Sizes that networks are built for, most common first; image sizes that are multiples of 32 suit most of them.
SIZES = (224, 320, 256, 512, 640, 32, 64, 16, 128, 96, 28, 48, 299, 160, 416, 16000, 1024, 8, 4, 2, 1)

# What a free size of that name most likely is; tried before the general sizes.
NAMED = (
    (("batch", "n", "bs"), 1),
    (("channel", "channels", "c"), 3),
    (("sample", "samples", "audio", "waveform", "signal"), 16000),
    (("seq", "sequence", "token", "tokens", "sequence_length", "seq_len", "length"), 32),
)
BATCHES = (2, 4, 8, 16, 32, 64, 128)
RATES = {"sr", "sample_rate", "samplerate", "sampling_rate"}
SAMPLE_RATE = 16000

# Time that the search for shapes may take before it asks for --input-shapes.
PATIENCE = 30.0
LARGEST = 1 << 23  # elements of one input: more than a 1,600 × 1,600 colour image is no guess any more
MOST = 1 << 31  # elements of one input whose sizes are given
MAX_RANK = 64  # numpy's limit

_DIMS = re.compile(r"[\[(]?\s*(\d+(\s*[x×X*,\s]\s*\d+)*)?\s*,?\s*[\])]?")


def parse_input_shapes(texts: Iterable[str], specs: Sequence[Spec]) -> dict[str, Shape]:
    """`NAME:1x3x224x224` → `{"NAME": (1, 3, 224, 224)}`.

    Sizes stand apart by `x`, `×`, `*`, `,` or blanks, with or without brackets; `NAME:[]` is a scalar. The
    name may hold colons, and may be left out where the model has a single input. Raises `UsageError` for a
    name that is no input, for what does not read as sizes, and for sizes at odds with those that the model fixes.
    """
    shapes: dict[str, Shape] = {}
    for text in texts:
        spec, dims = _split(text.strip(), specs)
        found = _DIMS.fullmatch(dims.strip())
        if not found:
            raise UsageError(f"cannot read the sizes in '{text}'; write them as in {example(specs)}")
        shape = tuple(int(n) for n in re.findall(r"\d+", dims))
        if spec.shape and not fits(shape, spec):
            raise UsageError(f"{describe(shape)} does not fit input '{spec.name}', which is {describe(spec.shape)}")
        shapes[spec.name] = shape
    return shapes


def _split(text: str, specs: Sequence[Spec]) -> tuple[Spec, str]:
    """The input that a shape text names, and the rest; the longest name that fits wins."""
    for spec in sorted(specs, key=lambda s: -len(s.name)):
        for mark in ":=":
            if text.startswith(spec.name + mark):
                return spec, text[len(spec.name) + 1 :]
    if len(specs) == 1 and _DIMS.fullmatch(text) and text:
        return specs[0], text
    raise UsageError(f"'{text}' names no input of the model; it has {listing(specs)}; write {example(specs)}")


def listing(specs: Sequence[Spec]) -> str:
    """All inputs in one line."""
    return ", ".join(map(str, specs)) or "no inputs"


def example(specs: Sequence[Spec]) -> str:
    """An `--input-shapes` that fits the model's first open input, to show in errors."""
    spec = next((s for s in specs if s.shape is None or not s.closed), specs[0] if specs else None)
    if spec is None or spec.shape is None:
        return f"--input-shapes {spec.name if spec else 'NAME'}:1x3x224x224"
    dims = [d if isinstance(d, int) else 224 if i else 1 for i, d in enumerate(spec.shape)]
    return f"--input-shapes {spec.name}:{'x'.join(map(str, dims)) or '[]'}"


def resolve_shapes(model: Source | Variant | Session, hints: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
    """A shape for every input under which onnxruntime really runs `model`.

    Fixed sizes stay, a free first axis becomes 1, `hints` settle what they name, and free sizes of the same
    name get the same value. For what is then still open, sizes that networks are commonly built for are tried
    until one runs.

    Raises `UsageError` that names the inputs and shows an `--input-shapes` when nothing runs.
    """
    if isinstance(model, onnx.ModelProto) and all(s.closed for s in model_inputs(model)):
        return next(_proposals(model_inputs(model), hints or {}))
    session = model if isinstance(model, Session) else make_session(model, providers="cpu")
    hints = dict(hints or {})
    strange = hints.keys() - {s.name for s in session.inputs}
    if strange:
        raise UsageError(f"'{min(strange)}' is no input of the model; it has {listing(session.inputs)}")
    if all(s.name in hints or s.closed for s in session.inputs):
        return next(_proposals(session.inputs, hints))
    begun, said = time.monotonic(), None
    for shapes in _proposals(session.inputs, hints):
        try:
            session.run(random_inputs(session.inputs, shapes)[0])
        except ModelError as error:
            said = said or error
        else:
            return shapes
        if time.monotonic() - begun > PATIENCE:
            break
    raise UsageError(
        f"found no input sizes that the model runs with ({listing(session.inputs)}); "
        f"say them, for instance {example(session.inputs)}"
    ) from said


# A free size is known by its name, or by (input, axis) where the name says nothing.
Key = str | tuple[str, int]


def _key(spec: Spec, axis: int) -> Key:
    dim = (spec.shape or ())[axis]
    return (spec.name, axis) if anonymous(dim) else str(dim)


def _free(specs: Iterable[Spec]) -> Iterator[tuple[Spec, int, Key]]:
    for spec in specs:
        for axis, dim in enumerate(spec.shape or ()):
            if not isinstance(dim, int):
                yield spec, axis, _key(spec, axis)


def _known(specs: Sequence[Spec], hints: Mapping[str, Shape]) -> dict[Key, int]:
    """The free sizes that hints settle, under their names."""
    return {key: hints[spec.name][axis] for spec, axis, key in _free(specs) if spec.name in hints}


def _proposals(specs: Sequence[Spec], hints: Mapping[str, Shape]) -> Iterator[dict[str, Shape]]:
    """Shapes worth a try, the most likely first, none twice, none larger than `LARGEST`."""
    known = _known(specs, hints)
    free = list(dict.fromkeys(key for _, _, key in _free(specs) if key not in known))
    batch = {key for _, axis, key in _free(specs) if axis == 0}
    guess = {key: 1 if key in batch else value for _, axis, key in _free(specs) if (value := _likely(key)) is not None}
    guess |= dict.fromkeys(batch, 1)
    channel = {key: 3 for s, axis, key in _free(specs) if axis == 1 and len(s.shape or ()) == 4 and key not in guess}
    unnamed = [key for key in free if key not in batch]
    seen = set()
    for chosen in itertools.chain(
        (dict.fromkeys(free, size) | channel | guess for size in SIZES),
        (dict.fromkeys(free, size) | dict.fromkeys(batch, 1) for size in SIZES),
        (
            dict.fromkeys(free, size) | dict.fromkeys((*ones, *batch), 1)
            for size in SIZES
            for n in range(1, min(len(unnamed), 4))
            for ones in itertools.combinations(unnamed, n)
        ),
        (dict.fromkeys(free, 224) | channel | guess | dict.fromkeys(batch, n) for n in BATCHES),
    ):
        shapes = {s.name: hints.get(s.name) or _filled(s, chosen | known) for s in specs}
        mark = tuple(shapes.values())
        guessed = [s for s in specs if s.name not in hints and not s.closed]
        if mark not in seen and all(math.prod(shapes[s.name]) <= LARGEST for s in guessed):
            seen.add(mark)
            yield shapes


def _likely(key: Key) -> int | None:
    if not isinstance(key, str):
        return None
    name = key.lower().removesuffix("_size")
    return next((size for names, size in NAMED if name in names), None)


def _filled(spec: Spec, chosen: Mapping[Key, int]) -> Shape:
    return tuple(d if isinstance(d, int) else chosen[_key(spec, i)] for i, d in enumerate(spec.shape or ()))


def random_inputs(specs: Sequence[Spec], shapes: Mapping[str, Shape], *, seed: int = 0, count: int = 1) -> list[Feed]:
    """`count` feeds of random arrays; the same seed gives the same feeds.

    Floats are standard normal, 8-bit integers use their whole range, booleans are fair coins, and other
    integers are 0 or 1, which is a row of any embedding table and a legal mask. An integer called `sr` or
    `sample_rate` is 16,000. Raises `ModelError` for strings, sequences, maps and optionals.
    """
    generator = np.random.default_rng(seed)
    return [{s.name: _random(s, shapes[s.name], generator) for s in specs} for _ in range(count)]


def _random(spec: Spec, shape: Shape, generator: np.random.Generator) -> np.ndarray:
    dtype = spec.dtype
    if math.prod(shape) > MOST:
        raise UsageError(
            f"input '{spec.name}' has {math.prod(shape)} elements in shape {describe(shape)}; too many to make up"
        )
    if len(shape) > MAX_RANK:
        raise ModelError(f"input '{spec.name}' has {len(shape)} axes, and at most {MAX_RANK} are supported")
    kind = "f" if dtype.kind == "V" or "float" in dtype.name else dtype.kind
    if kind == "f":
        return np.asarray(generator.standard_normal(shape, dtype=np.float32)).astype(dtype)
    if kind == "b":
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
    if kind in "iu":
        if spec.name.lower() in RATES:
            return np.full(shape, SAMPLE_RATE, dtype)
        wide = dtype.kind in "iu" and dtype.itemsize == 1 and dtype.name in ("int8", "uint8")
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max + 1) if wide else (0, 2)
        return np.asarray(generator.integers(low, high, shape)).astype(dtype)
    raise ModelError(f"input '{spec.name}' holds {dtype.name}; only numbers can be made up (--no-verify does without)")
