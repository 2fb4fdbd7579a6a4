"""Feeds for a model: likely shapes for what it leaves open, and seeded random arrays."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.dims import Expression, expressions
from onnxprune.operators.registry import Shape
from onnxprune.runtime.specs import Dim, Feed, Spec, anonymous, describe, fits

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


# A free size is known by its name, or by (input, axis) where the name says nothing.
Key = str | tuple[str, int]


def _key(spec: Spec, axis: int) -> Key:
    dim = (spec.shape or ())[axis]
    return (spec.name, axis) if anonymous(dim) else str(dim)


def open_sizes(specs: Iterable[Spec]) -> Iterator[tuple[Spec, int, Key]]:
    """Every axis whose size the model leaves open: input, axis, and what the size is known by."""
    for spec in specs:
        for axis, dim in enumerate(spec.shape or ()):
            if not isinstance(dim, int):
                yield spec, axis, _key(spec, axis)


def computed_sizes(specs: Sequence[Spec]) -> dict[str, Expression]:
    """The sizes that are expressions of others, by the text that names them."""
    return expressions(key for _, _, key in open_sizes(specs) if isinstance(key, str))


def known_sizes(
    specs: Sequence[Spec], hints: Mapping[str, Shape], computed: Mapping[str, Expression]
) -> dict[Key, int]:
    """The free sizes that hints settle, under their names."""
    told = {key: hints[spec.name][axis] for spec, axis, key in open_sizes(specs) if spec.name in hints}
    known = {key: size for key, size in told.items() if key not in computed}
    for text, expression in computed.items():
        left = sorted(expression.names - known.keys())
        sizes = {name: known[name] for name in expression.names & known.keys()}
        size = expression.solved(left[0], told[text], sizes) if text in told and len(left) == 1 else None
        if size is not None:
            known[left[0]] = size
    return known


def proposals(specs: Sequence[Spec], hints: Mapping[str, Shape]) -> Iterator[dict[str, Shape]]:
    """Shapes worth a try, the most likely first, none twice, none larger than `LARGEST`."""
    computed = computed_sizes(specs)
    known = known_sizes(specs, hints, computed)
    guessed = [s for s in specs if s.name not in hints and not s.closed]
    seen = set()
    for chosen in _choices(specs, computed, known):
        shapes = {s.name: hints.get(s.name) or filled(s, chosen | known, computed) for s in specs}
        mark = tuple(shapes.values())
        if mark not in seen and all(_possible(s, shapes[s.name]) for s in guessed):
            seen.add(mark)
            yield shapes


def _choices(
    specs: Sequence[Spec], computed: Mapping[str, Expression], known: Mapping[Key, int]
) -> Iterator[dict[Key, int]]:
    """Values of the free sizes, the most likely first."""
    named = [(spec, axis, key) for spec, axis, key in open_sizes(specs) if key not in computed]
    inside = [(axis, name) for _, axis, key in open_sizes(specs) for name in sorted(_names(key, computed))]
    free = [key for key in dict.fromkeys((*(key for _, _, key in named), *(n for _, n in inside))) if key not in known]
    batch = {key for _, axis, key in named if axis == 0} | {name for axis, name in inside if axis == 0}
    guess = {key: 1 if key in batch else value for key in free if (value := _likely(key)) is not None}
    guess |= dict.fromkeys(batch, 1)
    channel = {key: 3 for s, axis, key in named if axis == 1 and len(s.shape or ()) == 4 and key not in guess}
    unnamed = [key for key in free if key not in batch]
    all_of = {size: dict.fromkeys(free, size) | _behind(computed, free, named, size) for size in SIZES}
    yield from (all_of[size] | channel | guess for size in SIZES)
    yield from (all_of[size] | dict.fromkeys(batch, 1) for size in SIZES)
    for size in SIZES:
        for n in range(1, min(len(unnamed), 4)):
            for ones in itertools.combinations(unnamed, n):
                yield all_of[size] | dict.fromkeys((*ones, *batch), 1)
    yield from (all_of[224] | channel | guess | dict.fromkeys(batch, n) for n in BATCHES)


def _names(key: Key, computed: Mapping[str, Expression]) -> frozenset[str]:
    """The sizes that another one is computed from."""
    return computed[key].names if isinstance(key, str) and key in computed else frozenset()


def _behind(
    computed: Mapping[str, Expression], free: Sequence[Key], named: Sequence[tuple[Spec, int, Key]], size: int
) -> dict[Key, int]:
    """The sizes in expressions such as `32*s` that make these come to one size; no input has them for a size itself."""
    plain = {key for _, _, key in named}
    alone = {name: e for e in computed.values() for name in e.names if len(e.names) == 1 and name not in plain}
    found = {name: e.solved(name, size, {}) for name, e in alone.items() if name in free}
    return {name: value for name, value in found.items() if value is not None}


def _possible(spec: Spec, shape: Shape) -> bool:
    """Whether a guess is neither too large nor empty where the model leaves a size open."""
    least = min((n for n, dim in zip(shape, spec.shape or (), strict=False) if not isinstance(dim, int)), default=1)
    return least > 0 and math.prod(shape) <= LARGEST


def _likely(key: Key) -> int | None:
    if not isinstance(key, str):
        return None
    name = key.lower().removesuffix("_size")
    return next((size for names, size in NAMED if name in names), None)


def filled(spec: Spec, chosen: Mapping[Key, int], computed: Mapping[str, Expression]) -> Shape:
    """The shape of an input where the free sizes are these; 0 where an expression has no value for them."""
    sizes = {key: size for key, size in chosen.items() if isinstance(key, str)}

    def at(axis: int, dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        expression = computed.get(dim) if dim is not None else None
        return chosen[_key(spec, axis)] if expression is None else expression.at(sizes) or 0

    return tuple(at(axis, dim) for axis, dim in enumerate(spec.shape or ()))


NORMAL, POSITIVE, PIXELS, BRIGHT, SMALL = "standard normal", "positive", "0 to 255", "128 to 255", "small integers"
Floats = Callable[[np.random.Generator, Shape], np.ndarray]
KINDS: Mapping[str, Floats] = {
    NORMAL: lambda generator, shape: generator.standard_normal(shape, dtype=np.float32),
    POSITIVE: lambda generator, shape: 1 - generator.random(shape, dtype=np.float32),  # above 0, for a logarithm
    PIXELS: lambda generator, shape: generator.integers(0, 256, shape),
    BRIGHT: lambda generator, shape: generator.integers(128, 256, shape),
    SMALL: lambda generator, shape: generator.integers(0, SMALLEST, shape),
}
SMALLEST = 10  # whole numbers below this are small
ROUNDS = 3  # of a loop: the third is the first whose state has gone through the body twice
COUNTING = (PIXELS, SMALL)  # kinds in which integers, too, are more than 0 or 1


def random_inputs(
    specs: Sequence[Spec], shapes: Mapping[str, Shape], *, seed: int = 0, count: int = 1, kind: str = NORMAL
) -> list[Feed]:
    """`count` feeds of random arrays; the same seed gives the same feeds.

    Floats are of one of the `KINDS`, 8-bit integers use their whole range, booleans are fair coins, and other
    integers are 0 or 1, which is a row of any embedding table and a legal mask, or small where the kind is `COUNTING`.
    An integer called `sr` or `sample_rate` is 16,000. Raises `ModelError` for strings, sequences, maps and optionals.
    """
    generator = np.random.default_rng(seed)
    return [{s.name: _random(s, shapes[s.name], generator, kind) for s in specs} for _ in range(count)]


def _random(spec: Spec, shape: Shape, generator: np.random.Generator, sort: str) -> np.ndarray:
    dtype = spec.dtype
    if math.prod(shape) > MOST:
        raise UsageError(
            f"input '{spec.name}' has {math.prod(shape)} elements in shape {describe(shape)}; too many to make up"
        )
    if len(shape) > MAX_RANK:
        raise ModelError(f"input '{spec.name}' has {len(shape)} axes, and at most {MAX_RANK} are supported")
    kind = "f" if dtype.kind == "V" or "float" in dtype.name else dtype.kind
    if kind == "f":
        return np.asarray(KINDS[sort](generator, shape)).astype(dtype)
    if kind == "b":
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
    if kind in "iu":
        if spec.name.lower() in RATES:
            return np.full(shape, SAMPLE_RATE, dtype)
        wide = dtype.kind in "iu" and dtype.itemsize == 1 and dtype.name in ("int8", "uint8")
        high = SMALLEST if sort in COUNTING and "mask" not in spec.name.lower() else 2
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max + 1) if wide else (0, high)
        return np.asarray(generator.integers(low, high, shape)).astype(dtype)
    raise ModelError(f"input '{spec.name}' holds {dtype.name}; only numbers can be made up (--no-verify does without)")


def decided(feed: Feed, on: bool) -> Feed:
    """A feed whose flags are all on or all off; `on`, its counts are `ROUNDS` and up, so that a loop goes round.

    Flags and counts are booleans and integers of one element and rank 0 or 1. Masks and sample rates are no counts, nor
    are 8-bit integers; counts differ, so that those that bound a slice leave something between them.
    """
    found, counts = {}, itertools.count(ROUNDS)
    for name, array in feed.items():
        if array.size != 1 or array.ndim > 1:
            continue
        if array.dtype.kind == "b":
            found[name] = np.full_like(array, on)
        elif on and array.dtype.kind in "iu" and array.dtype.itemsize > 1 and _counts(name):
            found[name] = np.full_like(array, next(counts))
    return {**feed, **found} if found else feed


def _counts(name: str) -> bool:
    """Whether an integer of this name may be a number of rounds."""
    return name.lower() not in RATES and "mask" not in name.lower()
