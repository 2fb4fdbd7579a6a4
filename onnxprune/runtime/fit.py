"""How an array becomes an input: by shape, layout, normalisation and type, or an error that says what is wrong."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.operators.labels import line
from onnxprune.runtime.readers import Header
from onnxprune.runtime.specs import Dim, Spec, describe, fits

Step = Callable[[np.ndarray], np.ndarray]

LAYOUTS = ("nchw", "nhwc")
FLAGS = ("rgb", "bgr", "raw")
CHANNELS = ((1, 3), (4,))  # what an axis of colours may measure, the likely lengths first


@dataclass(frozen=True)
class Options:
    """How pixels are normalised: `(pixel − mean) / std` per channel, in the layout that the model takes.

    `mean` and `std` speak of pixels from 0 to 1, or from 0 to 255 when any of them is above 1. `layout` is
    `nchw` or `nhwc`, `flags` may hold `bgr` (channels reversed first) and `raw` (pixels stay 0 to 255).
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: tuple[int, ...] = ()
    layout: str = ""
    flags: frozenset[str] = frozenset()

    @property
    def normalises(self) -> bool:
        """Whether it is said how pixels become numbers."""
        return bool(self.mean or self.std or "raw" in self.flags)


def read_options(
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    resize: str | int | Sequence[int] | None = None,
    layout: str | None = None,
) -> Options:
    """Options from what a user types: `0.485,0.456,0.406`, `256`, `224x224`, `nhwc,bgr`. Raises `UsageError`."""
    words = [w for w in re.split(r"[,\s]+", (layout or "").lower()) if w]
    strange = [w for w in words if w not in LAYOUTS + FLAGS]
    if strange or sum(w in LAYOUTS for w in words) > 1:
        raise UsageError(f"cannot read --layout {layout}; it is nchw or nhwc, and may go on with ,bgr or ,raw")
    sizes = tuple(int(n) for n in _numbers(resize, "--resize", "256 or 224x224"))
    deviations = _numbers(std, "--std", "0.229,0.224,0.225")
    if len(sizes) > 2 or any(n < 1 for n in sizes):
        raise UsageError(f"cannot read --resize {resize}; write it like 256 or 224x224")
    if any(not n > 0 for n in deviations):
        raise UsageError(f"--std {std} has to be above zero")
    return Options(
        _numbers(mean, "--mean", "0.485,0.456,0.406"),
        deviations,
        sizes,
        next((w for w in words if w in LAYOUTS), ""),
        frozenset(w for w in words if w in FLAGS),
    )


def _numbers(value: str | float | Sequence[float] | None, option: str, example: str) -> tuple[float, ...]:
    if value is None:
        return ()
    if isinstance(value, (int, float)):
        return (float(value),)
    parts = re.split(r"[,x×\s]+", value.strip("[]() ")) if isinstance(value, str) else list(value)
    try:
        return tuple(float(p) for p in parts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot read {option} {value}; write it like {example}") from error


def channel_axis(spec: Spec, options: Options) -> int:
    """The axis of colours of an image input: as `--layout` says, else the one that measures 1, 3 or 4."""
    shape = spec.shape or ()
    if len(shape) != 4:
        raise UsageError(f"input {spec} takes no images: they need four axes, like [N, 3, 224, 224]")
    if options.layout:
        return 1 if options.layout == "nchw" else 3
    axis = _colours(shape)
    if axis is None:
        raise UsageError(f"cannot tell the channels of input {spec}; add --layout nchw or --layout nhwc")
    return axis


def _colours(shape: Sequence[Dim]) -> int | None:
    """Axis 1 or 3 of four, whichever alone has the length of an axis of colours (4 only where no other will do)."""
    for lengths in CHANNELS:
        axes = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in lengths]
        if axes:
            return axes[0] if len(axes) == 1 else None
    return None


def fitting(spec: Spec, name: str, header: Header, options: Options, *, image: bool = False) -> Step:
    """The function that makes batches of the array `name` fit the input `spec`.

    Axes: as they are; with a channel axis of 1 added; or from channels-last to channels-first and back for
    pixels (uint8) or where `--layout` is given. Types: floats to floats, integers to integers that hold them,
    pixels to floats as the options say. Raises `UsageError` that shows what the model takes and what was found.
    """
    what = f"'{name}', which is {describe(('n', *header.shape[1:]))} {header.dtype}"
    pixels = header.dtype == np.uint8
    rank = len(spec.shape or ())
    arrange = _arranged(spec, header, options, free=pixels or bool(options.layout))
    if arrange is None:
        hint = "; --layout transposes" if _arranged(spec, header, Options(), free=True) else ""
        raise UsageError(f"input {spec} cannot take {what}{hint}")
    want = spec.dtype
    if pixels and want == np.int8 and "raw" in options.flags:
        raise UsageError(f"input '{spec.name}' is int8, which holds no pixels from 0 to 255: {PIXELS['i']}")
    if (options.normalises or image) and (pixels or (rank == 4 and _kind(header.dtype) == "f")):
        axis = channel_axis(spec, options) if rank == 4 else -1
        convert = _normalised(spec, axis, options, scale=header.dtype == np.uint8)
        return lambda a: _typed(convert(arrange(a)), want)
    if header.dtype.kind == "V" and header.dtype.itemsize == want.itemsize:
        return lambda a: arrange(a).view(want)  # numpy saves bfloat16 as two bytes without a type
    if _kind(header.dtype) == _kind(want) and not (pixels and want == np.int8):
        return lambda a: _cast(arrange(a), want, spec)
    if pixels and _kind(want) in "fi":
        raise UsageError(f"input '{spec.name}' is {want} and cannot take {what}: {PIXELS[_kind(want)]}")
    raise UsageError(f"input '{spec.name}' is {want} and cannot take {what}; convert the data")


# How to say what pixels mean, by the kind of input.
PIXELS = {
    "f": "say how pixels become numbers, e.g. --mean 0 --std 1 (0 to 1), --mean 0.485,0.456,0.406 "
    "--std 0.229,0.224,0.225, or --layout raw (0 to 255 as they are)",
    "i": "say how pixels become numbers, e.g. --mean 128 --std 1 (-128 to 127)",
}


def _kind(dtype: np.dtype) -> str:
    return "f" if "float" in dtype.name else "i" if dtype.kind in "iu" else dtype.kind


def _arranged(spec: Spec, header: Header, options: Options, *, free: bool) -> Step | None:
    """The function that brings the axes into the model's order, or None."""
    shape = header.shape
    orders: list[tuple[int, ...]] = [(0, 3, 1, 2), (0, 2, 3, 1)]
    wrong = bool(options.layout) and _colours(shape) == {"nchw": 3, "nhwc": 1}[options.layout]
    if fits(shape, spec, skip_first=True) and not wrong:
        return lambda a: a
    if len(shape) == 4 and free:
        for order in orders:
            if fits([shape[i] for i in order], spec, skip_first=True):
                return lambda a, order=order: np.ascontiguousarray(a.transpose(order))  # type: ignore[misc]
    if spec.shape and len(shape) == len(spec.shape) - 1:
        for axis in (1, len(shape)):
            grown = (*shape[:axis], 1, *shape[axis:])
            if spec.shape[axis] == 1 and fits(grown, spec, skip_first=True):
                return lambda a, axis=axis: np.expand_dims(a, axis)  # type: ignore[misc]
    return None


def _normalised(spec: Spec, axis: int, options: Options, *, scale: bool) -> Step:
    """`(pixel − mean) / std` along the channel axis, in float32."""
    large = any(n > 1 for n in (*options.mean, *options.std))
    divide = np.float32(255 if scale and not large and "raw" not in options.flags else 1)
    rank = len(spec.shape or ())

    def along(numbers: tuple[float, ...], default: float) -> np.ndarray:
        values = np.array(numbers or (default,), np.float32)
        return values.reshape(line(rank, axis))

    channels = (spec.shape or ())[axis]
    for option, numbers in (("--mean", options.mean), ("--std", options.std)):
        if len(numbers) > 1 and (rank != 4 or (isinstance(channels, int) and len(numbers) != channels)):
            has = f"{channels} channels (--layout says where they are)" if rank == 4 else "no channels"
            raise UsageError(f"{option} has {len(numbers)} numbers, but input {spec} has {has}")
    mean, std = along(options.mean, 0.0), along(options.std, 1.0)

    def normalise(array: np.ndarray) -> np.ndarray:
        if "bgr" in options.flags:
            array = np.flip(array, axis)
        return (array.astype(np.float32) / divide - mean) / std

    return normalise


def _typed(array: np.ndarray, want: np.dtype) -> np.ndarray:
    """Normalised pixels in the input's type; integers by rounding, as a quantized input expects them."""
    if _kind(want) == "i":
        limits = np.iinfo(want)
        return np.clip(np.rint(array), limits.min, limits.max).astype(want)
    return array.astype(want)


def _cast(array: np.ndarray, want: np.dtype, spec: Spec) -> np.ndarray:
    """The same numbers in another width; integers must fit."""
    if array.dtype != want and want.kind in "iu" and array.size:
        limits = np.iinfo(want)
        if array.min() < limits.min or array.max() > limits.max:
            raise UsageError(f"input '{spec.name}' is {want}, which cannot hold {array.min()} to {array.max()}")
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.ascontiguousarray(array, want) if array.ndim else array.astype(want)
    if _kind(want) == "f" and not np.array_equal(np.isfinite(array), np.isfinite(found)):
        raise UsageError(f"input '{spec.name}' is {want}, which cannot hold all numbers of the data")
    return found
