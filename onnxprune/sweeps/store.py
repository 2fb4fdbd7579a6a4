"""Results in a folder, a file each under its key: there and whole, or not there.

The key is a digest of all that decides a result, so that nothing is done twice and nothing is stale.  A model comes
before the result that names it, and each appears in one step (`model.atomic`): whenever a sweep is killed, what is
there is whole.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import FileError, UsageError
from onnxprune.model.atomic import reported
from onnxprune.model.references import data_files
from onnxprune.pipeline.request import Request
from onnxprune.report.files import write
from onnxprune.report.jsonable import dumps
from onnxprune.report.tradeoff import Row
from onnxprune.runtime.doctor import installed_versions
from onnxprune.runtime.script import split_script

MODELS, RESULTS, TIMES = "models", "results", "latency"
SCHEMA = 1  # of a stored result
READ = ("data", "test_data", "train_data", "metric")  # options that name files


def key_of(source: Path, options: Mapping[str, Any]) -> str:
    """Sha256 of the network, the data, the options and the versions that decide the outcome.

    Raises:
        FileError: a file cannot be read.
        UsageError: data that has no digest, such as a generator.
    """
    request = Request.of(options)
    decides = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in READ}
    read = {name: _content(getattr(request, name), name) for name in READ}
    made = {
        n: v for n, v in installed_versions().items() if n != "blas"
    }  # what of that is loaded hangs on what was done before
    told = {"schema": SCHEMA, "network": _network(source), "versions": made, "read": read}
    return _digest(json.dumps({**told, "options": decides}, sort_keys=True, default=_plain).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, os.PathLike) else repr(value)


def _network(path: Path) -> list[str]:
    """Digests of the file and of those that hold its weights."""
    return [_file(path, path.stat().st_mtime_ns), *(_file(p, p.stat().st_mtime_ns) for p in data_files(path))]


@lru_cache
def _file(path: Path, changed: int) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _content(value: Any, name: str) -> Any:
    """A digest of samples, of the file or folder that holds them, or of the script that gives them."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, np.ndarray):
        return _digest(repr((value.dtype.str, value.shape)).encode() + np.ascontiguousarray(value).tobytes())
    if isinstance(value, Mapping):
        return {str(k): _content(v, name) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_content(v, name) for v in value]
    if not isinstance(value, (str, os.PathLike)):
        kind = type(value).__name__
        raise UsageError(f"{name} of a sweep is a file, a folder or arrays, which can be digested, and no {kind}")
    path, function = split_script(str(value), "")
    inside = _files(path)
    return [function, *inside] if inside else str(value)


def _files(path: Path) -> list[str]:
    if not path.is_dir():
        return [_file(path, path.stat().st_mtime_ns)] if path.is_file() else []
    inside = sorted(p for p in path.rglob("*") if p.is_file())
    return [f"{p.relative_to(path)} {_file(p, p.stat().st_mtime_ns)}" for p in inside]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
