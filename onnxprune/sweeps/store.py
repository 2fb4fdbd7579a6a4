"""Results in a folder, a file each under its key: there and whole, or not there.

A model comes before the result that names it, and each appears in one step (`model.atomic`): whenever a sweep is
killed, what is there is whole.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from onnxprune.errors import FileError
from onnxprune.model.atomic import reported
from onnxprune.report.files import write
from onnxprune.report.jsonable import dumps
from onnxprune.report.tradeoff import Row

MODELS, RESULTS, TIMES = "models", "results", "latency"


def digest(path: Path) -> str | None:
    """Sha256 of a file; None where it cannot be read."""
    with suppress(OSError), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    return None


class Store:
    """The results of sweeps in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        """Make the folders.  Raises FileError."""
        if self.folder.exists() and not self.folder.is_dir():
            raise FileError(f"{str(self.folder)!r} is a file; the last word of a sweep is the folder for its results")
        with reported(self.folder):
            for name in (MODELS, RESULTS, TIMES):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise FileError(f"cannot write to {str(self.folder)!r}: no permission")

    def whole(self, key: str) -> bool:
        """Whether there is a result, no error, and its model, with the weights outside of it, is what it names."""
        row = self.row(key)
        if row is None or row.error or row.model is None:
            return False
        model = self.folder / row.model
        wanted = {model: row.sha256} | {model.with_name(name): sha for name, sha in (row.data_sha256 or {}).items()}
        return all(digest(path) == sha256 for path, sha256 in wanted.items())

    def get(self, key: str, kind: str = RESULTS) -> dict[str, Any] | None:
        """What is kept under a key; None where there is nothing, or nothing that can be read."""
        try:
            found = json.loads(self._path(key, kind).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, value: Mapping[str, Any], kind: str = RESULTS) -> None:
        """Keep it, in one step.  Raises FileError."""
        write(str(self._path(key, kind)), dumps(value) + "\n")

    def row(self, key: str) -> Row | None:
        """The result under a key, as a row."""
        stored = self.get(key)
        try:
            return None if stored is None else Row.of(stored)
        except TypeError:  # of a version to come, or no result at all
            return None

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / kind / f"{key}.json"
