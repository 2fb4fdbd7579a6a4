"""Sessions in a process of their own: onnxruntime runs a stranger's graph, and a crash there is a failed check here.

The process is started anew (not forked: onnxruntime's threads do not survive a fork) and spoken to over pipes in JSON
and raw arrays, so that what comes back can be wrong but cannot be code.  It may not write files, and holds

* memory: so many bytes of address space (RLIMIT_AS) beyond what it has when onnxruntime is loaded.  Mapped weights
  count, as do thread stacks; what the limit refuses onnxruntime reports as a failed allocation.  Not on Windows and
  macOS, which have no such limit.
* time: so many seconds for making the session, and for each run; then it is killed.
"""

import contextlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from onnx import helper

from onnxprune.errors import CheckFailed, ModelError
from onnxprune.processes import end, exactly, watched
from onnxprune.runtime.specs import Feed, Spec

BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from onnxprune.runtime.isolated import main; main()"
SECONDS = 600.0
STRING = 8  # TensorProto.STRING
LONGEST = 1 << 26  # bytes of a header: names, shapes and messages
Specs = tuple[Spec, ...]


@dataclass(frozen=True)
class Limits:
    """What an isolated session may take: bytes of address space beyond those of an idle one, and seconds per answer."""

    memory: int | None = None
    seconds: float = SECONDS


_current: ContextVar[Limits | None] = ContextVar("limits", default=None)


@contextlib.contextmanager
def isolated(limits: Limits | None) -> Iterator[None]:
    """Sessions that are made inside run in processes of their own; nothing changes for None."""
    token = _current.set(limits or _current.get())
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Limits | None:
    """The limits that hold here, if sessions are to be isolated."""
    return _current.get()


class Child:
    """The process of one session.

    Raises `CheckFailed` from every method when it crashes, runs out of time, or is killed.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.seconds = math.nan  # that the last run took, measured over there
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def load(self, request: Mapping[str, Any], arrays: Feed, model: bytes | None) -> tuple[Specs, Specs, str]:
        """Make the session; gives inputs, outputs and provider.  Raises ModelError where onnxruntime refuses."""
        head = {**request, "memory": self.limits.memory, "inline": model is not None}
        reply, _ = self._ask(head, arrays, "loaded the model", model)
        inputs, outputs = (tuple(map(_spec, reply[part])) for part in ("inputs", "outputs"))
        return inputs, outputs, reply["provider"]

    def run(self, feed: Mapping[str, np.ndarray], names: Sequence[str]) -> Feed:
        """Outputs by name.  Raises ModelError where onnxruntime cannot run the model on this feed."""
        reply, arrays = self._ask({"names": list(names)}, feed, "ran the model")
        self.seconds = float(reply["seconds"])
        return arrays

    def _ask(
        self, head: Mapping[str, Any], arrays: Mapping[str, np.ndarray], what: str, model: bytes | None = None
    ) -> tuple[dict[str, Any], Feed]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with watched(self.process, self.limits.seconds) as late:
            try:
                send(self.process.stdin, head, arrays, model)
                reply, found, _ = receive(self.process.stdout)
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                self.close()
                raise CheckFailed(self._fate(what, late.is_set(), error)) from None
        if "error" in reply:
            raise ModelError(str(reply["error"]))
        return reply, found

    def _fate(self, what: str, late: bool, error: Exception) -> str:
        """What became of the process, in a line."""
        code = self.process.returncode
        if late:
            return f"onnxruntime took more than {self.limits.seconds:g} s while it {what} and was stopped"
        if code is not None and code == -signal.SIGKILL and not isinstance(error, ValueError):
            return f"onnxruntime was killed while it {what}, most likely for want of memory"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
            return f"onnxruntime crashed ({name}) while it {what}; the file is damaged, hostile, or meets a bug of it"
        return f"onnxruntime's process ended ({code}) while it {what}: {type(error).__name__}"

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)  # one that crashed is about to be gone, and its end says why
        end(self.process)

    def __del__(self) -> None:
        process = getattr(self, "process", None)
        if process is not None and process.returncode is None:
            process.kill()
            self.close()


def _spec(told: dict[str, Any]) -> Spec:
    """A spec from JSON, which has lists for tuples."""
    return Spec(**{**told, "shape": told["shape"] and tuple(told["shape"])})


def seconds_apart(session: object) -> float | None:
    """How long the last run of an isolated session took, without the way there and back; None for another one."""
    native = getattr(session, "native", None)
    return native.seconds if isinstance(native, Child) else None


# --- messages ----------------------------------------------------------------


def send(
    stream: IO[bytes], head: Mapping[str, Any], arrays: Mapping[str, np.ndarray], model: bytes | None = None
) -> None:
    """Write a message: the length of the header, the header in JSON, the model if there is one, and the arrays."""
    described: list[list[Any]] = []
    parts: list[bytes | memoryview] = [model] if model is not None else []
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind in "OUS":
            text = json.dumps([x.decode() if isinstance(x, bytes) else str(x) for x in array.ravel()]).encode()
            described.append([name, STRING, list(array.shape), len(text)])
            parts.append(text)
        else:
            array = np.ascontiguousarray(array).reshape(array.shape)
            described.append([name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape), array.nbytes])
            parts.append(array.reshape(-1).view(np.uint8).data)
    header = json.dumps({**head, "arrays": described, "model_bytes": len(model or b"")}).encode()
    stream.write(struct.pack("<Q", len(header)))
    stream.write(header)
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], Feed, bytes]:
    """Read a message.  Raises EOFError where it ends early and ValueError where it makes no sense."""
    (length,) = struct.unpack("<Q", exactly(stream, 8))
    if length > LONGEST:
        raise ValueError("a header that is too long")
    head = json.loads(exactly(stream, length))
    model = bytes(exactly(stream, int(head["model_bytes"])))
    return head, {name: _array(stream, element, shape, size) for name, element, shape, size in head["arrays"]}, model


def _array(stream: IO[bytes], element: int, shape: Sequence[int], size: int) -> np.ndarray:
    if element == STRING:
        return np.array(json.loads(exactly(stream, size)), object).reshape(shape)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(element))
    if math.prod(shape) * dtype.itemsize != size or min(shape, default=0) < 0:
        raise ValueError("an array of another size than it says")
    return np.frombuffer(exactly(stream, size), dtype).reshape(shape)
