"""Damage: to the bytes of a model, and to its structure, so that it still parses and lies."""

from collections.abc import Callable
from random import Random

import onnx
from onnx import AttributeProto, TensorProto, helper

SIZES = (-(2**63), -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 1000, 2**16, 2**31 - 1, 2**31, 2**34, 2**40, 2**62, 2**63 - 1)
KINDS = tuple(range(30))  # data types, with some that do not exist


def damaged_bytes(data: bytes, draw: Random) -> bytes:
    """The same file with bits turned, bytes exchanged, or cut short."""
    out = bytearray(data)
    kind = draw.randrange(5)
    if kind == 0:
        return bytes(out[: draw.randrange(len(out) + 1)])
    if kind == 1 and len(out) > 8:  # a part is gone, or is there twice
        start = draw.randrange(len(out))
        length = draw.randrange(1, min(64, len(out) - start) + 1)
        part = bytes(out[start : start + length])
        out[start : start + length] = part * draw.choice((0, 2, 3))
        return bytes(out)
    near = min(len(out), draw.choice((200, 2000, len(out) or 1))) or 1  # the structure stands before and behind weights
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if out:
            at = draw.randrange(near) if draw.random() < 0.5 else len(out) - 1 - draw.randrange(near)
            out[at] = draw.randrange(256) if kind == 2 else out[at] ^ 1 << draw.randrange(8)
    return bytes(out)


def _graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    found = [model.graph]
    for graph in found:
        found += [a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found


def _size_of(draw: Random) -> int:
    return draw.choice(SIZES)


def change_dims(graph: onnx.GraphProto, draw: Random) -> None:
    """Other dims of a weight, of which the elements may be as many as before."""
    if graph.initializer:
        tensor = draw.choice(graph.initializer)
        dims = list(tensor.dims)
        kind = draw.randrange(4)
        if kind == 0 and dims:
            dims[draw.randrange(len(dims))] = _size_of(draw)
        elif kind == 1:
            draw.shuffle(dims)
        elif kind == 2:
            dims.insert(draw.randrange(len(dims) + 1), draw.choice((1, 1, 0, 2)))
        else:
            dims = [abs(int(d)) for d in dims[:1]] + [max(1, len(tensor.raw_data) // 4)]
        tensor.dims[:] = dims


def change_weight(graph: onnx.GraphProto, draw: Random) -> None:
    """Another type, other elements (NaN, infinity, zeros), another place."""
    if graph.initializer:
        tensor = draw.choice(graph.initializer)
        kind = draw.randrange(5)
        if kind == 0:
            tensor.data_type = draw.choice(KINDS)
        elif kind == 1 and tensor.HasField("raw_data"):
            tensor.raw_data = draw.choice((b"\xff", b"\x00", b"\x7f\x80", b"\x00\x00\x80\x7f")) * len(tensor.raw_data)
            tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2 * 2]
        elif kind == 2:
            tensor.name = draw.choice((tensor.name, "", draw.choice(graph.initializer).name, "no such"))
        elif kind == 3:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=draw.choice(("", "../x", "/etc/passwd", "w.bin", "\0")))
        else:
            graph.initializer.append(tensor)


def change_node(graph: onnx.GraphProto, draw: Random) -> None:
    """Another operator, domain, name, other inputs and outputs."""
    if not graph.node:
        return
    node, other = draw.choice(graph.node), draw.choice(graph.node)
    names = [n for x in graph.node for n in (*x.input, *x.output)] + [t.name for t in graph.initializer] + ["", "none"]
    kind = draw.randrange(9)
    if kind == 0:
        node.op_type = draw.choice((other.op_type, *draw.sample(OPERATORS, 2), "Nothing"))
    elif kind == 1:
        node.domain = draw.choice(("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "org.pytorch.aten", "of.my.own"))
    elif kind == 2 and node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(names)
    elif kind == 3 and node.input:
        del node.input[draw.randrange(len(node.input)) :]
    elif kind == 4:
        node.input.append(draw.choice(names))
    elif kind == 5 and node.output:
        node.output[draw.randrange(len(node.output))] = draw.choice(names)
    elif kind == 6:
        node.output.append(draw.choice((*names, "extra")))
    elif kind == 7 and node.output:
        del node.output[draw.randrange(len(node.output)) :]
    else:
        node.CopyFrom(other)


def change_order(graph: onnx.GraphProto, draw: Random) -> None:
    """Nodes that are gone, double, or elsewhere."""
    if len(graph.node) < 2:
        return
    nodes = list(graph.node)
    a, b = draw.randrange(len(nodes)), draw.randrange(len(nodes))
    kind = draw.randrange(3)
    if kind == 0:
        del nodes[a]
    elif kind == 1:
        nodes.insert(b, nodes[a])
    else:
        nodes[a], nodes[b] = nodes[b], nodes[a]
    holder = onnx.GraphProto()
    holder.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(holder.node)


def random_attribute(draw: Random, name: str, kind: int | None = None) -> AttributeProto:
    """An attribute of any value; `kind`: of this type."""
    number = lambda: _size_of(draw) if draw.random() < 0.3 else draw.randrange(-3, 6)  # noqa: E731
    kinds = (
        AttributeProto.INT,
        AttributeProto.INTS,
        AttributeProto.FLOAT,
        AttributeProto.FLOATS,
        AttributeProto.STRING,
    )
    kind = draw.choice(kinds) if kind is None else kind
    attribute = AttributeProto(name=name, type=kind)
    if kind == AttributeProto.INT:
        attribute.i = number()
    elif kind == AttributeProto.INTS:
        attribute.ints.extend(number() for _ in range(draw.randrange(6)))
    elif kind == AttributeProto.FLOAT:
        attribute.f = draw.choice((0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), 1e38))
    elif kind == AttributeProto.FLOATS:
        attribute.floats.extend(draw.choice((0.0, 1.0, float("nan"))) for _ in range(draw.randrange(5)))
    elif kind == AttributeProto.STRING:
        words = (b"", b"SAME_UPPER", b"VALID", b"reflect", b"edge", b"linear", b"add", b"DCR", b"bij,bjk->bik", b"\xff")
        attribute.s = draw.choice(words)
    elif kind == AttributeProto.TENSOR:
        size = draw.choice((0, 1, 4))
        attribute.t.CopyFrom(helper.make_tensor("t", TensorProto.FLOAT, [size], [1.0] * size))
    return attribute


def change_attribute(graph: onnx.GraphProto, draw: Random) -> None:
    """Attributes of other values or types, attributes that are missing, or that no operator has."""
    with_some = [n for n in graph.node if n.attribute]
    if not graph.node:
        return
    kind = draw.randrange(5)
    if kind == 0 or not with_some:
        names = ("axis", "axes", "group", "perm", "pads", "strides", "kernel_shape", "split", "value", "to", "transB")
        draw.choice(graph.node).attribute.append(random_attribute(draw, draw.choice(names)))
        return
    node = draw.choice(with_some)
    at = draw.randrange(len(node.attribute))
    attribute = node.attribute[at]
    if kind == 1:
        del node.attribute[at]
    elif kind == 2:
        attribute.CopyFrom(random_attribute(draw, attribute.name, attribute.type))
    elif kind == 3:
        attribute.CopyFrom(random_attribute(draw, attribute.name))
    elif attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = _size_of(draw)
    else:
        attribute.i = _size_of(draw)


def change_values(graph: onnx.GraphProto, draw: Random) -> None:
    """Inputs, outputs and recorded shapes that say something else."""
    part = draw.choice([p for p in (graph.input, graph.output, graph.value_info) if p] or [graph.input])
    if not part:
        return
    value = draw.choice(part)
    dims = value.type.tensor_type.shape.dim
    kind = draw.randrange(6)
    if kind == 0 and dims:
        dim = draw.choice(dims)
        dim.dim_value = _size_of(draw)
    elif kind == 1 and dims:
        draw.choice(dims).dim_param = draw.choice(("N", "", "C", "x" * 300))
    elif kind == 2:
        value.type.tensor_type.shape.dim.add().dim_value = 1
    elif kind == 3:
        value.type.tensor_type.elem_type = draw.choice(KINDS)
    elif kind == 4:
        value.ClearField("type")
    else:
        part.remove(value)


def share(graph: onnx.GraphProto, draw: Random) -> None:
    """One weight in place of another of the same shape."""
    shapes: dict[tuple[int, ...], list[str]] = {}
    for tensor in graph.initializer:
        shapes.setdefault(tuple(tensor.dims), []).append(tensor.name)
    several = [names for names in shapes.values() if len(names) > 1]
    if several:
        names = draw.choice(several)
        for node in graph.node:
            for k, name in enumerate(node.input):
                if name in names and draw.random() < 0.5:
                    node.input[k] = names[0]


def expose(graph: onnx.GraphProto, draw: Random) -> None:
    """An inner value that becomes an output, or a weight that becomes an input as well."""
    if draw.random() < 0.5 and graph.node:
        outputs = [name for node in graph.node for name in node.output if name]
        if outputs:
            graph.output.add().name = draw.choice(outputs)
    elif graph.initializer:
        tensor = draw.choice(graph.initializer)
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))


def change_versions(model: onnx.ModelProto, draw: Random) -> None:
    """Another operator set or IR version."""
    kind = draw.randrange(3)
    if kind == 0 and model.opset_import:
        model.opset_import[0].version = draw.choice((-1, 0, 1, 5, 6, 7, 9, 10, 11, 12, 13, 17, 18, 20, 21, 24, 26, 999))
    elif kind == 1:
        model.ir_version = draw.choice((0, 1, 3, 4, 8, 10, 13, 99))
    else:
        model.opset_import.add(domain=draw.choice(("", "com.microsoft", "x")), version=draw.choice((1, 2, 13)))


GRAPH_CHANGES: tuple[Callable[[onnx.GraphProto, Random], None], ...] = (
    change_dims, change_weight, change_node, change_node, change_order,
    change_attribute, change_attribute, change_values, share, expose,
)  # fmt: skip
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


def damaged_structure(model: onnx.ModelProto, draw: Random) -> onnx.ModelProto:
    """A copy that parses, with one to four things changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4))):
        if draw.random() < 0.05:
            change_versions(copy, draw)
        else:
            draw.choice(GRAPH_CHANGES)(draw.choice(_graphs(copy)), draw)
    return copy
