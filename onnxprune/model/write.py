"""Writing a model so that the output is whole or untouched: temporary, check, one rename.

External data goes first, into a file that is named after its content: models that are already there keep their own
data, the switch from the old model to the new one is the one rename of the model file, and the same weights always get
the same name, so that equal results are equal bytes whatever they are called.  Models with equal weights share that
file: it is removed only by the run that first put it there, if that fails and nobody has put it there again since.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, StringStringEntryProto, TensorProto

from onnxprune.errors import FileError, Incomplete, ModelError, UsageError
from onnxprune.model.atomic import (
    Temporary,
    check_space,
    ending_cleanly,
    locked,
    reported,
    sweep,
    sync_directory,
    temporary,
)
from onnxprune.model.encode import LARGE, Piece, TensorData, chunks, encode, inline, length
from onnxprune.model.external import THRESHOLD, ExternalStyle, open_regular
from onnxprune.model.network import Network
from onnxprune.model.references import data_files
from onnxprune.model.tensors import quoted

LIMIT = (1 << 31) - 1  # bytes of a protobuf message
DATA_FILE = re.compile(r"weights-[0-9a-f]{32}\.data")
LONG, PAGE, SHORT = 1 << 20, 64 << 10, 64  # tensors from 1 MiB on start where every system can map a file into memory
STUB = 160  # bytes at most that stand for elements outside: three keys, the name of the file, two numbers


@dataclass(frozen=True)
class SavedFile:
    """A model that was put in place.

    Args:
        path: of the model, absolute.
        sha256: of the bytes of the model file; with external data, they name that by its own hash.
        size: bytes of the model and its data file.
        data: the file with the external data, if any.
        unused: data files of the model that stood there before, which the new one does not use; they are left alone,
            since other models may share them.
    """

    path: Path
    sha256: str
    size: int
    data: Path | None = None
    unused: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Outside:
    """TensorData that go into the data file, and where they start in it."""

    elements: tuple[TensorData, ...]
    offsets: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.offsets[-1] + self.elements[-1].length if self.elements else 0

    def pieces(self) -> Iterator[Piece]:
        """The content of the data file."""
        at = 0
        for found, offset in zip(self.elements, self.offsets, strict=True):
            yield bytes(offset - at)
            yield found
            at = offset + found.length


def save(
    model: ModelProto | Network,
    path: str | os.PathLike[str],
    *,
    style: ExternalStyle | None = None,
    check: Callable[[Path], None] = lambda _: None,
    force: bool = False,
    source: Path | None = None,
) -> SavedFile:
    """Write a model, atomically and reproducibly.

    Args:
        model: complete, all weights inside.  Not changed.
        path: of the output; an existing regular file is replaced, and its permissions are kept.
        style: how to store weights outside; None keeps them inside.  A model over 2 GiB is always stored outside.
        check: called with the path of the temporary model, its data in place; what it raises undoes the writing.
        force: replace even `source`, a write-protected file, or a symbolic link (the link; its target stays).
        source: the model that this one was made from.

    Raises:
        FileError: the file system refuses, or there is something else than a file.
        Incomplete: the model is in place, and the disk does not confirm it.
        UsageError: the output may be replaced with `force` only, or is the data of the input.
        ModelError: the model is too large for the ONNX format even with its weights outside.
    """
    target = Path(path).absolute()
    replaced = may_replace(target, force=force, source=source, weights=style.files if style else ())
    outside, skeleton = _layout(model, style)
    with ending_cleanly():
        before = data_files(target)
        sweep(target.parent)
        check_space(target, outside.size + skeleton)
        with temporary(target) as made, _data(outside, made, replaced) as data:
            _keep_permissions(made, replaced)
            digest, size = made.write(chunks(_pieces(model, outside, data)))
            check(made.path)
            made.publish(target)
            _confirm(target)
    unused = tuple(f for f in before if not data or f != data.resolve())
    return SavedFile(target, digest, size + outside.size, data, unused)


def size_of(model: ModelProto | Network, style: ExternalStyle | None = None) -> int:
    """Bytes of the file, and of its data file, that `save` would write: at most so many."""
    outside, rest = _layout(model, style)
    return outside.size + rest


def may_replace(target: Path, *, force: bool, source: Path | None, weights: Sequence[Path]) -> os.stat_result | None:
    """Status of what is at the target and will be replaced; None if nothing is there.

    Raises UsageError and FileError where a model cannot be written there.
    """
    name = quoted(str(target))
    if "\0" in str(target):
        raise FileError(f"cannot write {name}: a path has no null bytes")
    if DATA_FILE.fullmatch(target.name):
        raise UsageError(f"{name} is a name that files of weights have; choose another name for the output")
    with reported(target):
        if not target.parent.is_dir():
            raise FileError(f"cannot write {name}: there is no directory {quoted(str(target.parent))}")
        try:
            status = os.lstat(target)
        except FileNotFoundError:
            return None
    if source and source.exists():
        own = [file for file in (*weights, *data_files(source)) if file.exists()]
        if target.exists() and any(os.path.samefile(target, file) for file in own):
            raise UsageError(f"{name} holds the weights of the input; choose another name for the output")
        if not force and target.exists() and os.path.samefile(target, source):
            raise UsageError(f"{name} is the input itself; choose another name, or replace it with --force")
    if stat.S_ISLNK(status.st_mode):
        if not force:
            link = quoted(os.readlink(target))
            raise UsageError(f"{name} is a link to {link}; name that file itself, or replace the link with --force")
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory; name a file in it" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise FileError(f"cannot write {name}: it is {kind}")
    if not force and not status.st_mode & 0o222:
        raise UsageError(f"{name} is write-protected; choose another name, or replace it with --force")
    return status


def _layout(model: ModelProto | Network, style: ExternalStyle | None) -> tuple[_Outside, int]:
    """What goes into the data file, and the size of the rest, estimated from above."""
    size = length(encode(model))
    if style is None and size <= LIMIT:
        return _Outside((), ()), size
    style = style or ExternalStyle()
    for threshold, everywhere in ((style.threshold, style.attributes), (THRESHOLD, False), (THRESHOLD, True)):
        outside = _select(model, threshold, attributes=everywhere)
        rest = size - sum(e.length for e in outside) + STUB * len(outside)
        if rest <= LIMIT:
            break
    else:
        raise ModelError("the model is over 2 GiB without its weights, which the ONNX format cannot store")
    offsets, at = [], 0
    for found in outside:
        step = PAGE if found.length >= LONG else SHORT
        at += -at % step
        offsets.append(at)
        at += found.length
    return _Outside(tuple(outside), tuple(offsets)), rest


def _select(model: ModelProto | Network, threshold: int, *, attributes: bool) -> list[TensorData]:
    """TensorData to be stored outside, in the order in which they are encoded."""
    chosen: list[TensorData] = []

    def place(found: TensorData) -> list[Piece]:
        if found.field == "raw_data" and found.length >= threshold and (attributes or found.holder == "initializer"):
            chosen.append(found)
        return []

    encode(model, place, min(threshold, LARGE))
    return chosen


def _pieces(model: ModelProto | Network, outside: _Outside, data: Path | None) -> list[Piece]:
    """The model file; tensors that are in the data file say where."""
    if data is None:
        return encode(model)
    waiting = list(zip(outside.elements, outside.offsets, strict=True))[::-1]  # encoding meets them in the same order

    def place(found: TensorData) -> list[Piece]:
        if not waiting or waiting[-1][0].tensor is not found.tensor:
            return inline(found)
        entries = {"location": data.name, "offset": str(waiting.pop()[1]), "length": str(found.length)}
        stub = TensorProto(data_location=TensorProto.EXTERNAL)
        stub.external_data.extend(StringStringEntryProto(key=k, value=v) for k, v in entries.items())
        return [stub.SerializeToString(deterministic=True)]

    pieces = encode(model, place, min(LARGE, *(e.length for e in outside.elements)))
    if waiting:
        raise AssertionError(f"{len(waiting)} tensors are in the data file and not in the model")
    return pieces


@contextmanager
def _data(outside: _Outside, model: Temporary, replaced: os.stat_result | None) -> Iterator[Path | None]:
    """The data file in place under a name made from its content; removed again unless the model is published."""
    if not outside.elements:
        yield None
        return
    with temporary(model.target) as made:
        digest, _ = made.write(chunks(outside.pieces()))
        final = model.target.parent / f"weights-{digest[:32]}.data"
        there = _same_data(final, digest)  # another model uses it, and it stays
        _keep_permissions(made, there or replaced)  # who may not read the model may not read its weights
        mine = False
        try:
            with reported(model.target):
                with locked(final.parent):
                    mine = not os.path.lexists(final)
                    made.publish(final)  # over equal data as well, so that whoever put that there does not remove it
                sync_directory(final.parent)  # before the model names the file
            yield final
        finally:
            if mine and not model.is_at(model.target):
                with suppress(OSError), locked(final.parent):
                    if made.is_at(final):
                        final.unlink()


def _same_data(path: Path, digest: str) -> os.stat_result | None:
    """Status of a data file of that name; None if there is none.  Raises FileError if it holds something else."""
    found, status = "", None
    with reported(path):
        try:
            if not os.path.lexists(path):
                return None
            opened = open_regular(path)
        except FileNotFoundError:  # the run that had put it there has failed meanwhile
            return None
        if opened is not None:
            with opened as stream:
                found, status = hashlib.file_digest(stream, "sha256").hexdigest(), os.fstat(stream.fileno())  # type: ignore[arg-type]
    if found != digest:
        raise FileError(f"{quoted(str(path))} holds something else than its name says; move it away, it may be needed")
    return status


def _confirm(target: Path) -> None:
    try:
        sync_directory(target.parent)
    except OSError as error:
        raise Incomplete(
            f"{quoted(str(target))} is in place and whole, but the disk does not confirm that it will stay: "
            f"{error.strerror}; its plan and report were not written"
        ) from error


def _keep_permissions(made: Temporary, before: os.stat_result | None) -> None:
    """Give a new file the owner and the permissions of the one that it replaces, as far as the system lets."""
    if before is None or not hasattr(os, "fchmod"):
        return
    with suppress(OSError):
        os.fchown(made.descriptor, before.st_uid, before.st_gid)
    with suppress(OSError):
        os.fchmod(made.descriptor, stat.S_IMODE(before.st_mode) & 0o777)
