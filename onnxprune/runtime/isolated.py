"""The other side of `onnxprune.runtime.isolate`: what runs in the process of an isolated session."""

import contextlib
import os
import sys
import time
from dataclasses import asdict
from typing import Any, BinaryIO

from onnxprune.errors import OnnxPruneError
from onnxprune.runtime.engine import engine
from onnxprune.runtime.isolate import receive, send
from onnxprune.runtime.session import Session, Settings, load
from onnxprune.runtime.source import Prepared


def main() -> None:
    """Make the session that the first message asks for, and run it for each of the others."""
    inward = os.fdopen(os.dup(0), "rb")
    outward = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the messages
    sys.stdout = sys.stderr
    session: Session | None = None
    with contextlib.suppress(EOFError):  # the other side is done
        while True:
            head, arrays, model = receive(inward)
            session = _answer(outward, head, arrays, model, session)


def _answer(
    outward: BinaryIO, head: dict[str, Any], arrays: Any, model: bytes, session: Session | None
) -> Session | None:
    try:
        if session is None:
            session = _make(head, arrays, model)
            specs = {part: list(map(asdict, getattr(session, part))) for part in ("inputs", "outputs")}
            send(outward, {**specs, "provider": session.provider}, {})
            return session
        begun = time.perf_counter()
        outputs = session.run(arrays, head["names"])
        send(outward, {"seconds": time.perf_counter() - begun}, outputs)
    except OnnxPruneError as error:
        send(outward, {"error": str(error)}, {})
    except MemoryError:
        send(outward, {"error": "there is not enough memory to run the model"}, {})
    return session


def _make(head: dict[str, Any], arrays: Any, model: bytes) -> Session:
    engine().set_seed(1)  # Random operators of two models that are compared draw the same numbers
    _confine(head["memory"])
    prepared = Prepared(model if head["inline"] else head["model"], head["folder"], arrays)
    return load(prepared, head["providers"], head["threads"], Settings(*head["settings"]), tuple(head["taps"]))


def _confine(memory: int | None) -> None:
    """No core files, no files at all, and no more address space than that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory is not None and (taken := _address_space()) is not None:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))


def _address_space() -> int | None:
    """Bytes of address space of this process; None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
