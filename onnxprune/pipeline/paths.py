"""Files that a run reads and files that it writes: what is read is not written over by mistake."""

import os
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from onnxprune.errors import COMMAND_LINE, UsageError
from onnxprune.model.references import data_files
from onnxprune.model.tensors import quoted
from onnxprune.runtime.script import split_script

Path_ = str | os.PathLike[str]


def check_paths(source: Any, written: Mapping[str, Path_ | None], read: Mapping[str, Any], *, force: bool) -> None:
    """Whether no file that is written is one that is read, or another one that is written.

    Args:
        source: the model; only a path can be written over.
        written: paths by what they are called; None for what is not written.
        read: values of options, likewise: a path, a folder, a `script.py:function`, several of them, or something
            else.
        force: whether what is read may be replaced, once it has been.  The model itself is replaced by the output
            only, in one step, and its weights by nothing.

    Raises:
        UsageError: one would overwrite the other.
    """
    targets = {name: as_path(path, name) for name, path in written.items() if path is not None}
    for (one, first), (other, second) in combinations(targets.items(), 2):
        if same(first, second):
            raise UsageError(f"{other} would overwrite {one}, {quoted(str(first))}; choose another name")
    model = Path(source) if isinstance(source, (str, os.PathLike)) else None
    weights = data_files(model) if model else ()
    for name, target in targets.items():
        if model and same(model, target) and not (name == out() and force):
            hint = ", or replace it with --force" if name == out() else ""
            raise UsageError(
                f"{name} would overwrite the input itself, {quoted(str(target))}; choose another name{hint}"
            )
        if any(same(file, target) for file in weights):
            raise UsageError(
                f"{name} would overwrite the weights of the input, {quoted(str(target))}; choose another name"
            )
        for what, path in () if force else _files(read):
            if same(path, target) or _holds(path, target):
                raise UsageError(
                    f"{name} would overwrite {quoted(str(target))}, which {what} reads; choose another name, or "
                    "replace it with --force"
                )


def out() -> str:
    """What the output is called, by the command line or by Python."""
    return "OUT.onnx" if COMMAND_LINE.get() else "output"


def as_path(given: Any, name: str) -> Path:
    """A path that an argument gives.  Raises UsageError, with the argument's name, where it is none."""
    if isinstance(given, (str, os.PathLike)):
        return Path(given)
    raise UsageError(f"{name} wants a path, not {given!r}")


def same(one: Path, two: Path) -> bool:
    """Whether two paths mean the same file, there or to be."""
    try:
        return os.path.samefile(one, two)
    except (OSError, ValueError):
        return _real(one) == _real(two)


def _files(read: Mapping[str, Any]) -> Iterable[tuple[str, Path]]:
    """The files and folders among the values of options; a name of something else is no file that is there."""
    for name, value in read.items():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, (str, os.PathLike)):
                yield name, split_script(str(one), "")[0]


def _holds(folder: Path, target: Path) -> bool:
    """Whether a file that is there lies in a folder, however deep."""
    try:
        return folder.is_dir() and target.exists() and Path(_real(target)).is_relative_to(_real(folder))
    except (OSError, ValueError):
        return False


def _real(path: Path) -> str:
    try:
        return os.path.normcase(os.path.realpath(path))
    except (OSError, ValueError):  # a name that no file can have
        return str(path)
