"""Layers as comma-separated values, for spreadsheets."""

import csv
import io
from collections.abc import Sequence

from onnxprune.report.layers import LayerRow
from onnxprune.report.words import clean

FORMULAS = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of one, in a stranger's names too
COUNTS = tuple(f"{what}{left}" for what in ("channels", "MACs", "parameters") for left in ("", " left"))


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
