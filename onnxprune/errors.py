"""What can go wrong, one class per exit code; every message is one line that says what to do."""

from contextvars import ContextVar

COMMAND_LINE = ContextVar("COMMAND_LINE", default=False)  # whether options are typed there, and not in Python


def spelled(option: str, value: object = None) -> str:
    """An option, with its value if there is one, as it is typed: `max_drop=1` in Python, `--max-drop 1` in a shell."""
    if not COMMAND_LINE.get():
        return option if value is None else f"{option}={value!r}"
    name = "--" + option.replace("_", "-")
    return name if value is None or value is True else f"{name} {value}"


class OnnxPruneError(Exception):
    """Base of all errors that onnxprune raises on purpose."""

    exit_code = 1


class CheckFailed(OnnxPruneError):
    """A promise did not hold (verification, `--max-drop`, a strict target); nothing was written."""

    exit_code = 1


class UsageError(OnnxPruneError):
    """The request makes no sense: unknown names, shapes that do not fit, options at odds."""

    exit_code = 2


class ModelError(OnnxPruneError):
    """The input is not a valid model, or onnxprune or onnxruntime cannot handle it."""

    exit_code = 3


class FileError(OnnxPruneError):
    """The file system said no: missing file, no permission, disk full."""

    exit_code = 4


class Incomplete(FileError):
    """The model is in place and whole, but what was to go with it (plan, report, a word of the disk) is not."""

    exit_code = 5


class Terminated(SystemExit):
    """Another process has asked this one to end; goes through everything, so that what was begun is undone."""
