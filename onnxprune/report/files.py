"""Reports and plans as files: checked before the work begins, written whole or not at all."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from onnxprune.errors import FileError, UsageError
from onnxprune.model.atomic import temporary
from onnxprune.model.tensors import quoted
from onnxprune.report.html import html
from onnxprune.report.jsonable import dumps
from onnxprune.report.summary import Report


def check_target(path: str, endings: Collection[str] | None, option: str) -> None:
    """Whether a file can be written there.

    Raises:
        UsageError: the ending says nothing of the format.
        FileError: there is a directory, no directory to write to, or no permission.
    """
    target = Path(path)
    if endings and target.suffix.lower() not in endings:
        raise UsageError(f"{option} writes JSON or HTML: the name ends with .json or .html, not {quoted(path)}")
    if "\0" in path:
        raise FileError(f"cannot write {quoted(path)}: a path has no null bytes")
    if target.is_dir():
        raise FileError(f"cannot write {quoted(path)}: it is a directory; name a file in it")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise FileError(f"cannot write {quoted(path)}: there is no directory {quoted(str(folder))}")
    if not os.access(target if target.exists() else folder, os.W_OK):
        raise FileError(f"cannot write {quoted(path)}: no permission")


def same(one: str, two: str) -> bool:
    """Whether two paths mean the same file, there or to be."""
    try:
        return os.path.samefile(one, two)
    except OSError:
        return Path(one).absolute() == Path(two).absolute()


def write(path: str, text: str) -> None:
    """Put a text file in place in one step; a device or a pipe is written as it is.  Raises FileError."""
    target = Path(path).absolute()
    if target.exists() and not target.is_file():
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise FileError(f"cannot write {quoted(path)}: {error.strerror or error}") from None
        return
    with temporary(target.resolve()) as made:
        made.write([text.encode("utf-8", "backslashreplace")])
        made.publish(made.target)


def write_report(path: str, report: Report) -> None:
    """The report in the format that the ending of the name says.  Raises FileError."""
    make = html if Path(path).suffix.lower() in (".html", ".htm") else _json
    write(path, make(report))


def _json(report: Report) -> str:
    return dumps(report.to_json()) + "\n"


def plan_text(plan: dict[str, Any]) -> str:
    """A plan as it is stored."""
    return json.dumps(plan, indent=1) + "\n"
