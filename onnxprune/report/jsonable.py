"""JSON that every reader takes: no NaN, no infinity, no numpy."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def jsonable(value: Any) -> Any:
    """The value in JSON's own types; numbers that are not finite, for which JSON has no word, become null."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(v) for v in value]
    if hasattr(value, "tolist"):  # numpy's arrays and numbers, without loading numpy for those that come without
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value) if isinstance(value, Path) else repr(value)


def line(value: Any) -> str:
    """JSON text in one line of ASCII."""
    return json.dumps(jsonable(value), allow_nan=False)


def dumps(value: Any) -> str:
    """Indented JSON text in ASCII, so that it survives every pipe."""
    return json.dumps(jsonable(value), indent=2, allow_nan=False)
