"""Reports and plans as files: checked before the work begins, written whole or not at all."""

import csv
import errno
import io
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from onnxprune.errors import FileError, UsageError
from onnxprune.model.atomic import reported, temporary
from onnxprune.model.tensors import quoted
from onnxprune.model.write import DATA_FILE
from onnxprune.report.html import html, inspection_html
from onnxprune.report.inspection import Inspection
from onnxprune.report.jsonable import dumps
from onnxprune.report.summary import LayerRow, Report
from onnxprune.report.words import clean

FORMULAS = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of one, in a stranger's names too
COUNTS = tuple(f"{what}{left}" for what in ("channels", "MACs", "parameters") for left in ("", " left"))
ENDINGS = (".html", ".htm", ".json", ".csv")  # of the formats of a report


def check_target(path: str, endings: Collection[str] | None, option: str) -> None:
    """Whether a file can be written there.

    Raises:
        UsageError: the ending says nothing of the format, or the name is one that stands for something else.
        FileError: there is a directory, no directory to write to, or no permission.
    """
    target = Path(path)
    if path == "-":
        raise UsageError(f"{option} is a file, and '-' is none (./- is); standard output is not supported")
    if DATA_FILE.fullmatch(target.name):
        raise UsageError(f"{option} has a name that files of weights have, {quoted(path)}; choose another one")
    if endings and target.suffix.lower() not in endings:
        wanted = ", ".join(e for e in sorted(endings) if e != ".htm")
        raise UsageError(f"{option} has the format that its name ends with, one of {wanted}; not {quoted(path)}")
    if "\0" in path:
        raise FileError(f"cannot write {quoted(path)}: a path has no null bytes")
    with reported(target):
        if target.is_dir():
            raise FileError(f"cannot write {quoted(path)}: it is a directory; name a file in it")
        if target.is_block_device():
            raise FileError(f"cannot write {quoted(path)}: it is a disk; name a file")
        folder = target.absolute().parent
        if not folder.is_dir():
            raise FileError(f"cannot write {quoted(path)}: there is no directory {quoted(str(folder))}")
        if not os.access(target if target.exists() else folder, os.W_OK):
            raise FileError(f"cannot write {quoted(path)}: no permission")


def write(path: str, text: str) -> None:
    """Put a text file in place in one step; a device or a pipe is written as it is.  Raises FileError."""
    target, data = Path(path).absolute(), text.encode("utf-8", "backslashreplace")
    with reported(target):
        if target.exists() and not target.is_file():
            _send(target, data)
            return
        target = target.resolve()
    with temporary(target) as made:
        made.write([data])
        made.publish(target)


def _send(target: Path, data: bytes) -> None:
    """Write to a device, or to a pipe that somebody reads.  Raises OSError, where nobody does as well."""
    try:
        descriptor = os.open(target, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a reader: no waiting
    except OSError as error:
        raise OSError(error.errno, "nobody reads it") if error.errno == errno.ENXIO else error from None
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        if hasattr(os, "set_blocking"):
            os.set_blocking(descriptor, True)
        view = memoryview(data)
        while len(view):
            view = view[stream.write(view) or 0 :]


def write_report(path: str, report: Report | Inspection) -> None:
    """The report in the format that the ending of the name says; as .csv its layers.  Raises FileError."""
    ending = Path(path).suffix.lower()
    if ending == ".csv":
        write(path, csv_text(report.layers))
    elif ending == ".json":
        write(path, dumps(report.to_json()) + "\n")
    else:
        write(path, html(report) if isinstance(report, Report) else inspection_html(report))


def csv_text(rows: Sequence[LayerRow]) -> str:
    """The layers as comma-separated values (RFC 4180), a line each under a line of headings."""
    stream = io.StringIO()
    table = csv.writer(stream)
    table.writerow(["layer", "operator", "groups", *COUNTS])
    for r in rows:
        names = (r.name, r.operator, " ".join(r.groups))
        counts = (r.channels, r.kept, r.macs, r.macs_left, r.params, r.params_left)
        table.writerow([*map(_cell, names), *("" if n is None else n for n in counts)])
    return stream.getvalue()


def _cell(text: str) -> str:
    shown = clean(text)
    return f"'{shown}" if shown.startswith(FORMULAS) else shown
