"""Folders of images as calibration data: decoded one by one, a class for each sub-folder."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import FileError, OnnxPruneError, UsageError
from onnxprune.runtime.fit import Options, channel_axis
from onnxprune.runtime.readers import Arrays, FileReader, Header, portions
from onnxprune.runtime.specs import Spec, describe

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def find_images(folder: Path) -> tuple[list[Path], list[int] | None]:
    """The images under `folder` and their classes: the rank of their sub-folder by name, or None without any."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [(image, i) for i, sub in enumerate(classes) for image in _inside(sub)]
    if found:
        return [f for f, _ in found], [i for _, i in found]
    return _inside(folder), None


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def read_images(paths: Sequence[Path], classes: Sequence[int] | None, spec: Spec, options: Options) -> FileReader:
    """Images as uint8 (samples, height, width, channels) in the size that input `spec` and `--resize` ask for."""
    pillow = _pillow()
    axis = channel_axis(spec, options)
    channels = (spec.shape or ())[axis]
    mode = MODES.get(channels if isinstance(channels, int) else 3)
    if mode is None:
        raise UsageError(f"input {spec} has {channels} channels; images have 1, 3 or 4")
    size = _size(spec, axis, options)

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        for part in portions(len(paths), rows, step):
            pixels = np.stack([_decoded(pillow, paths[i], mode, size, options) for i in part])
            labels = {} if classes is None else {"labels": np.array([classes[i] for i in part], np.int64)}
            yield {"": pixels, **labels}

    headers = {"": Header((len(paths), *size, len(mode)), np.dtype(np.uint8))}
    if classes is not None:
        headers["labels"] = Header((len(paths),), np.dtype(np.int64))
    return FileReader(str(paths[0].parent), chunks, headers, len(paths), image=True, folders=max(classes or (-1,)) + 1)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise OnnxPruneError("images need Pillow: pip install pillow (or onnxprune[images])") from error
    return Image


def _size(spec: Spec, axis: int, options: Options) -> tuple[int, int]:
    """Height and width that the model takes, from its input or else from `--resize`."""
    spatial = [d for i, d in enumerate(spec.shape or ()) if i and i != axis % len(spec.shape or ())]
    asked = options.resize if len(options.resize) == 2 else options.resize * 2
    size = [d if isinstance(d, int) else asked[i] if asked else 0 for i, d in enumerate(spatial)]
    if len(size) != 2 or not all(size):
        raise UsageError(f"input '{spec.name}' is {describe(spec.shape)}; give the image size: --resize 224x224")
    return size[0], size[1]


def _decoded(pillow: Any, path: Path, mode: str, size: tuple[int, int], options: Options) -> np.ndarray:
    """One image (height, width, channels): resized (bilinear), and cut to `size` around its centre.

    Without `--resize` it is scaled to just cover `size`; `--resize N` scales the shorter side to N, and
    `--resize HxW` to exactly that.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images; Pillow refuses those that are larger still
            with pillow.open(path) as file:
                image = file.convert(mode)
    except Exception as error:  # Pillow hands on what its decoders raise
        raise FileError(f"{path} is no image that can be read: {error}") from error
    height, width = image.height, image.width
    if len(options.resize) == 2:
        height, width = options.resize
    else:
        scale = options.resize[0] / min(height, width) if options.resize else max(size[0] / height, size[1] / width)
        height, width = max(round(height * scale), 1), max(round(width * scale), 1)
    if height < size[0] or width < size[1]:
        raise UsageError(f"--resize gives {height}x{width}, but the model takes {size[0]}x{size[1]}")
    left, top = (width - size[1]) // 2, (height - size[0]) // 2
    image = image.resize((width, height), pillow.Resampling.BILINEAR)
    image = image.crop((left, top, left + size[1], top + size[0]))
    return np.asarray(image, np.uint8).reshape(*size, len(mode))
