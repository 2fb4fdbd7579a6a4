"""Runs of the whole command that get a signal at any time: python -m fuzz.kills FOLDER TIMES

For each signal and each way to store weights, TIMES runs over an old output; after each, the old output or the new one
is whole.  Prints how many ended early.  In a process of its own, since runs are forked, which threads do not survive.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from onnxprune.cli import main
from onnxprune.model.atomic import PREFIX

MODEL = Path(__file__).parents[2] / "models" / "digits_cnn.onnx"
STYLES = {"inside": (), "outside": ("--save-as-external-data",)}
OLD = b"the only copy"
SIGNALS = {"SIGINT": {130}, "SIGTERM": {143, -15}, "SIGHUP": {129, -1}, "SIGKILL": {-9}}


def words(folder: Path, style: str) -> list[str]:
    """The command line of a run."""
    return [
        str(MODEL),
        str(folder / "out.onnx"),
        "--ratio",
        "0.5",
        "--compensate",
        "none",
        "--no-measure",
        "-q",
        *STYLES[style],
    ]


def content(folder: Path) -> dict[str, bytes]:
    """All files in a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def whole(found: dict[str, bytes], new: dict[str, bytes]) -> bool:
    """The old output, perhaps with data that belongs to the new one, or the new one."""
    rest = {name: data for name, data in found.items() if name != "out.onnx"}
    if found["out.onnx"] == OLD:
        return all(new.get(name) == data for name, data in rest.items())
    return found == new


def ended(folder: Path, style: str, number: int, delay: float) -> int:
    """Exit code of a run in a process of its own that gets a signal after so many seconds."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            code = main(words(folder, style))
        except KeyboardInterrupt:
            code = 130  # before the program had begun, or after its end: Python's own code for it
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    time.sleep(delay)
    os.kill(pid, number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kills(folder: Path, style: str, name: str, times: int) -> dict[str, int]:
    """Runs, those that ended before their end, and those that left a temporary for the next run to remove."""
    draw = random.Random(f"{style}/{name}")
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir(parents=True)
    begun = time.monotonic()
    assert ended(undisturbed, style, 0, 0) == 0  # signal 0 is none: how long a run takes
    span, new = time.monotonic() - begun, content(undisturbed)
    stopped = swept = 0
    for k in range(times):
        target = folder / str(k)
        target.mkdir()
        (target / "out.onnx").write_bytes(OLD)
        code = ended(target, style, getattr(signal, name), draw.uniform(0, 1.1 * span))
        assert code == 0 or code in SIGNALS[name], code
        found = content(target)
        left = [file for file in found if file.startswith(PREFIX)]
        assert name == "SIGKILL" or not left, left
        assert whole({file: data for file, data in found.items() if file not in left}, new), sorted(found)
        stopped += code != 0
        if left:
            swept += 1
            for file in left:
                os.utime(target / file, (0, 0))  # as if the run had been an hour ago
            assert ended(target, style, 0, 0) == 0
            assert content(target) == new
    return {"runs": times, "stopped": stopped, "swept": swept}


if __name__ == "__main__":
    import onnxruntime  # noqa: F401
    import scipy.linalg  # noqa: F401

    import onnxprune.cli.commands  # noqa: F401

    for each in SIGNALS:
        signal.signal(getattr(signal, each), signal.SIG_DFL) if each not in ("SIGKILL", "SIGINT") else None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(
        json.dumps(
            {
                f"{name}, {style}": kills(Path(sys.argv[1]) / f"{name}-{style}", style, name, int(sys.argv[2]))
                for name in SIGNALS
                for style in STYLES
            }
        )
    )
