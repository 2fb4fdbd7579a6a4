"""Reading a model: from a path, bytes, a ModelProto or a graphsurgeon graph to one checked, self-contained ModelProto.

Nothing is trusted: a file may be anything, name any other file, and announce any size.  After `load` every tensor is in
memory and as large as it says, names are unique, nodes are in order, and the versions are known.
"""

import hashlib
import io
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from onnx import ModelProto

from onnxprune.errors import FileError, ModelError, UsageError
from onnxprune.model import external, validate
from onnxprune.model.decode import decode
from onnxprune.model.encode import fingerprint
from onnxprune.model.external import ExternalStyle
from onnxprune.model.functions import check_calls
from onnxprune.model.graphs import opset_of
from onnxprune.model.network import Network
from onnxprune.model.skeleton import weightless
from onnxprune.model.sniff import AGAIN, HEAD, sniff
from onnxprune.model.sort import put_in_order
from onnxprune.model.tensors import quoted
from onnxprune.model.wire import Damaged


@dataclass(frozen=True, eq=False)
class Model:
    """A network as it was read.  Stages copy `proto` before they change anything.

    Args:
        proto: complete: all weights are inside, wherever the user keeps them.
        path: of the file, absolute; None for a model that came from memory.
        sha256: identifies the network: of the bytes of the file (what `sha256sum` prints), or of the deterministic
            encoding of a model from memory; with external data, of that hash followed by the data's.
        size: bytes on disk, external data included; of a model from memory, bytes when encoded.
        external: how the user keeps external data; None if everything is in one file.
        warnings: what was found and did not stop the reading, a line each.
        status: of the file when it was read.
    """

    proto: ModelProto = field(repr=False)
    path: Path | None
    sha256: str
    size: int
    external: ExternalStyle | None = None
    warnings: tuple[str, ...] = ()
    status: os.stat_result | None = field(default=None, repr=False)

    @cached_property
    def network(self) -> Network:
        """The same as a value that is changed into others, and shares its tensors with them."""
        return Network.of(self.proto)

    @property
    def opset(self) -> int:
        """Version of the default operator set; 0 if only other domains are used."""
        return opset_of(self.proto, 0)

    def release_weights(self) -> None:
        """Go on with the nodes alone, for all who hold this model, once its weights are in a file of their own."""
        object.__setattr__(self, "proto", weightless(self.proto))
        self.network.release_tensors()


def load(source: "str | os.PathLike[str] | bytes | ModelProto | Model | Any") -> Model:
    """Read and check a model.

    Args:
        source: path of an .onnx file, its bytes, a `ModelProto` or an `onnx_graphsurgeon.Graph`.  Never changed.  A
            model that was loaded before is returned as it is.

    Raises:
        ModelError: it is no valid ONNX model; the message says what it is instead.
        FileError: the file cannot be read.
        UsageError: `source` is something else.
    """
    try:
        return _load(source)
    except MemoryError as error:
        raise ModelError("the model does not fit into the memory of this machine") from error


def _load(source: Any) -> Model:
    if isinstance(source, Model):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _load_file(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        proto, digest, size = _parse(io.BytesIO(data), len(data), "the model")
        return _complete(proto, (digest, size), None, "the model")
    if isinstance(source, ModelProto):
        copy = ModelProto()
        copy.CopyFrom(source)
    elif type(source).__module__.partition(".")[0] == "onnx_graphsurgeon":
        import onnx_graphsurgeon  # only needed by those who have such a graph

        copy = onnx_graphsurgeon.export_onnx(source)
    else:
        raise UsageError(f"a model is a path, bytes, a ModelProto or a graphsurgeon Graph, not {type(source).__name__}")
    return _complete(copy, None, None, "the model")


def _load_file(given: Path) -> Model:
    name = quoted(str(given))
    if "\0" in str(given):
        raise FileError(f"cannot read {name}: a path has no null bytes")
    path = given.absolute()  # and not os.path.abspath, which cuts `link/..` short
    try:
        opened = external.open_regular(path)
        if opened is None:
            what = "a directory" if path.is_dir() else "not a regular file"
            raise FileError(f"{name} is {what}; give the path of an .onnx file")
        with opened as stream:
            before = os.fstat(stream.fileno())
            proto, digest, size = _parse(stream, before.st_size, name)
            after = os.fstat(stream.fileno())
    except FileNotFoundError as error:
        raise FileError(f"there is no file {name}") from error
    except OSError as error:
        raise FileError(f"cannot read {name}: {error.strerror or error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileError(f"{name} was changed while it was read; run again when its writer is done")
    return replace(_complete(proto, (digest, size), path, name), status=before)


def _parse(stream: BinaryIO, size: int, name: str) -> tuple[ModelProto, str, int]:
    """The message in a stream, its sha256 and size; what else it may be, if it is none."""
    if not size:
        raise ModelError(f"{name} is empty (0 bytes); {AGAIN}")
    head = stream.read(HEAD)
    stream.seek(0)
    try:
        proto, digest = decode(stream, size)
    except Damaged as error:
        if kind := sniff(head):
            raise ModelError(f"{name} is not an ONNX model but {kind.what}; {kind.advice}") from error
        raise ModelError(f"{name} is cut short, damaged, or not an ONNX model ({error}); {AGAIN}") from error
    if not proto.HasField("graph"):
        kind = sniff(head)
        what = f"{kind.what}; {kind.advice}" if kind else "protobuf of another kind; export the model to ONNX"
        raise ModelError(f"{name} has no graph, so it is not an ONNX model but {what}")
    return proto, digest, size


def _complete(proto: ModelProto, identity: tuple[str, int] | None, path: Path | None, name: str) -> Model:
    """Check everything and fetch external data; `identity`: sha256 and size of the bytes, if there are any."""
    try:
        validate.check_versions(proto)
        validate.check_text(proto)
        check_calls(proto)
        validate.check_tensors(proto)
        digest, size = identity or fingerprint(proto)
        changed = put_in_order(proto)
        style, data_digest, data_size = external.fetch(proto, path)
        warnings = (*changed, *validate.checker_warnings(proto))
    except ModelError as error:
        raise ModelError(f"{name} cannot be used: {error}") from error
    if style:
        digest = hashlib.sha256(f"{digest} {data_digest}".encode()).hexdigest()
    return Model(proto, path, digest, size + data_size, style, warnings)
