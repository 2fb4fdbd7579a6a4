"""Files of arrays, read as streams of rows: npz, npy, folders of them, protobuf sets, JSON; nothing is unpickled."""

import base64
import contextlib
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import FileError, OnnxPruneError, UsageError
from onnxprune.runtime.script import blaming
from onnxprune.runtime.specs import Spec, fits

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Header:
    """Shape and type of an array that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class FileReader:
    """A source of samples.

    `headers` are known beforehand where the form permits, `count` likewise. `chunks(rows, step)` gives dicts of
    arrays with the samples on their first axis, at most `step` of them at a time; `rows` are the positions to
    give, ascending, or None for all. `whole` says that each dict is a feed of its own, of whatever size. `folders` is
    the number of folders whose ranks are the labels.
    """

    origin: str
    chunks: Callable[[np.ndarray | None, int], Iterator[Arrays]]
    headers: dict[str, Header] | None = None
    count: int | None = None
    whole: bool = False
    image: bool = False
    folders: int = 0


def row_count(headers: dict[str, Header], origin: str) -> int:
    """The number of samples: the longest first axis. Shorter arrays may be the same for all samples."""
    counts = [h.shape[0] for h in headers.values() if h.shape]
    if not counts or not max(counts):
        raise UsageError(f"{origin} holds no samples: the first axis of an array counts them")
    return max(counts)


def portions(count: int, rows: np.ndarray | None, step: int) -> Iterator[np.ndarray]:
    """Positions of the samples at `rows`, of all `count` where that is None, at most `step` at a time."""
    if rows is None:
        return (np.arange(begin, min(begin + step, count)) for begin in range(0, count, step))
    return (rows[begin : begin + step] for begin in range(0, len(rows), step))


def _refuse_objects(dtype: np.dtype, name: str, origin: str) -> None:
    if dtype.hasobject:
        raise UsageError(f"'{name}' in {origin} holds Python objects, which could run code; save plain arrays")
    if dtype.fields:
        raise UsageError(f"'{name}' in {origin} holds records; save plain arrays")


def read_npy(path: Path) -> FileReader:
    """One array, mapped into memory rather than read; its key is the file's name without `.npy`."""
    with _readable(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    _refuse_objects(array.dtype, path.stem, str(path))
    headers = {path.stem: Header(array.shape, array.dtype)}
    count = row_count(headers, str(path))

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        return ({path.stem: np.array(array[picks])} for picks in portions(count, rows, step))

    return FileReader(str(path), chunks, headers, count)


def read_npz(path: Path, states: Sequence[Spec] = ()) -> FileReader:
    """The arrays of an npz, each decompressed as it is needed; those that are one of the `states` count no samples."""
    with _readable(path), zipfile.ZipFile(path) as archive:
        headers = {}
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as stream:
                    header, _ = _npy_header(stream)
                _refuse_objects(header.dtype, member.removesuffix(".npy"), str(path))
                headers[member.removesuffix(".npy")] = header
    whole = {s.name for s in states if s.name in headers and fits(headers[s.name].shape, s)}
    count = row_count({n: h for n, h in headers.items() if n not in whole}, str(path))

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        with _readable(path), zipfile.ZipFile(path) as archive, contextlib.ExitStack() as stack:
            streams = {n: stack.enter_context(archive.open(f"{n}.npy")) for n in headers}
            parts = {n: _rows(s, n, str(path), count, rows, step, n in whole) for n, s in streams.items()}
            while True:
                chunk = {n: next(p, None) for n, p in parts.items()}
                if any(a is None for a in chunk.values()):
                    return
                yield {n: a for n, a in chunk.items() if a is not None}

    return FileReader(str(path), chunks, headers, count)


def _npy_header(stream: Any) -> tuple[Header, bool]:
    """The header at the head of an npy stream, and whether the array is in Fortran order."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return Header(tuple(shape), dtype), fortran and len(shape) > 1


def _rows(
    stream: Any, name: str, origin: str, count: int, rows: np.ndarray | None, step: int, whole: bool
) -> Iterator[np.ndarray]:
    """`step` of the wanted rows at a time from an npy stream; an array that has not `count` rows comes whole, too."""
    header, fortran = _npy_header(stream)
    whole = whole or header.shape[:1] != (count,)
    if whole or fortran:
        array = _take(stream, header, (), name, origin)
        array = array.reshape(header.shape[::-1]).T if fortran else array
        yield from (array if whole else np.ascontiguousarray(array[picks]) for picks in portions(count, rows, step))
        return
    at = 0
    for picks in portions(count, rows, step):
        found = np.empty((len(picks), *header.shape[1:]), header.dtype)
        for first, last in _runs(picks):
            _skip(stream, header, first - at)
            offset = int(np.searchsorted(picks, first))
            found[offset : offset + last - first] = _take(stream, header, (last - first,), name, origin)
            at = last
        yield found


def _runs(picks: np.ndarray) -> list[tuple[int, int]]:
    """Ascending positions as half-open runs of neighbours."""
    cuts = [0, *(np.flatnonzero(np.diff(picks) != 1) + 1).tolist(), len(picks)]
    return [(int(picks[a]), int(picks[b - 1]) + 1) for a, b in pairwise(cuts) if b > a]


def _skip(stream: Any, header: Header, rows: int) -> None:
    left = rows * math.prod(header.shape[1:]) * header.dtype.itemsize
    while left > 0:
        read = len(stream.read(min(left, 1 << 20)))
        if not read:
            return  # the next `_take` reports the end
        left -= read


def _take(stream: Any, header: Header, rows: tuple[int, ...], name: str, origin: str) -> np.ndarray:
    """Read that many rows (the whole array for none), in C order."""
    shape = (*rows, *header.shape[1:]) if rows else header.shape
    size = math.prod(shape) * header.dtype.itemsize
    data = stream.read(size)
    if len(data) < size:
        raise FileError(f"{origin} is cut off inside '{name}'; get it again")
    return np.frombuffer(data, header.dtype).reshape(shape)


def read_folder(paths: Sequence[Path], states: Sequence[Spec] = ()) -> FileReader:
    """Several npz or npy files with the same keys, one after the other; for `states` see `read_npz`."""
    readers = [read_npz(p, states) if p.suffix == ".npz" else read_npy(p) for p in paths]
    keys = [_keys(r) for r in readers]
    for path, have in zip(paths, keys, strict=True):
        if have != keys[0]:
            raise UsageError(f"{path} holds {sorted(have)}, but {paths[0]} holds {sorted(keys[0])}")
    counts = [r.count or 0 for r in readers]
    starts = np.cumsum([0, *counts])

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        for reader, start, end in zip(readers, starts, starts[1:], strict=False):
            picks = None if rows is None else rows[(rows >= start) & (rows < end)] - start
            if picks is None or len(picks):
                for chunk in reader.chunks(picks, step):
                    yield _renamed(chunk, reader)

    headers = {("" if _single(readers[0]) else n): h for n, h in (readers[0].headers or {}).items()}
    return FileReader(str(paths[0].parent), chunks, headers, int(starts[-1]))


def _single(reader: FileReader) -> bool:
    """Whether the file is an npy, whose key is its own name."""
    return reader.origin.endswith(".npy")


def _keys(reader: FileReader) -> set[str]:
    return {""} if _single(reader) else set(reader.headers or ())


def _renamed(chunk: Arrays, reader: FileReader) -> Arrays:
    return {"": next(iter(chunk.values()))} if _single(reader) else chunk


def read_protobufs(folders: Sequence[Path], names: Sequence[str]) -> FileReader:
    """`input_*.pb` sets as the ONNX backend tests have them: one feed per folder, inputs by name or by number."""

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        for i in range(len(folders)) if rows is None else rows:
            files = sorted(folders[i].glob("input_*.pb"), key=_number)
            yield dict(_tensor(f, names) for f in files)

    return FileReader(str(folders[0]), chunks, None, len(folders), whole=True)


def _number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0


def _tensor(path: Path, names: Sequence[str]) -> tuple[str, np.ndarray]:
    tensor = onnx.TensorProto()
    with _readable(path):
        data = path.read_bytes()
    try:
        tensor.ParseFromString(data)
        array = numpy_helper.to_array(tensor)
    except Exception as error:  # DecodeError, or what to_array raises for a message that is something else
        raise UsageError(f"{path} holds no tensor: {error}") from error
    index = _number(path)
    if tensor.name not in names and index >= len(names):
        raise UsageError(f"{path} is input {index}, but the model has {len(names)}: {', '.join(names)}")
    return (tensor.name if tensor.name in names else names[index]), array


def read_json(path: Path) -> FileReader:
    """Feeds as polygraphy saves them (`--save-inputs`): a list of dicts of base64 npy, one dict per run."""
    with _readable(path):
        text = path.read_text()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    feeds = content if isinstance(content, list) else [content]
    if not feeds or not all(isinstance(f, dict) and f for f in feeds):
        raise UsageError(f"{path} is no list of inputs as `polygraphy run --save-inputs` writes it")

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        for i in range(len(feeds)) if rows is None else rows:
            yield {n: _decoded(v, n, path) for n, v in feeds[i].items() if n != "polygraphy_class"}

    return FileReader(str(path), chunks, None, len(feeds), whole=True)


def _decoded(value: Any, name: str, path: Path) -> np.ndarray:
    """One array of a polygraphy JSON file: base64 of an npy, or plain nested lists."""
    encoded = value.get("array") if isinstance(value, dict) else None
    try:
        if isinstance(encoded, str):
            return np.load(io.BytesIO(base64.b64decode(encoded, validate=True)), allow_pickle=False)
        if isinstance(value, (list, int, float)):
            return np.asarray(value)
    except Exception as error:  # what numpy's reader raises
        raise UsageError(f"'{name}' in {path} cannot be decoded: {error}") from error
    raise UsageError(f"'{name}' in {path} is no array")


def read_feeds(make: Callable[[], Iterable[Any]], origin: str) -> FileReader:
    """Feeds that Python code gives: dicts of arrays by input name."""

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        wanted = None if rows is None else set(rows.tolist())
        for i, feed in enumerate(make()):
            if not isinstance(feed, dict):
                raise UsageError(
                    f"{origin} gives {type(feed).__name__}; arrays, pairs of them with labels, or dicts of arrays by "
                    "input name are needed"
                )
            if wanted is None or i in wanted:
                with blaming(origin):
                    arrays = {str(n): np.asarray(a) for n, a in feed.items()}
                yield arrays

    return FileReader(origin, chunks, None, None, whole=True)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file into one line."""
    try:
        yield
    except (OnnxPruneError, MemoryError):
        raise
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # numpy hands on what tokenizers, parsers, struct, zlib and zipfile raise
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise UsageError(f"{path} holds Python objects, which could run code; save plain arrays") from error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} cannot be read as numpy data: {first}") from error
