"""What a sweep tries: networks, and for each of them every target with every method."""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import FileError, UsageError, spelled
from onnxprune.pipeline.kinds import Share
from onnxprune.pipeline.request import Request
from onnxprune.sweeps.options import COSTS

MOST = 10_000  # targets of one range


def combinations(
    sources: Sequence[Path], targets: Sequence[str], methods: Sequence[str], options: Mapping[str, Any]
) -> list[tuple[Path, dict[str, Any]]]:
    """All networks with all options of `Request` that they are cut with, network by network.

    Raises UsageError, before any work, for what no run would take.
    """
    if not methods:
        raise UsageError(f"a sweep needs methods: {spelled('methods', 'ncc,obs')}")
    ways = [{"target": target, "method": method} for target, method in product(targets, methods)]
    for way in ways:
        Request.of(options, "sweep", **way)
    return [(source, {**options, **way}) for source, way in product(sources, ways)]


def read_targets(given: str | Iterable[str]) -> tuple[str, ...]:
    """From "macs=0.3:0.9:0.1" (first, last, step), "macs=0.3,0.5", "macs=0.5", or several of them, to single targets.

    Raises UsageError.
    """
    texts = [given] if isinstance(given, str) else list(given)
    found = [target for text in texts for target in _targets(text)]
    if not found:
        raise UsageError(f"a sweep needs targets: {spelled('targets', 'macs=0.3:0.9:0.1')}")
    return tuple(dict.fromkeys(found))


def _targets(text: str) -> list[str]:
    kind, mark, values = str(text).partition("=")
    kind = kind.strip().lower()
    if kind not in COSTS or not mark:
        later = f"; latency is measured afterwards, and {spelled('latency', '5ms')} chooses by it" * (kind == "latency")
        raise UsageError(
            f"targets look like macs=0.3:0.9:0.1 (first, last, step) or macs=0.3,0.5, of {', '.join(COSTS)}; not "
            f"{text!r}{later}"
        )
    return [f"{kind}={value}" for part in values.split(",") for value in _values(part.strip(), text)]


def _values(part: str, text: str) -> list[str]:
    """The numbers of a range, its end among them; anything else is left to the target to read."""
    if ":" not in part:
        return [part]
    try:
        first, last, step = map(Share().number, part.split(":"))
    except ValueError:
        raise UsageError(f"a range of targets is first:last:step, like 0.3:0.9:0.1, and not {part!r}") from None
    steps = (last - first) / step if step > 0 else -1.0
    if not 0 <= steps < MOST:
        raise UsageError(f"the range {part!r} of {text!r} holds no number, or more than {MOST:,}")
    return [f"{value:.6g}" for value in first + step * np.arange(int(steps + 1e-6) + 1)]


def read_names(given: str | Iterable[str]) -> tuple[str, ...]:
    """From "ncc,obs", or several such words, to names."""
    texts = [given] if isinstance(given, str) else list(given)
    names = [name.strip() for text in texts for name in str(text).split(",")]
    return tuple(dict.fromkeys(filter(None, names)))


def find_sources(given: Any) -> list[Path]:
    """The networks: files, and all .onnx files of folders.  Raises FileError and UsageError."""
    paths = [given] if isinstance(given, (str, os.PathLike)) else list(given)
    found: dict[Path, None] = {}
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise UsageError(
                f"a sweep reads networks from files, which its workers open; {type(path).__name__} is none"
            )
        path = Path(path)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix == ".onnx" and p.is_file())
            if not inside:
                raise FileError(f"there is no .onnx file in {str(path)!r}")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise FileError(f"there is no file {str(path)!r}")
    if not found:
        raise UsageError("a sweep needs a network")
    return list(found)
