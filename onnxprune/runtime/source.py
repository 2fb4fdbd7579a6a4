"""What a session is made from: a file, bytes or a `ModelProto`, perhaps with taps and with values replaced.

Large models are handed over through a temporary file of external data, which onnxruntime maps instead of
copying: a 507 MiB VGG given as bytes cost 1,520 MiB on top of the proto, handed over so 540 MiB, which are
file pages that the system can take back, and nothing at all until the first run.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from onnxprune.errors import FileError, ModelError
from onnxprune.runtime.branches import steer
from onnxprune.runtime.edited import (
    SPILL_TENSOR,
    Replacement,
    check,
    checked,
    edited,
    hand_over,
    nbytes_of,
    sow,
    spills,
    tensor_of,
)
from onnxprune.runtime.folder import Folder
from onnxprune.runtime.lifted import Inside, lift
from onnxprune.runtime.outline import outline
from onnxprune.runtime.specs import bits
from onnxprune.runtime.unsigned import multiply_unsigned

Source = Path | str | bytes | onnx.ModelProto

SPILL_MODEL = 64 << 20  # bytes of weights from which on they go through a file


@dataclass(frozen=True)
class Variant:
    """A model with some values replaced, without a copy of the rest: the masked original, for one.

    `values` maps names of top-level initializers or of node outputs to arrays of the same shape and type, each of
    which is asked for when it is needed and not kept;
    `folder` is where relative paths of external data begin (for a file, its own folder). `given` are values of the
    graph that the caller feeds instead (name → element type). `lifted` are values inside bodies that can be tapped and
    given like those at the top, by key. `steered` lets the caller send every If
    whose condition is computed from data into a branch (`onnxprune.runtime.branches.switches`). `seeded` gives random
    operators a seed that hangs on what they make, so that they draw alike in two models with other nodes around them.
    `unsigned` multiplies integers so that nothing saturates.
    """

    source: Source
    values: Mapping[str, Replacement] | None = None
    folder: Path | None = None
    given: Mapping[str, int] | None = None
    lifted: Mapping[str, Inside] | None = None
    steered: bool = False
    seeded: bool = False
    unsigned: bool = False

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


@dataclass(frozen=True)
class Spans:
    """Places of weights in files: name → (file, start, length)."""

    places: Mapping[str, tuple[Path, int, int]]


def prepare(variant: Variant, taps: Iterable[str] = ()) -> Prepared:
    """The model of `variant` in the form that costs onnxruntime the least memory, with `taps` as added outputs.

    Raises `UsageError` for a tap or a value that the model does not have, `ModelError` when it cannot be read.
    """
    source, taps, values = variant.source, tuple(taps), variant.values or {}
    folder = str(variant.base) if variant.base else None
    plain = not (taps or values or variant.given or variant.steered or variant.seeded or variant.unsigned)
    if isinstance(source, (str, Path)) and plain:
        if not Path(source).is_file():
            raise FileError(f"{source} is not a file")
        return Prepared(str(source))
    if isinstance(source, bytes) and plain:
        return Prepared(source, folder)
    model, spans = _without_weights(source)
    external = _outside(model)
    replaced = [nbytes_of(external[name]) for name in values.keys() & external.keys()]
    if replaced and sum(replaced) >= SPILL_MODEL:
        model, spans = _placed(model, variant.base or Path())
        external = {}
    outside = {name: checked(values[name], external[name]) for name in sorted(values.keys() & external.keys())}
    spill = not external and inline_bytes(model) >= SPILL_MODEL
    inner, given = variant.lifted or {}, variant.given or {}
    copy = edited(model, [t for t in taps if t not in inner], values, weights=not spill, skip=outside)
    if wanted := {key: value for key, value in inner.items() if key in taps or key in given}:
        lift(copy.graph, wanted, given)  # first, as paths begin with what nodes give
    if given:
        hand_over(copy.graph, {name: element for name, element in given.items() if name not in inner})
    if variant.steered:
        steer(copy.graph)
    if variant.seeded:
        sow(copy.graph)
    if variant.unsigned:
        multiply_unsigned(copy.graph)
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


def _without_weights(source: Source) -> tuple[onnx.ModelProto, Spans | None]:
    """The model, and where the weights that it comes without are: in none but large files."""
    if not isinstance(source, (str, Path)):
        return as_proto(source), None
    try:
        found = outline(Path(source), least=SPILL_TENSOR) if os.path.getsize(source) >= SPILL_MODEL else None
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror or error}") from error
    if found is None or any(t.name not in found.spans and spills(t) for t in found.model.graph.initializer):
        return as_proto(source), None
    return found.model, Spans({name: (Path(source), *span) for name, span in found.spans.items()})


def _outside(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Initializers of the graph whose elements are in other files."""
    return {t.name: t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL}


def _placed(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, Spans]:
    """A model with external data as a large file comes: small tensors inside, and where the others are."""
    copy, places = onnx.ModelProto(), {}
    copy.CopyFrom(model)
    for tensor in _outside(copy).values():
        place = ExternalDataInfo(tensor)
        if nbytes_of(tensor) < SPILL_TENSOR:
            load_external_data_for_tensor(tensor, str(folder))
            continue
        places[tensor.name] = folder / place.location, place.offset or 0, place.length or nbytes_of(tensor)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return copy, Spans(places)


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
    return sum(nbytes_of(t) for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL)


def _serialise(model: onnx.ModelProto) -> bytes:
    try:
        return model.SerializeToString()
    except Exception as error:  # EncodeError or ValueError, by protobuf implementation
        raise ModelError(
            "the model holds more than 2 GiB outside its initializers (in Constant nodes), which protobuf cannot "
            "write; turn them into initializers first"
        ) from error


def _spill(
    skeleton: onnx.ModelProto, model: onnx.ModelProto, values: Mapping[str, Replacement], spans: Spans | None
) -> Prepared:
    """Write the large weights of `model` to a temporary data file that `skeleton` refers to, one at a time."""
    holds = Folder()
    path = os.path.join(holds.name, "model.onnx")
    try:
        with open(os.path.join(holds.name, "weights"), "wb") as file:
            for tensor in filter(spills, model.graph.initializer):
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
    if value is None and spans is not None and tensor.name in spans.places:
        length = _copy(file, *spans.places[tensor.name])
    elif value is None:
        length = file.write(tensor.raw_data or numpy_helper.to_array(tensor).tobytes())
    elif bits(value.dtype) < 8:
        length = file.write(tensor_of(value, tensor).raw_data)  # two or more elements to a byte
    else:
        check(value, tensor)
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
