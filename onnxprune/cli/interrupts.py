"""Ctrl-C where the program is not yet at work, or no longer: it ends at once, in one line.

Python would raise KeyboardInterrupt in the middle of some import, as a trace of a hundred lines, or as whatever a
library in C makes of it.
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # what shells say of a process that Ctrl-C ended


def ending_at_once() -> None:
    """From here on, Ctrl-C ends the process; where somebody else handles it, nothing changes."""
    _replace(signal.default_int_handler, _end)


def heard_again() -> None:
    """From here on, Ctrl-C raises KeyboardInterrupt, so that what was begun is undone."""
    _replace(_end, signal.default_int_handler)


def _replace(old: object, new: object) -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)  # type: ignore[arg-type]


def _end(number: int, frame: FrameType | None) -> NoReturn:
    with suppress(OSError):
        os.write(2, b"Error: interrupted\n")
    os._exit(INTERRUPTED)
