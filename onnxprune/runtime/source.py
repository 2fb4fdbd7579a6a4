"""What a session is made from: a file, bytes or a `ModelProto`, perhaps with taps and with values replaced.

Large models are handed over through a temporary file of external data, which onnxruntime maps instead of
copying: a 507 MiB VGG given as bytes cost 1,520 MiB on top of the proto, handed over so 540 MiB, which are
file pages that the system can take back, and nothing at all until the first run.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxprune.errors import FileError, ModelError, UsageError
from onnxprune.runtime.folder import Folder
from onnxprune.runtime.outline import outline
from onnxprune.runtime.specs import bits

Source = Path | str | bytes | onnx.ModelProto


class Blocks(Protocol):
    """An array that is not all in memory at once: `numpy.asarray` gives it whole, `blocks` a few rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __array__(self) -> np.ndarray: ...

    def blocks(self) -> Iterator[np.ndarray]: ...


Replacement = np.ndarray | Blocks

SPILL_MODEL = 64 << 20  # bytes of weights from which on they go through a file
SPILL_TENSOR = 64 << 10  # smaller ones stay in the proto: they may be shapes that inference reads


@dataclass(frozen=True)
class Variant:
    """A model with some values replaced, without a copy of the rest: the masked original, for one.

    `values` maps names of top-level initializers or of node outputs to arrays of the same shape and type, each of
    which is asked for when it is needed and not kept;
    `folder` is where relative paths of external data begin (for a file, its own folder). `unrounded` lets
    values pass where the graph quantizes them and dequantizes them at once.
    """

    source: Source
    values: Mapping[str, Replacement] | None = None
    folder: Path | None = None
    unrounded: bool = False

    @property
    def base(self) -> Path | None:
        """The absolute folder that external data is relative to."""
        if self.folder is None and isinstance(self.source, (str, Path)):
            return Path(self.source).absolute().parent
        return self.folder and Path(self.folder).absolute()


@dataclass(frozen=True)
class Prepared:
    """A path or bytes that onnxruntime reads, and what goes with it.

    `folder` is where external data lies, `values` replace external initializers, `holds` must outlive the session.
    """

    model: str | bytes
    folder: str | None = None
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    holds: Folder | None = None


def prepare(variant: Variant, taps: Iterable[str] = ()) -> Prepared:
    """The model of `variant` in the form that costs onnxruntime the least memory, with `taps` as added outputs.

    Raises `UsageError` for a tap or a value that the model does not have, `ModelError` when it cannot be read.
    """
    source, taps, values = variant.source, tuple(taps), variant.values or {}
    folder = str(variant.base) if variant.base else None
    plain = not (taps or values or variant.unrounded)
    if isinstance(source, (str, Path)) and plain:
        if not Path(source).is_file():
            raise FileError(f"{source} is not a file")
        return Prepared(str(source))
    if isinstance(source, bytes) and plain:
        return Prepared(source, folder)
    model, spans = _without_weights(source)
    external = {t.name: t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL}
    outside = {name: _checked(values[name], external[name]) for name in sorted(values.keys() & external.keys())}
    spill = not external and inline_bytes(model) >= SPILL_MODEL
    copy = edited(model, taps, values, weights=not spill, skip=outside)
    if variant.unrounded:
        _pass_rounding(copy.graph)
    if not spill:
        return Prepared(_serialise(copy), folder, outside)
    return _spill(copy, model, values, spans)


@contextmanager
def held(variant: Variant) -> Iterator[Variant]:
    """The same model from files of its own, so that what it is made from need not stay in memory; a small one itself.

    Raises as `prepare` does.
    """
    prepared = prepare(variant)
    if prepared.holds is None:
        yield variant
        return
    del variant
    try:
        yield Variant(Path(str(prepared.model)))
    finally:
        prepared.holds.cleanup()


def nodes_of(source: Source) -> onnx.ModelProto:
    """The model for its nodes, inputs and outputs; the weights of a large file are left where they are."""
    return _without_weights(source)[0]


def _without_weights(source: Source) -> tuple[onnx.ModelProto, "Spans | None"]:
    """The model, and where the weights that it comes without are: in none but large files."""
    if not isinstance(source, (str, Path)):
        return as_proto(source), None
    try:
        found = outline(Path(source), least=SPILL_TENSOR) if os.path.getsize(source) >= SPILL_MODEL else None
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror or error}") from error
    if found is None or any(t.name not in found.spans and _spills(t) for t in found.model.graph.initializer):
        return as_proto(source), None
    return found.model, Spans(Path(source), found.spans)


@dataclass(frozen=True)
class Spans:
    """Places of weights in a file: name → (start, length)."""

    path: Path
    places: Mapping[str, tuple[int, int]]


def as_proto(source: Source) -> onnx.ModelProto:
    """The `ModelProto` of a source; external data stays outside."""
    if isinstance(source, onnx.ModelProto):
        return source
    name = str(source) if isinstance(source, (str, Path)) else "this"
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        return onnx.load(name, load_external_data=False)
    except OSError as error:
        raise FileError(f"cannot read {name}: {error.strerror or error}") from error
    except Exception as error:  # the protobuf implementations each have their own DecodeError
        raise ModelError(f"{name} is no ONNX model: {str(error).splitlines()[0]}") from error


def inline_bytes(model: onnx.ModelProto) -> int:
    """Bytes of weights inside the proto (external ones are not), from their shapes, without touching them."""
    return sum(_size(t) for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL)


def _size(tensor: TensorProto) -> int:
    try:
        return math.prod(tensor.dims) * bits(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) // 8
    except KeyError:  # an element type that this onnx does not know
        return 0


def edited(
    model: onnx.ModelProto,
    taps: Iterable[str],
    values: Mapping[str, Replacement],
    *,
    weights: bool = True,
    skip: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of `model` with outputs added and values replaced, but for those in `skip`.

    Without `weights`, large ones are left out.
    """
    inside = [name for name in values if name not in skip]
    copy = onnx.ModelProto()
    for kind, content in model.ListFields():
        if kind.name != "graph":
            _put(copy, kind, content)
    for kind, content in model.graph.ListFields():
        if kind.name == "initializer":
            copy.graph.initializer.extend(t for t in content if t.name not in inside and (weights or not _spills(t)))
        elif kind.name != "value_info":  # may contradict replaced or pruned shapes; onnxruntime infers its own
            _put(copy.graph, kind, content)
    _replace(copy.graph, {t.name: t for t in model.graph.initializer}, values, inside, weights)
    _tap(copy.graph, taps)
    return copy


def _put(message: Any, kind: Any, content: Any) -> None:
    """Set one field of a protobuf message to what another message of that type has there."""
    if isinstance(content, (str, bytes, int, float)):
        setattr(message, kind.name, content)
    elif hasattr(content, "CopyFrom"):
        getattr(message, kind.name).CopyFrom(content)
    else:
        getattr(message, kind.name).extend(content)


def _replace(
    graph: onnx.GraphProto,
    weights: Mapping[str, TensorProto],
    values: Mapping[str, Replacement],
    names: Iterable[str],
    inline: bool,
) -> None:
    """Put `values` where the graph defines them: as initializers, or as constants in place of a node's output."""
    producers = {name: (node, i) for node in graph.node for i, name in enumerate(node.output) if name}
    for name in names:
        if name in weights:
            if inline or not _spills(weights[name]):
                graph.initializer.append(_tensor(values[name], weights[name]))
        elif name in producers:
            node, position = producers[name]
            node.output[position] = f"{name}/replaced"
            graph.initializer.append(numpy_helper.from_array(np.asarray(values[name]), name))
        else:
            raise UsageError(f"the model has no initializer and no node output called '{name}'")


def _check(value: Replacement, old: TensorProto) -> None:
    """Raises `UsageError` unless shape and type are those of the initializer that is replaced."""
    if list(value.shape) != list(old.dims) or onnx.helper.np_dtype_to_tensor_dtype(value.dtype) != old.data_type:
        was = f"{list(old.dims)} of {TensorProto.DataType.Name(old.data_type)}"
        raise UsageError(f"initializer '{old.name}' is {was}, not {list(value.shape)} of {value.dtype}")


def _checked(value: Replacement, old: TensorProto) -> np.ndarray:
    """`value` in C order, once its shape and type are those of the initializer that it replaces."""
    _check(value, old)
    return np.ascontiguousarray(value).reshape(value.shape)  # ascontiguousarray turns scalars into vectors


def _tensor(value: Replacement, old: TensorProto) -> TensorProto:
    return numpy_helper.from_array(_checked(value, old), old.name)


def _tap(graph: onnx.GraphProto, taps: Iterable[str]) -> None:
    """Add values as outputs, without a type: onnxruntime infers it."""
    have = {o.name for o in graph.output}
    defined = {name for node in graph.node for name in node.output}
    for name in dict.fromkeys(taps):
        if name not in defined:
            raise UsageError(f"no node of the model gives a value called '{name}'")
        if name not in have:
            graph.output.add().name = name


def _pass_rounding(graph: onnx.GraphProto) -> None:
    """Turn each DequantizeLinear that takes the result of a QuantizeLinear into an Identity of what was quantized."""
    exact = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in exact:
            node.op_type = "Identity"
            node.ClearField("attribute")
            node.input[:] = [exact[node.input[0]]]


def _serialise(model: onnx.ModelProto) -> bytes:
    try:
        return model.SerializeToString()
    except Exception as error:  # EncodeError or ValueError, by protobuf implementation
        raise ModelError(
            "the model holds more than 2 GiB outside its initializers (in Constant nodes), which protobuf cannot "
            "write; turn them into initializers first"
        ) from error


def _spills(tensor: TensorProto) -> bool:
    return (
        tensor.data_location != TensorProto.EXTERNAL
        and tensor.data_type != TensorProto.STRING
        and _size(tensor) >= SPILL_TENSOR
    )


def _spill(
    skeleton: onnx.ModelProto, model: onnx.ModelProto, values: Mapping[str, Replacement], spans: Spans | None
) -> Prepared:
    """Write the large weights of `model` to a temporary data file that `skeleton` refers to, one at a time."""
    holds = Folder()
    path = os.path.join(holds.name, "model.onnx")
    try:
        with open(os.path.join(holds.name, "weights"), "wb") as file:
            for tensor in filter(_spills, model.graph.initializer):
                _write(file, skeleton.graph.initializer.add(), tensor, values.get(tensor.name), spans)
        Path(path).write_bytes(_serialise(skeleton))
    except OSError as error:
        holds.cleanup()
        room = f"cannot hold the model's weights in {tempfile.gettempdir()}: {error.strerror or error}"
        raise FileError(f"{room}; set TMPDIR to a folder with room") from error
    return Prepared(path, holds=holds)


def _write(
    file: BinaryIO, reference: TensorProto, tensor: TensorProto, value: Replacement | None, spans: Spans | None
) -> None:
    """Append the data of `tensor`, or `value` in its place, at the next page, and make `reference` point there."""
    start = -(-file.tell() // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
    file.seek(start)
    if value is None and spans is not None:
        length = _copy(file, spans.path, *spans.places[tensor.name])
    elif value is None:
        length = file.write(tensor.raw_data or numpy_helper.to_array(tensor).tobytes())
    elif bits(value.dtype) < 8:
        length = file.write(_tensor(value, tensor).raw_data)  # two or more elements to a byte
    else:
        _check(value, tensor)
        parts = [value] if isinstance(value, np.ndarray) else value.blocks()
        length = sum(file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data) for part in parts)
    reference.name, reference.data_type, reference.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
    reference.dims.extend(tensor.dims)
    for key, number in (("location", "weights"), ("offset", start), ("length", length)):
        entry = reference.external_data.add()
        entry.key, entry.value = key, str(number)


def _copy(file: BinaryIO, path: Path, start: int, length: int) -> int:
    """Append that part of another file, a few megabytes at a time."""
    with open(path, "rb") as source:
        source.seek(start)
        left = length
        while left:
            part = source.read(min(left, 4 << 20))
            if not part:
                raise FileError(f"{path} is cut off; get it again")
            left -= file.write(part)
    return length
