"""Processes of our own that do what native code might not survive."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def watched(process: "subprocess.Popen[bytes]", seconds: float) -> Iterator[threading.Event]:
    """Kill a process that is not done with something in time, of which the event tells."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, which has nothing to lose, and close the pipes to it."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


def exactly(stream: IO[bytes], size: int) -> bytearray:
    """So many bytes of a pipe.  Raises EOFError where it ends before."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = stream.readinto(view[at:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("the stream ended")
        at += got
    return data
