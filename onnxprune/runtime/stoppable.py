"""Runs of onnxruntime that can be stopped: by Ctrl-C and SIGTERM, and by the clock.

A run is one call of native code, in which Python hears no signal; and a stranger's Loop may ask for 2^62 rounds.  The
call is therefore made in a thread of its own, while this one waits, and onnxruntime looks at a flag between nodes.
"""

import threading
from collections.abc import Callable
from typing import Any

from onnxprune.errors import CheckFailed
from onnxprune.runtime.engine import engine

SECONDS = 600.0  # per run


def stoppable(run: Callable[[Any], Any], seconds: float | None = None) -> Any:
    """What `run` gives when it is called with onnxruntime's options of a run, or the exception that it raises.

    Args:
        run: calls onnxruntime once, with the options that it is given.
        seconds: after which the run is ended; `SECONDS` when None.

    Raises:
        CheckFailed: the run took longer.
    """
    seconds = SECONDS if seconds is None else seconds
    options = engine().RunOptions()
    outcome: list[tuple[bool, Any]] = []
    ended = threading.Event()  # and not Thread.join, which takes a thread for ended when a signal comes (Python 3.11)

    def work() -> None:
        try:
            outcome.append((True, run(options)))
        except BaseException as error:  # handed over to the thread that waits
            outcome.append((False, error))
        finally:
            ended.set()

    threading.Thread(target=work, daemon=True).start()
    try:
        late = not ended.wait(seconds)
    finally:  # also for the exception of a signal
        options.terminate = True
        ended.wait()
    if late:
        raise CheckFailed(
            f"onnxruntime took more than {seconds:g} s for one run and was stopped; give smaller --input-shapes, "
            "or --no-verify and --no-measure"
        )
    done, value = outcome[0]
    if not done:
        raise value
    return value
