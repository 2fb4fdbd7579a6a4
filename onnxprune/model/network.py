"""A model as one value: its graph without the elements of large tensors, and these, fetched when they are asked for.

Networks that are cut, masked or changed otherwise share all tensors that they leave as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from onnxprune.errors import UsageError
from onnxprune.model.elements import ArrayTensor, ExternalTensor, ProtoTensor, Tensor, stored
from onnxprune.model.graphs import constants_of, copied, graphs_of, refill, tensors_of
from onnxprune.model.tensors import is_external, nbytes_of

LIFTED = 64 << 10  # bytes of elements from which on they are kept beside the graph; fewer may be a shape that it reads

TensorLike = Tensor | np.ndarray


@dataclass(frozen=True, eq=False)
class Network:
    """A model; it does not change.

    graph: all of it but the elements in `tensors`: those are called external, and where they lie in another file, the
        graph says where.
    tensors: the large ones, and those in other files, by key (see `onnxprune.model.graphs`).
    """

    graph: ModelProto
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: "ModelProto | Network", folder: Path | None = None) -> "Network":
        """A model, which must not change any more; its large tensors are not copied.

        Args:
            folder: that external data is relative to.
        """
        if isinstance(model, Network):
            return model
        tensors: dict[str, Tensor] = {}
        outside = {t.name for t in model.graph.initializer if is_external(t)}

        def put(tensor: TensorProto, key: str) -> TensorProto | None:
            if key in outside:
                tensors[key] = external(tensor, folder)
            if not key or nbytes_of(tensor) < LIFTED or is_external(tensor):
                return None
            tensors[key], new = ProtoTensor(tensor), header_of(tensor, tensor.name, tensor.dims)
            new.data_location = TensorProto.EXTERNAL
            return new

        return cls(copied(model, put), tensors)

    @cached_property
    def headers(self) -> dict[str, TensorProto]:
        """All tensors of the file by key, without the elements of large ones."""
        return tensors_of(self.graph)

    def __contains__(self, key: str) -> bool:
        return key in self.headers

    def tensor(self, key: str) -> Tensor:
        """A tensor of the file.  Raises KeyError."""
        return self.tensors[key] if key in self.tensors else ProtoTensor(self.headers[key])

    def array(self, key: str) -> np.ndarray:
        """The elements of a tensor of the file.  Raises KeyError, and ModelError where they cannot be read."""
        return self.tensor(key).array()

    @property
    def nbytes(self) -> int:
        """Bytes of the elements that stand beside the graph, but for those in other files."""
        return sum(nbytes_of(self.headers[key]) for key, t in self.tensors.items() if not isinstance(t, ExternalTensor))

    def release_tensors(self) -> None:
        """Go on with the graph alone, for all who hold this network, once its tensors are in files of their own."""
        object.__setattr__(self, "tensors", {})

    def materialized(self) -> "Network":
        """The same with elements of its own in memory: those of others may be given up, and nothing is made twice."""
        return Network(self.graph, {key: tensor.materialized() for key, tensor in self.tensors.items()})

    def without(self, keys: Iterable[str]) -> "Network":
        """The same, in which some tensors are what the graph says of them: that they lie in another file."""
        gone = set(keys)
        return Network(self.graph, {key: t for key, t in self.tensors.items() if key not in gone})

    def own(self) -> "Network":
        """The same with a graph that nobody else has, which may be changed before it is handed on."""
        graph = ModelProto()
        graph.CopyFrom(self.graph)
        return Network(graph, self.tensors)

    def with_graph(self, graph: ModelProto) -> "Network":
        """Another graph, with those of the tensors that it has."""
        inside = tensors_of(graph)
        return Network(graph, {key: tensor for key, tensor in self.tensors.items() if key in inside})

    def with_tensors(self, changed: Mapping[str, TensorLike]) -> "Network":
        """The network with other elements, of the same type, in some tensors of the file, by key."""
        out, tensors = self.own(), dict(self.tensors)
        for key, new in tensors_of(out.graph).items():
            if key in changed:
                tensor = _emptied(new)
                _put(new, tensor, tensor.name, key, changed[key], tensors)
        return Network(out.graph, tensors)

    def with_copies(self, copies: Mapping[str, Sequence[tuple[str, TensorLike | None]]]) -> "Network":
        """The network with more tensors (name, elements), by the key of the one that they resemble and stand behind.

        Without elements, that is the tensor itself in its place among them.
        """
        if not copies:
            return self
        tensors, out = dict(self.tensors), self.own()
        for graph, path in graphs_of(out.graph.graph):
            constants, row = dict(constants_of(graph, path)), list[TensorProto]()
            for key, like in (*constants.items(), *((path + t.name, t) for t in graph.initializer)):
                several = copies.get(key, ())
                row += [like] if key not in constants and all(e is not None for _, e in several) else []
                for name, elements in several:
                    if elements is None:
                        row += [like] if key not in constants else []
                        continue
                    row.append(TensorProto())
                    _put(row[-1], like, name, path + name, elements, tensors)
            refill(graph.initializer, row)
        return Network(out.graph, tensors)

    def with_values(self, values: Mapping[str, TensorLike]) -> "Network":
        """The network with these values in place of tensors of the file, and of outputs of nodes of the main graph.

        Raises UsageError where there is no such value, or where a tensor has another shape or type.
        """
        for key in values.keys() & self.headers.keys():
            _check(values[key], self.headers[key])
        out, more = self.with_tensors(values), {name: v for name, v in values.items() if name not in self}
        makers = {name: (node, k) for node in out.graph.graph.node for k, name in enumerate(node.output) if name}
        for name in more:
            if name not in makers:
                raise UsageError(f"the model has no initializer and no node output called '{name}'")
            node, k = makers[name]
            node.output[k] = f"{name}/replaced"
        return out.with_more(more)

    def with_more(self, more: Mapping[str, TensorLike]) -> "Network":
        """The network with more tensors of the main graph, by name."""
        if not more:
            return self
        out, tensors = self.own(), dict(self.tensors)
        for name, elements in more.items():
            like = TensorProto(data_type=helper.np_dtype_to_tensor_dtype(elements.dtype))
            _put(out.graph.graph.initializer.add(), like, name, name, elements, tensors)
        return Network(out.graph, tensors)

    def with_inputs(self, names: Iterable[str]) -> "Network":
        """The network with tensors of the main graph as inputs that may be given, and are what they are otherwise."""
        out = self.own()
        for name in names:
            header = self.headers[name]
            out.graph.graph.input.append(helper.make_tensor_value_info(name, header.data_type, header.dims))
        return out

    def with_outputs(self, names: Iterable[str]) -> "Network":
        """The network with values of nodes as further outputs, without a type.  Raises UsageError."""
        out = self.own()
        graph = out.graph.graph
        have = {o.name for o in graph.output}
        made = {name for node in graph.node for name in node.output}
        for name in dict.fromkeys(names):
            if name not in made:
                raise UsageError(f"no node of the model gives a value called '{name}'")
            if name not in have:
                graph.output.add().name = name
        return out

    def proto(self) -> ModelProto:
        """All of it as one message; what lies in other files stays there."""
        out = self.own().graph
        for key, new in tensors_of(out).items():
            if key in self.tensors:
                message, elements = whole(_emptied(new), self.tensors[key])
                new.CopyFrom(message)
                if elements is not None:
                    new.raw_data = b"".join(elements.pieces())
        return out


def external(tensor: TensorProto, folder: Path | None) -> ExternalTensor:
    """The elements of a tensor that lie in another file."""
    place = ExternalDataInfo(tensor)
    path = (folder or Path()) / place.location
    return ExternalTensor(tensor, path, place.offset or 0, place.length or nbytes_of(tensor))


def whole(tensor: TensorProto, elements: Tensor) -> tuple[TensorProto, Tensor | None]:
    """A tensor of a network's graph as a file has it, and the elements that its `raw_data` is to hold, if any."""
    if isinstance(elements, ExternalTensor) and tensor.external_data:
        return tensor, None
    if type(elements) is ProtoTensor and elements.proto.name == tensor.name:
        return elements.proto, None
    return header_of(tensor, tensor.name, tensor.dims), elements


def _emptied(tensor: TensorProto) -> TensorProto:
    """What a tensor was, once it is empty, to be filled anew in its place."""
    was = TensorProto()
    was.CopyFrom(tensor)
    tensor.Clear()
    return was


def _put(
    new: TensorProto, like: TensorProto, name: str, key: str, given: TensorLike, tensors: dict[str, Tensor]
) -> None:
    """Write a tensor into a graph; its elements into `tensors` where they are large, or were outside."""
    elements = given if isinstance(given, Tensor) else ArrayTensor(np.asarray(given))
    new.CopyFrom(header_of(like, name, elements.shape))
    tensors.pop(key, None)
    if nbytes_of(new) >= LIFTED or like.external_data:
        new.data_location = TensorProto.EXTERNAL
        new.external_data.extend(like.external_data)
        tensors[key] = elements
    elif new.data_type == TensorProto.STRING:
        new.CopyFrom(numpy_helper.from_array(elements.array(), name))
    else:
        new.raw_data = bytes(stored(elements.array()))


def header_of(like: TensorProto, name: str, shape: Sequence[int]) -> TensorProto:
    """A tensor of another name and shape that says all that one says, but its elements."""
    new = TensorProto(name=name, data_type=like.data_type, dims=shape, metadata_props=like.metadata_props)
    if like.doc_string:
        new.doc_string = like.doc_string
    return new


def _check(value: TensorLike, old: TensorProto) -> None:
    if list(value.shape) != list(old.dims) or helper.np_dtype_to_tensor_dtype(value.dtype) != old.data_type:
        was = f"{list(old.dims)} of {TensorProto.DataType.Name(old.data_type)}"
        raise UsageError(f"initializer '{old.name}' is {was}, not {list(value.shape)} of {value.dtype}")
