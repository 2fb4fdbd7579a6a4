"""Runs of onnxruntime that can be stopped: by Ctrl-C and SIGTERM, and by the clock.

A run is one call of native code, in which Python hears no signal; and a stranger's Loop may ask for 2^62 rounds.  The
call is therefore made in a thread of its own, while this one waits, and onnxruntime looks at a flag between nodes.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from onnxprune.errors import CheckFailed
from onnxprune.runtime.engine import engine

SECONDS = 600.0  # after which a run is ended


def stoppable(run: Callable[[Any], Any]) -> Any:
    """What `run` gives when it is called with onnxruntime's options of a run, or the exception that it raises.

    Args:
        run: calls onnxruntime once, with the options that it is given.

    Raises:
        CheckFailed: the run took longer than `SECONDS`.
    """
    options = engine().RunOptions()
    outcome: Future[Any] = Future()

    def work() -> None:
        try:
            outcome.set_result(run(options))
        except BaseException as error:  # handed over to the thread that waits
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        late = not wait([outcome], SECONDS).done
    finally:  # also for the exception of a signal
        options.terminate = True
        wait([outcome])
    if late:
        raise CheckFailed(
            f"onnxruntime took more than {SECONDS:g} s for one run and was stopped; give smaller --input-shapes, "
            "or --no-verify and --no-measure"
        )
    return outcome.result()
