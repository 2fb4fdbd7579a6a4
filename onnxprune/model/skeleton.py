"""A model without its large tensors and with concrete input shapes: all that shape inference needs of it."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import onnx

from onnxprune.errors import ModelError
from onnxprune.model.defaults import overridable
from onnxprune.model.graphs import copy_graph, graphs_of, remove
from onnxprune.model.tensors import CUTTABLE
from onnxprune.operators.registry import LARGEST_VALUE, Shape, Shapes, Trait, traits_of

CONVOLVES = Trait.LINEAR | Trait.CONVOLVES
SPATIAL = 224  # size taken for a symbolic axis, but for the first one
PRIMES = (2, 3, 5, 7, 11, 13)
MOST = 1 << 40  # elements of a tensor of the file
LONGEST = 1 << 26  # positions of an axis; the shape of a value with a longer one counts as unknown


def skeleton_of(model: onnx.ModelProto, input_shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy without large tensors, in which the shapes of the inputs are the given ones or a sample."""
    skeleton = weightless(model)
    _forget_defaults(skeleton)
    channels = _channels_wanted(skeleton.graph)
    for value in skeleton.graph.input:
        _make_concrete(value, input_shapes.get(value.name), channels.get(value.name))
    return skeleton


def _forget_defaults(skeleton: onnx.ModelProto) -> None:
    """Numbers that a caller may replace, such as flags and indices, are inputs like others: they decide nothing."""
    given = {t.name: t for t in skeleton.graph.initializer if t.data_type not in CUTTABLE}
    given = {name: given[name] for name in overridable(skeleton) & given.keys()}
    for value in skeleton.graph.input:
        if (tensor := given.get(value.name)) is not None:
            value.type.CopyFrom(onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
    remove(skeleton.graph.initializer, given)


def open_axes(value: onnx.ValueInfoProto, rank: int) -> Iterator[tuple[int, str]]:
    """Axes of an input whose size the model leaves open, with the names of the sizes; "" where they have none."""
    dims = value.type.tensor_type.shape.dim
    for axis in range(rank):
        dim = dims[axis] if axis < len(dims) else onnx.TensorShapeProto.Dimension()
        if not dim.HasField("dim_value") or dim.dim_value < 0:
            yield axis, dim.dim_param


def _opened(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> dict[str, dict[int, str]]:
    """Axes of the inputs whose sizes the model leaves open, with the names of these."""
    given = shapes.keys() - {tensor.name for tensor in model.graph.initializer}
    return {v.name: dict(open_axes(v, len(shapes[v.name]))) for v in model.graph.input if v.name in given}


def other_sizes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Iterator[list[Shapes]]:
    """Other shapes of the inputs in which sizes that the model leaves open are other ones; sizes of one name alike.

    First no multiples of the given ones, and no quotient of two of them what it was.  Then, for networks that halve
    their sizes, all but one are multiples; then all, by the same factor, for those that want them in proportion; last
    the samples alone, for those that take one size.  Nothing where no size is open.
    """
    opened = _opened(model, shapes)
    sizes = {name or axis: axis for axes in opened.values() for axis, name in axes.items()}
    prime = {size: PRIMES[k % len(PRIMES)] for k, size in enumerate(sizes)}

    def larger(times: Mapping[int | str, int], uneven: Collection[int | str]) -> Shapes:
        def of(n: int, size: int | str) -> int:
            return max(n, 1) * times[size] + (size in uneven)

        return {
            key: tuple(of(n, axes[k] or k) if k in axes else n for k, n in enumerate(shapes[key]))
            for key, axes in opened.items()
        }

    if sizes:
        yield [larger(prime, sizes)]
        yield [larger(prime, {size}) for size in sizes]
        yield [larger(dict.fromkeys(sizes, 2), ())]
        yield [larger({size: 1 + (axis == 0) for size, axis in sizes.items()}, ())]


def sizes_of(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], size: Callable[[int], int], last: int | None = None
) -> Shapes:
    """Shapes of the inputs in which each size that the model leaves open is made from what it is, up to a last axis."""
    return {
        key: tuple(size(n) if k in axes and (last is None or k <= last) else n for k, n in enumerate(shapes[key]))
        for key, axes in _opened(model, shapes).items()
    }


def weightless(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the data of large tensors and without recorded shapes, which may be stale."""
    out = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    copy_graph(model.graph, out.graph, "", _strip_tensor)
    for graph, _ in graphs_of(out.graph):
        for field, _ in graph.ListFields():
            if field.name not in ("node", "input", "output", "initializer"):
                graph.ClearField(field.name)
        graph.name = "graph"
        for value in graph.output:  # what is recorded of its shape may be as stale as any other
            element = value.type.tensor_type.elem_type
            value.ClearField("type")
            value.type.tensor_type.elem_type = element
    return out


def _strip_tensor(tensor: onnx.TensorProto, _: str) -> onnx.TensorProto | None:
    elements = math.prod(tensor.dims)
    if elements > MOST or any(not 0 <= n <= (MOST if elements else LONGEST) for n in tensor.dims):
        raise ModelError(f"the tensor {tensor.name!r} claims the shape {list(tensor.dims)}: the file is damaged")
    if elements <= LARGEST_VALUE:
        return None
    outside = onnx.TensorProto.EXTERNAL
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=outside)


def _channels_wanted(graph: onnx.GraphProto) -> dict[str, int]:
    """Channels of inputs that a convolution takes: its weights tell them, where the input itself does not."""
    weights, found = {tensor.name: tensor.dims for tensor in graph.initializer}, {}
    for node in graph.node:
        convolves = CONVOLVES in (traits := traits_of(node)) and Trait.SPREADS not in traits
        if convolves and len(node.input) > 1 and len(weights.get(node.input[1], ())) > 1:
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            found[node.input[0]] = weights[node.input[1]][1] * max(group, 1)
    return found


def _make_concrete(value: onnx.ValueInfoProto, shape: Shape | None, channels: int | None) -> None:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        if shape is not None:
            elem = value.type.tensor_type.elem_type
            value.type.CopyFrom(onnx.helper.make_tensor_type_proto(elem, shape))
        return
    for k, dim in enumerate(value.type.tensor_type.shape.dim):
        if shape is not None:
            dim.dim_value = shape[k]
        elif not dim.HasField("dim_value") or dim.dim_value < 0:
            dim.dim_value = channels if k == 1 and channels else SPATIAL if k else 1
        if dim.dim_value > LONGEST:  # onnx's inference goes through such an axis position by position
            dim.Clear()
