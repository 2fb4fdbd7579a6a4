"""External data: weights that a model keeps in other files, read without letting the model choose which.

A model is untrusted input and names files by itself.  Only regular files inside the directory of the model are read, or
inside the directory that it really lies in if it is a symbolic link; the latter is how the Hugging Face cache stores
model and data.  Containment is decided on resolved paths before anything is read, and against an absolute directory.
CVE-2022-25882, CVE-2024-27318, CVE-2026-34446 and CVE-2026-34447 are what happens otherwise.
https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from onnx import ModelProto, TensorProto

from onnxprune.errors import FileError, ModelError
from onnxprune.model.tensors import held, is_external, label, nbytes, quoted

THRESHOLD = 1024  # bytes; onnx's own default of what is worth being kept outside
REPEATS = 16  # how often the bytes of a data file may be used, since each use takes memory

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True)
class ExternalStyle:
    """How a user stores external data, so that a result can be stored likewise.

    Args:
        threshold: tensors of at least this many bytes are kept outside.
        attributes: whether tensors in attributes of nodes are, too.
        files: the data files that were read, absolute.
    """

    threshold: int = THRESHOLD
    attributes: bool = False
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Range:
    """Where the elements of one tensor lie: bytes `offset` to `offset + length` of the file `location`."""

    tensor: TensorProto
    location: str
    offset: int
    length: int


def fetch(model: ModelProto, path: Path | None) -> tuple[ExternalStyle | None, str, int]:
    """Put all external data into the tensors of a model, which then no longer refers to any file.

    Args:
        model: changed.
        path: of the model; None for one that came without a file.

    Returns:
        The style (None if nothing was external), the sha256 of the elements, and the bytes of the data files.

    Raises:
        ModelError: a file is missing, lies elsewhere, or is too short; or an entry makes no sense.
        FileError: the file system does not let a file be read.
    """
    found = sorted(((t, within) for t, within in held(model) if is_external(t)), key=itemgetter(1))  # attributes last
    ranges = [Range(t, *_entry(t)) for t, _ in found]
    if not ranges:
        return None, "", 0
    if path is None:
        raise ModelError(
            f"the model keeps {label(ranges[0].tensor)} in another file, {quoted(ranges[0].location)}; "
            "give the path of the model, so that it can be found"
        )
    by_file: dict[Path, list[Range]] = {}
    for one in ranges:
        by_file.setdefault(resolve(one.location, path), []).append(one)
    sizes = {file: _size(file, within[0].location) for file, within in by_file.items()}
    wanted, available = sum(r.length for r in ranges), sum(sizes.values())
    if wanted > REPEATS * available:  # ranges of a small file that overlap so often that they would fill the memory
        raise ModelError(f"the model asks for {wanted} bytes of external data, and its data files hold {available}")
    digest = hashlib.sha256()
    for file, within in by_file.items():
        with opened(file, within[0].location) as stream:
            for one in within:
                digest.update(_read(one, stream))
    style = ExternalStyle(max(1, min(r.length for r in ranges)), found[-1][1], tuple(sizes))
    return style, digest.hexdigest(), available


def _entry(tensor: TensorProto) -> tuple[str, int, int]:
    """File, offset and length of a tensor, agreed with its dims before anything is opened."""
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if not location or not isinstance(location, str):  # protobuf gives bytes where text is not UTF-8
        raise ModelError(f"{label(tensor)} is stored outside the model and does not say where")
    numbers = {key: entries[key] for key in ("offset", "length") if key in entries}
    for key, text in numbers.items():
        if not isinstance(text, str) or not _NUMBER.fullmatch(text):
            raise ModelError(f"{label(tensor)} has an impossible {key} in its external data: {quoted(text)}")
    length = nbytes(tensor)
    if int(numbers.get("length", length)) != length:
        raise ModelError(f"{label(tensor)} has {numbers['length']} bytes of external data; its dims ask for {length}")
    return location, int(numbers.get("offset", 0)), length


def refused(location: str, why: str) -> ModelError:
    return ModelError(f"external data at {quoted(location)} is refused: {why}")


def resolve(location: str, path: Path) -> Path:
    """The real path of a data file that may be read for the model at `path`.

    Raises:
        ModelError: the location leads out of the directory, or there is no such file.
    """
    windows = PureWindowsPath(location)  # knows both separators, drives and UNC paths
    absolute = windows.root or (windows.drive and os.name == "nt")  # elsewhere "a:0" is a plain name
    if "\0" in location or absolute or ".." in windows.parts:
        raise refused(location, "only files in the directory of the model are read")
    homes = dict.fromkeys((path.absolute().parent, Path(os.path.realpath(path)).parent))
    allowed = [os.path.realpath(home) for home in homes]
    for home in homes:
        if os.path.lexists(home / location):
            real = Path(os.path.realpath(home / location))
            if not any(real.is_relative_to(directory) for directory in allowed):
                raise refused(location, "the link leads out of the directory of the model")
            return real
    raise ModelError(
        f"the weights are missing: the model keeps them in {quoted(location)}, which is not in "
        f"{quoted(str(next(iter(homes))))}; put that file beside the model"
    )


def _size(file: Path, location: str) -> int:
    with opened(file, location) as stream:
        return os.fstat(stream.fileno()).st_size


@contextmanager
def opened(file: Path, location: str) -> Iterator[BinaryIO]:
    """A data file, opened without following a link and without waiting for a pipe.

    Raises:
        ModelError: it is no regular file, or has a second name somewhere else.
        FileError: it cannot be opened or read.
    """
    try:
        found = open_regular(file, getattr(os, "O_NOFOLLOW", 0))
        if found is None:
            raise refused(location, "it is not a regular file")
        with found as stream:
            if os.fstat(stream.fileno()).st_nlink > 1:
                raise refused(location, "it is a hard link to a file that may lie anywhere; replace it by a copy")
            yield stream
    except OSError as error:
        raise FileError(f"cannot read external data at {quoted(location)}: {error.strerror}") from error


def open_regular(path: Path, flags: int = 0) -> BinaryIO | None:
    """A file opened for reading; None if it is a directory, a device or a pipe, for whose writer nobody waits."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def _read(found: Range, stream: BinaryIO) -> bytes:
    """Move the elements of one tensor from its file into the model."""
    size = os.fstat(stream.fileno()).st_size
    if found.offset + found.length > size:
        raise ModelError(
            f"{label(found.tensor)} lies at bytes {found.offset} to {found.offset + found.length} of "
            f"{quoted(found.location)}, which has {size}: the data file is cut short or belongs to another model"
        )
    stream.seek(found.offset)
    raw = stream.read(found.length)
    if len(raw) != found.length:
        raise FileError(f"external data at {quoted(found.location)} became shorter while it was read; run again")
    found.tensor.raw_data = raw
    found.tensor.ClearField("external_data")
    found.tensor.ClearField("data_location")
    return raw
