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
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import FileError, ModelError
from onnxprune.model.elements import ExternalTensor, Tensor
from onnxprune.model.encode import chunks, encode, length
from onnxprune.model.network import LIFTED, Network
from onnxprune.model.outline import outline
from onnxprune.model.tensors import nbytes_of
from onnxprune.model.write import LIMIT
from onnxprune.runtime.branches import steer
from onnxprune.runtime.edited import hand_over, sow
from onnxprune.runtime.folder import Folder
from onnxprune.runtime.lifted import Inside, lift
from onnxprune.runtime.unsigned import multiply_unsigned

Source = Path | str | bytes | onnx.ModelProto | Network

SPILL_MODEL = 64 << 20  # bytes of weights from which on they go through a file


@dataclass(frozen=True)
class Variant:
    """A model, and how it is run.

    `folder` is where relative paths of external data begin (for a file, its own folder). `given` are values of the
    graph that the caller feeds instead (name → element type). `lifted` are values inside bodies that can be tapped and
    given like those at the top, by key. `steered` lets the caller send every If
    whose condition is computed from data into a branch (`onnxprune.runtime.branches.switches`). `seeded` gives random
    operators a seed that hangs on what they make, so that they draw alike in two models with other nodes around them.
    `unsigned` multiplies integers so that nothing saturates.
    """

    source: Source
    folder: Path | None = None
    given: Mapping[str, int] | None = None
    lifted: Mapping[str, Inside] | None = None
    steered: bool = False
    seeded: bool = False
    unsigned: bool = False

    @classmethod
    def of(cls, model: "Source | Variant") -> "Variant":
        """A model as it is run; large tensors of one in memory are set apart from its graph once for all."""
        variant = model if isinstance(model, Variant) else cls(model)
        return replace(variant, source=variant.network) if isinstance(variant.source, onnx.ModelProto) else variant

    @property
    def base(self) -> Path | None:
        """The absolute folder that external data is relative to."""
        if self.folder is None and isinstance(self.source, (str, Path)):
            return Path(self.source).absolute().parent
        return self.folder and Path(self.folder).absolute()

    @cached_property
    def network(self) -> Network:
        """The model itself, read once; the tensors of a large file are left there."""
        return network_of(self.source, self.base)

    @property
    def graph(self) -> onnx.GraphProto:
        """Nodes, inputs and outputs."""
        return self.network.graph.graph


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

    Raises `UsageError` for a tap that the model does not have, `ModelError` when it cannot be read.
    """
    source, taps = variant.source, tuple(taps)
    folder = str(variant.base) if variant.base else None
    plain = not (taps or variant.given or variant.steered or variant.seeded or variant.unsigned)
    if isinstance(source, (str, Path)) and plain:
        if not Path(source).is_file():
            raise FileError(f"{source} is not a file")
        return Prepared(str(source))
    if isinstance(source, bytes) and plain:
        return Prepared(source, folder)
    network = _edited(variant, taps)
    lifted = {t.name: t for t in network.graph.graph.initializer if t.name in network.tensors}
    outside = {name for name, t in lifted.items() if t.external_data}
    moved = sorted(name for name in outside if not isinstance(network.tensors[name], ExternalTensor))
    large = sum(nbytes_of(lifted[name]) for name in (moved if outside else lifted)) >= SPILL_MODEL
    if large and (moved or not outside):
        return _spill(network, lifted)
    given = {name: network.tensors[name].array() for name in moved}
    return Prepared(_serialised(network.without(moved)), folder, given)


def _edited(variant: Variant, taps: Iterable[str]) -> Network:
    """The network as it is run."""
    inner, given, taps = variant.lifted or {}, variant.given or {}, tuple(taps)
    network = variant.network.with_outputs(t for t in taps if t not in inner)
    graph = network.graph.graph
    del graph.value_info[:]  # may contradict replaced or pruned shapes; onnxruntime infers its own
    if wanted := {key: value for key, value in inner.items() if key in taps or key in given}:
        lift(graph, wanted, given)  # first, as paths begin with what nodes give
    if given:
        hand_over(graph, {name: element for name, element in given.items() if name not in inner})
    if variant.steered:
        steer(graph)
    if variant.seeded:
        sow(graph)
    return multiply_unsigned(network) if variant.unsigned else network


@contextmanager
def spilled(variant: Variant) -> Iterator[Variant]:
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


def network_of(source: Source, folder: Path | None = None) -> Network:
    """The network of a source; the large tensors of a large file are left there.

    Raises FileError and ModelError where it cannot be read.
    """
    if isinstance(source, Network):
        return source
    if isinstance(source, (str, Path)):
        folder = folder or Path(source).absolute().parent
        try:
            found = outline(Path(source)) if os.path.getsize(source) >= SPILL_MODEL else None
        except OSError as error:
            raise FileError(f"cannot read {source}: {error.strerror or error}") from error
        if found is not None:
            return found
    return Network.of(as_proto(source), folder)


def as_proto(source: Path | str | bytes | onnx.ModelProto) -> onnx.ModelProto:
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


def _serialised(network: Network) -> bytes:
    pieces = encode(network)
    if length(pieces) > LIMIT:
        raise ModelError(
            "the model holds more than 2 GiB outside its initializers (in Constant nodes), which protobuf cannot "
            "write; turn them into initializers first"
        )
    return b"".join(chunks(pieces))


def _spill(network: Network, lifted: Iterable[str]) -> Prepared:
    """Write large weights of the main graph to a temporary data file that the model refers to, one at a time."""
    holds, out = Folder(), network.own()
    headers = {t.name: t for t in out.graph.graph.initializer}
    large = [name for name in lifted if nbytes_of(headers[name]) >= LIFTED]  # a smaller one may be a shape
    for name in lifted:
        del headers[name].external_data[:]
    path = os.path.join(holds.name, "model.onnx")
    try:
        with open(os.path.join(holds.name, "weights"), "wb") as file:
            for name in large:
                _write(file, headers[name], network.tensors[name])
        Path(path).write_bytes(_serialised(out.without(large)))
    except OSError as error:
        holds.cleanup()
        room = f"cannot hold the model's weights in {tempfile.gettempdir()}: {error.strerror or error}"
        raise FileError(f"{room}; set TMPDIR to a folder with room") from error
    return Prepared(path, holds=holds)


def _write(file: BinaryIO, tensor: TensorProto, elements: Tensor) -> None:
    """Append elements at the next page, and make their tensor point there."""
    start = -(-file.tell() // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
    file.seek(start)
    size = sum(map(file.write, elements.pieces()))
    for key, number in (("location", "weights"), ("offset", start), ("length", size)):
        tensor.external_data.add(key=key, value=str(number))
