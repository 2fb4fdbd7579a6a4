"""What a run may take: an estimate of its memory before it begins, and onnxruntime in a process of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.criteria.methods import METHODS, Method
from onnxprune.errors import ModelError
from onnxprune.model.references import data_files
from onnxprune.model.tensors import quoted
from onnxprune.pipeline.costs import peak_activations
from onnxprune.pipeline.request import Request
from onnxprune.runtime.isolate import Limits, isolated

# A run with verification peaks at 1.9 to 2.5 times the model file, and at 0.2 GiB more for Python, numpy, BLAS and
# onnxruntime (benchmarks/memory.py); a group of n filters takes n² similarities, six such matrices at once.
PER_BYTE = 2.5
MORE_LOSSLESS = 2.7  # times the model file, for the weights as they are and as they will be
PER_BYTE_REPAIRED = 8.0  # the same with a repair: weights of both networks, and of one layer in double precision
ROOM = 0.75  # of the memory for that; the rest is for activations
FIXED = 256 << 20
PER_PAIR = 6 * 8
LEAST_PER_PAIR = 2 * 4  # what no comparison in pairs does without
SMALL = 16 << 20  # bytes that are not worth asking the system for what is free


def readable(size: float) -> str:
    """Bytes in words."""
    if size >= 2**60:  # floats end at 2^1024, sizes in a hostile file need not
        return "more than 10^18 bytes"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


@contextmanager
def limited(request: Request, source: Any) -> Iterator[None]:
    """Run something within the limits of a request.

    Raises:
        ModelError: the model at `source` would need more memory than allowed, or more than there is.
        UsageError: the limit is no amount of memory.
    """
    most = request.max_memory
    if most is not None:
        require(size_of(source), most)
    try:
        with isolated(Limits(memory=most) if request.isolate else None):
            yield
    except MemoryError as error:
        raise ModelError(
            "there is not enough memory for this model; close other programs, or use a larger machine"
        ) from error


def size_of(source: Any) -> int:
    """Bytes of a model that is about to be read, data files included; 0 where that is not known before it is."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return len(source)
    if not isinstance(source, (str, os.PathLike)):
        return 0
    path = Path(source)
    try:
        return sum(os.stat(file).st_size for file in (path, *data_files(path)))
    except (OSError, ValueError):
        return 0  # reading says what is wrong with it


def require(size: int, most: int, more: int = 0) -> None:
    """Raise ModelError if a model of `size` bytes, and `more` besides, would need more than `most`."""
    needed = PER_BYTE * size + FIXED + more
    if needed > most:
        raise ModelError(
            f"this run would need about {readable(needed)} of memory ({readable(size)} of model), and --max-memory "
            f"allows {readable(most)}; allow more, or use a larger machine"
        )


def require_analysed(request: Request, size: int, deps: Dependencies) -> None:
    """The same of a model of `size` bytes once it is known: activations and the filters to be compared count as well.

    Without a limit of the user's, only what the machine certainly has no room for is refused.
    """
    activations = peak_activations(deps, deps.nothing, stored=True)
    if request.max_memory is not None:
        widest = max((len(group) for group in deps.groups), default=0)
        pairs = 0 if METHODS[request.method].alone else widest**2
        working = MORE_LOSSLESS * size if request.lossless else pairs * PER_PAIR
        require(size, request.max_memory, max(0, int(working) + activations - FIXED // 2))
        return
    least = max(activations, deps.statics.huge) * (request.verify or request.measure)
    if (there := available()) is not None and least > there:
        raise ModelError(
            f"this run would need {readable(least)} of memory for activations and the like, and this machine has "
            f"{readable(there)} free; give smaller --input-shapes, --no-verify and --no-measure, or use a larger "
            "machine"
        )


def require_comparable(method: Method, group: Group) -> None:
    """Raise ModelError if this machine has no room for what a method makes of the filters of a group."""
    least = 0 if method.alone else len(group) ** 2 * LEAST_PER_PAIR
    if least > SMALL and (there := available()) is not None and least > there:
        raise ModelError(
            f"{method.name!r} compares each of the {len(group):,} channels of {quoted(group.name)} with each, which "
            f"would need {readable(least)} of memory, and this machine has {readable(there)} free; --method l2 ranks "
            "them one by one, and --exclude leaves them whole"
        )


def no_room(request: Request, size: int) -> str:
    """Why a model of `size` bytes cannot be repaired in the memory that there is, or that is allowed; or nothing."""
    most = available() if request.max_memory is None else request.max_memory
    needed = PER_BYTE_REPAIRED * size + FIXED
    if most is None or needed < ROOM * most:
        return ""
    return f"a repair would need about {readable(needed / ROOM)} of memory, and {readable(most)} are there"


def available() -> int | None:
    """Bytes of memory and swap that this system has free; None where it does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
        return found["MemAvailable"] + found.get("SwapFree", 0)
    except (OSError, ValueError, KeyError, IndexError):
        return None
