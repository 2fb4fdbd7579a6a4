"""Functions from a user's own Python file, named as `script.py:function`; naming one runs the file."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnxprune.errors import FileError, OnnxPruneError, Terminated, UsageError


def split_script(text: str, default: str) -> tuple[Path, str]:
    """`dir/script.py:fn` → (`dir/script.py`, `fn`); without `:fn`, the default name."""
    path, mark, name = text.rpartition(":")
    if not mark or not path.endswith(".py"):  # C:\script.py has a colon of its own
        path, name = text, default
    return Path(path), name or default


def load_function(text: str, *, default: str) -> Callable[..., Any]:
    """The function that `script.py:function` names, after running the file.

    Raises `FileError` when the file is not there, and `UsageError` when it fails or lacks the function.
    """
    path, name = split_script(text, default)
    if not path.is_file():
        raise FileError(f"{path} is not a file")
    spec = importlib.util.spec_from_file_location(f"_onnxprune_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.absolute().parent))
    try:
        with blaming(str(path)):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.absolute().parent))
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{path} has no function '{name}'")
    return function


@contextlib.contextmanager
def blaming(script: str) -> Iterator[None]:
    """Report what the user's own code raises as a `UsageError` that names the script, in one line."""
    try:
        yield
    except (OnnxPruneError, KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:  # whatever the user's code raises
        raise UsageError(f"{script} failed with {type(error).__name__}{_said(error)}") from error


def _said(error: BaseException) -> str:
    """What an error says of itself, if it can."""
    try:
        text = str(error)
    except Exception:
        return ""
    return f": {text}" if text else ""
