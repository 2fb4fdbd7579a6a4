"""onnxruntime itself: imported late and guarded, its chatter kept off the terminal, its wheels looked up."""

import contextlib
import functools
import importlib
import io
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType

from onnxprune.errors import OnnxPruneError

# Every one of these unpacks into the same folder `onnxruntime`; pip lets several of them lie over one another.
WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
OLDEST = (1, 25)  # release that onnxprune is tested with

_TURNED = threading.RLock()  # a thread that found the streams turned aside would put them back so


def wheels() -> dict[str, str]:
    """The installed distributions that provide `onnxruntime`, by name, with their versions."""
    found = {}
    for name in WHEELS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def usual_wheel() -> str:
    """The wheel to install where there is none: the one with CUDA where it exists; it needs no GPU."""
    has_cuda = sys.platform in ("linux", "win32") and platform.machine().lower() in ("x86_64", "amd64")
    return "onnxruntime-gpu" if has_cuda else "onnxruntime"


def repair_hint() -> str:
    """What to type so that exactly one onnxruntime wheel is installed, and one that is new enough."""
    names = sorted(wheels())
    keep = "onnxruntime-gpu" if "onnxruntime-gpu" in names else (names or [usual_wheel()])[0]
    remove = f"pip uninstall -y {' '.join(names)} && " if names else ""
    line = f"{remove}pip install '{keep}>={_dotted(OLDEST)}'"
    return f"{line} ({NO_WHEEL})" if (sys.platform, platform.machine()) == ("darwin", "x86_64") else line


NO_WHEEL = "for Macs with Intel processors there is none after 1.23"


def _dotted(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))


def _broken(reason: str) -> OnnxPruneError:
    names = sorted(wheels())
    if not names:
        return OnnxPruneError(f"onnxruntime is not installed ({reason}); install it: {repair_hint()}")
    why = (
        f"{' and '.join(names)} are installed over one another, which breaks both"
        if len(names) > 1
        else f"the wheel {names[0]} is damaged or does not fit this system"
    )
    return OnnxPruneError(f"onnxruntime cannot be imported ({reason}): {why}; repair it: {repair_hint()}")


def _too_old(version: str) -> bool:
    """Whether a release comes before the oldest one; of words that are no release nothing is known."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < OLDEST


@functools.cache
def engine() -> ModuleType:
    """The module `onnxruntime`.

    Raises `OnnxPruneError` in one line when the import fails, when what is imported is the shell that remains after one
    of two wheels was uninstalled from under the other, or when it is too old.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it keeps a device id and a database in the home folder
    try:
        with quiet():  # the library looks for GPUs as it loads, and warns where there are none
            module = importlib.import_module("onnxruntime")
            _preload(module)
    except Exception as error:  # half-overwritten wheels fail as ImportError, AttributeError, OSError, ...
        raise _broken(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]) from error
    if not hasattr(module, "InferenceSession"):
        raise _broken("the module has no InferenceSession")
    if _too_old(str(module.__version__)):
        found, least = module.__version__, _dotted(OLDEST)
        raise OnnxPruneError(f"onnxruntime {found} is too old, {least} is the oldest that will do: {repair_hint()}")
    if os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        with contextlib.suppress(Exception):  # older versions have nothing to turn off
            module.disable_telemetry_events()
    return module


def _preload(module: ModuleType) -> None:
    """Load CUDA and cuDNN from the wheels that pip has put beside this one, where no path of the system leads there."""
    with contextlib.suppress(Exception):  # what does not load is told by the provider itself
        if "CUDAExecutionProvider" in module.get_available_providers():
            module.preload_dlls()


class Caught:
    """What was written to standard error while it was kept quiet."""

    text = ""


@contextlib.contextmanager
def quiet() -> Iterator[Caught]:
    """Keep what C++ and Python print away from the terminal; the text of standard error is in `.text` afterwards.

    Log levels do not do: a provider whose libraries are missing reports through the process-wide logger,
    which belongs to the caller, and Python's fallback prints a banner. File descriptor 2 is therefore turned
    aside for as long as this lasts, for all threads; it is only held over imports and session creation.
    """
    caught = Caught()
    with _TURNED, contextlib.redirect_stdout(io.StringIO()):
        try:
            saved = os.dup(2)
        except OSError:  # standard error is closed: nothing can be printed there
            yield caught
            return
        with tempfile.TemporaryFile() as sink:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(sink.fileno(), 2)
            try:
                yield caught
            finally:
                if sys.stderr is not None:
                    sys.stderr.flush()
                os.dup2(saved, 2)
                os.close(saved)
                sink.seek(0)
                caught.text = sink.read().decode(errors="replace")


def usable_cpus() -> int:
    """CPU cores that this process may use: its affinity, further limited by a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as file:
        quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


LONGEST = 4000  # characters that are looked at; a name from the file can have millions
WIDTH = 240  # characters of a reason that are told

# What onnxruntime puts before a reason: its own name, a status, the file it was asked for, a C++ signature.
_NOISE = (
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ",
    r"Load model from .*? failed:",
    r"Fatal error: ",
    r"Exception during initialization: ",
    r"\S+\.(cc|h):\d+ \w+ ",
    r"Status Message: ",
)


_SIGNATURE = re.compile(r"/onnxruntime_src/\S+?:\d+ [^(]*\(")
_QUALIFIERS = re.compile(r"( const)?( \[with [^\]]*\])? *")


def _without_signature(text: str) -> str:
    """The text without the file and the function that it names, whose parameters hold brackets of their own."""
    found = _SIGNATURE.search(text)
    if not found:
        return text
    depth, at = 1, found.end()
    while depth and at < len(text):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    qualifiers = _QUALIFIERS.match(text, at)
    rest = text[qualifiers.end() if qualifiers else at :]
    return text[: found.start()] + (rest or "a check of its own failed")


def reason(error: BaseException | str) -> str:
    """The first line of what onnxruntime says, without its internal addresses, cut to `WIDTH` characters."""
    text = _without_signature(str(error).strip()[:LONGEST])
    for pattern in _NOISE:
        text = re.sub(pattern, "", text)
    text = " ".join(text.splitlines()[0].split()) if text else "no reason given"
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
