"""Processes of our own that do what native code might not survive."""

import contextlib
import subprocess


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, which has nothing to lose, and close the pipes to it."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
