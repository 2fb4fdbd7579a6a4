"""Networks with widths that only linear maps touch, for the tests of the rotation."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOKENS, HEADS, WIDTH, FEATURES = 6, 2, 8, 24


class Net:
    """A graph under way: nodes with one output each, and random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray, name: str = "") -> str:
        name = name or f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, name: str = "", rank: int | None = None) -> str:
        """Random weights of unit gain; of a lower rank for a matrix that says so."""
        array = self.rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) < 4 else shape[1])
        if rank is not None:
            array = array[:, :rank] @ self.rng.standard_normal((rank, shape[1]))
        return self.constant(array.astype(np.float32), name)

    def __call__(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"v{len(self.nodes)}.{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}{len(self.nodes)}", **attributes))
        return names[0]

    def parts(self) -> list[str]:
        """The outputs of the last node."""
        return list(self.nodes[-1].output)

    def model(
        self, y: str, x: tuple[int | str, ...], out: tuple[int | str, ...], kind: int = TensorProto.FLOAT,
        *, opset: int = 17,
    ) -> onnx.ModelProto:  # fmt: skip
        self("Identity", y)
        self.nodes[-1].output[0] = "y"
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes, "net", [value("x", kind, x)], [value("y", TensorProto.FLOAT, out)], self.tensors
        )
        imports = [helper.make_opsetid("", opset), *[helper.make_opsetid("com.microsoft", 1)] * (opset != 17)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8 if opset == 17 else 10)
        onnx.checker.check_model(model, full_check=opset == 17)
        return model


def dense(
    net: Net,
    x: str,
    outputs: int,
    inputs: int = FEATURES,
    *,
    bias: bool = True,
    rank: int | None = None,
    name: str = "",
) -> str:
    y = net("MatMul", x, net.weight(inputs, outputs, rank=rank, name=name))
    return net("Add", y, net.weight(outputs)) if bias else y


def split_heads(net: Net, x: str, perm: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    shape = net.constant(np.array([0, -1, HEADS, WIDTH]))
    return net("Transpose", net("Reshape", x, shape), perm=perm)


def turned_by_position(net: Net, x: str) -> str:
    """Rotary positions: pairs of features turn by an angle that depends on the token."""
    half = WIDTH // 2
    angle = np.arange(TOKENS)[:, None] * 0.5 ** np.arange(half)
    cos, sin = (net.constant(np.tile(f(angle), 2).astype(np.float32)) for f in (np.cos, np.sin))
    net("Split", x, outputs=2, axis=-1)
    a, b = net.parts()
    other = net("Concat", net("Neg", b), a, axis=-1)
    return net("Add", net("Mul", x, cos), net("Mul", other, sin))


def normalised(net: Net, x: str) -> str:
    return net("LayerNormalization", x, net.constant(np.ones(WIDTH, np.float32)), axis=-1)


def projected(net: Net, x: str, how: str, bias: bool, rank: int | None) -> tuple[str, str, str]:
    """Queries, keys and values, (n, heads, tokens, width) but for keys, (n, heads, width, tokens), unless `how` is a
    hindrance between the projection and the product."""
    inner = HEADS * WIDTH
    if how == "apart":
        q, k, v = (dense(net, x, inner, bias=bias, rank=rank, name=n) for n in "qkv")
        return split_heads(net, q), split_heads(net, k, (0, 2, 3, 1)), split_heads(net, v)
    if how in ("rotary", "norm"):
        hindered = {"rotary": turned_by_position, "norm": normalised}[how]
        q, k, v = (split_heads(net, dense(net, x, inner, bias=bias, name=n)) for n in "qkv")
        return hindered(net, q), net("Transpose", hindered(net, k), perm=(0, 1, 3, 2)), v
    fused = dense(net, x, 3 * inner, bias=bias)
    if how == "split":
        net("Split", fused, outputs=3, axis=-1)
        q, k, v = net.parts()
        return split_heads(net, q), split_heads(net, k, (0, 2, 3, 1)), split_heads(net, v)
    grid = net("Reshape", fused, net.constant(np.array([0, -1, 3, HEADS, WIDTH])))
    grid = net("Transpose", grid, perm=(2, 0, 3, 1, 4))
    q, k, v = (net("Gather", grid, net.constant(np.array(i)), axis=0) for i in range(3))
    return q, net("Transpose", k, perm=(0, 1, 3, 2)), v


def attention(
    how: str = "apart", *, scale: str = "after", bias: bool = True, rank: int | None = None
) -> onnx.ModelProto:  # fmt: skip
    """Attention that is written out, behind a layer and an activation, and before a layer.

    Args:
        how: projections "apart", fused and "split" or in a "grid", with "rotary" positions or a "norm" behind.
        scale: "before", on queries, "after", on logits, "divided", or "" for none.
        rank: of the projections, where they are apart.
    """
    net = Net()
    x = net("Relu", dense(net, "x", FEATURES))
    q, k, v = projected(net, x, how, bias, rank)
    factor = net.constant(np.float32(WIDTH**-0.5 if scale != "divided" else WIDTH**0.5))
    q = net("Mul", q, factor) if scale == "before" else q
    logits = net("MatMul", q, k)
    logits = {"after": lambda: net("Mul", logits, factor), "divided": lambda: net("Div", logits, factor)}.get(
        scale, lambda: logits
    )()
    mixed = net("Transpose", net("MatMul", net("Softmax", logits, axis=-1), v), perm=(0, 2, 1, 3))
    flat = net("Reshape", mixed, net.constant(np.array([0, -1, HEADS * WIDTH])))
    y = net("Tanh", dense(net, flat, FEATURES, HEADS * WIDTH, bias=bias))
    out = net("MatMul", y, net.weight(FEATURES, 5))
    return net.model(out, ("n", TOKENS, FEATURES), ("n", TOKENS, 5))


def fused_attention(how: str = "packed", *, bias: bool = True, rank: int | None = None) -> onnx.ModelProto:
    """Attention in one node, behind a layer and an activation, and before a layer.

    Args:
        how: "packed" with its weights in the node, "multi head" of onnxruntime, "standard" or with heads "apart" of
            ONNX; "bias inside" for one that the node of onnxruntime adds, "rotary" for positions in the packed node,
            "shared" for keys and values that query heads share, "present" for keys and values that are outputs too.
        rank: of the projections.
    """
    net, inner = Net(), HEADS * WIDTH
    x = net("Relu", dense(net, "x", FEATURES))
    runtime = {"domain": "com.microsoft", "num_heads": HEADS}
    if how in ("packed", "rotary"):
        taken = [net.weight(FEATURES, 3 * inner, rank=rank), net.weight(3 * inner)]
        mixed = net("Attention", x, *taken[: 1 + bias], do_rotary=int(how == "rotary"), **runtime)
    else:
        few = inner // HEADS if how == "shared" else inner
        sizes = {"q": inner, "k": few, "v": few}
        parts = [dense(net, x, size, bias=bias, rank=rank, name=n) for n, size in sizes.items()]
        if how in ("multi head", "bias inside", "present"):
            inside = [net.weight(3 * inner)] * (how == "bias inside")
            mixed = net("MultiHeadAttention", *parts, *inside, outputs=3 if how == "present" else 1, **runtime)
        elif how == "apart":
            mixed = net("Attention", *(split_heads(net, part) for part in parts))
            mixed = net("Transpose", mixed, perm=(0, 2, 1, 3))
            mixed = net("Reshape", mixed, net.constant(np.array([0, -1, inner])))
        else:
            mixed = net("Attention", *parts, q_num_heads=HEADS, kv_num_heads=HEADS // (1 + (how == "shared")))
    y = net("Tanh", dense(net, mixed, FEATURES, inner, bias=bias))
    out = net("MatMul", y, net.weight(FEATURES, 5))
    return net.model(out, ("n", TOKENS, FEATURES), ("n", TOKENS, 5), opset=23)


def conv(net: Net, x: str, inputs: int, outputs: int, kernel: int = 1, group: int = 1, norm: bool = True) -> str:
    weight = net.weight(outputs, inputs // group, kernel, kernel)
    bias = () if norm else (net.weight(outputs),)
    y = net("Conv", x, weight, *bias, group=group, pads=[kernel // 2] * 4, kernel_shape=[kernel, kernel])
    if not norm:
        return y
    scales = [net.constant(net.rng.uniform(0.5, 1.5, outputs).astype(np.float32)) for _ in range(2)]
    means = [net.weight(outputs) for _ in range(2)]
    return net("BatchNormalization", y, scales[0], means[0], means[1], scales[1])


def bottlenecks(*, norm: bool = True, hindrance: str = "", width: int = 8, blocks: int = 2) -> onnx.ModelProto:
    """Inverted residuals as in MobileNetV2, with BatchNormalization or biases, and a hindrance to the rotation.

    Args:
        hindrance: "activation" on the stream, a "depthwise" convolution that reads it, or "integers", a factor for each
            channel from a table that is no weight; "" for none.
    """
    net = Net()
    x = conv(net, net("Relu", conv(net, "x", 3, 12, 3, norm=norm)), 12, width, norm=norm)
    for _ in range(blocks):
        wide = net("Relu", conv(net, x, width, 3 * width, norm=norm))
        wide = net("Relu", conv(net, wide, 3 * width, 3 * width, 3, 3 * width, norm=norm))
        x = net("Add", x, conv(net, wide, 3 * width, width, norm=norm))
        x = net("Relu", x) if hindrance == "activation" else x
    if hindrance == "integers":
        factors = net.constant(np.arange(1, width + 1).reshape(width, 1, 1))
        x = net("Mul", x, net("Cast", factors, to=onnx.TensorProto.FLOAT))
    if hindrance == "depthwise":
        x = conv(net, x, width, width, 3, width, norm=norm)
    last = net("Relu", conv(net, x, width, 16, 3, norm=norm))
    pooled = net("Flatten", net("GlobalAveragePool", last))
    return net.model(dense(net, pooled, 5, 16), ("n", 3, "h", "w"), ("n", 5))


def layer_norm(net: Net, x: str, width: int, how: str) -> str:
    """A norm over the last axis as one node, or written out as by older exporters; "rms" ones take no mean away."""
    scale = net.constant(net.rng.uniform(0.5, 1.5, width).astype(np.float32))
    shift = net.constant((0.1 * net.rng.standard_normal(width)).astype(np.float32))
    if how == "node":
        return net("LayerNormalization", x, scale, shift, axis=-1)
    x = net("Sub", x, net("ReduceMean", x, axes=[-1])) if how == "centred twice" else x
    rest = x if how.startswith("rms") else net("Sub", x, net("ReduceMean", x, axes=[-1]))
    square = net("Mul", rest, rest) if how == "squared" else net("Pow", rest, net.constant(np.float32(2)))
    root = net("Sqrt", net("Add", net("ReduceMean", square, axes=[-1]), net.constant(np.float32(1e-5))))
    return net("Add", net("Mul", net("Div", rest, root), scale), shift)


def transformer(
    how: str = "node", *, hindrance: str = "", width: int = 16, blocks: int = 2, rows: int = 1
) -> onnx.ModelProto:
    """Blocks of attention and two layers behind norms, on a stream from one layer with positions and a first token.

    Args:
        how: the norms, as `layer_norm` takes it.
        hindrance: "skip", a layer that takes the stream without a norm, or "post", norms on the stream itself;
            "absolute" and "quotient", sums over the stream that are no squares.
        rows: learned tokens before those of the input.
    """
    net = Net(1)
    first = net("Expand", net.weight(1, rows, width), net.constant(np.array([1, rows, width])))
    x = net("Concat", first, dense(net, "x", width), axis=1)
    x = net("Add", x, net.weight(1, TOKENS + rows, width))
    for _ in range(blocks):
        y = layer_norm(net, x, width, how)
        q, k, v = (dense(net, y, HEADS * WIDTH, width) for _ in range(3))
        q, k, v = split_heads(net, q), split_heads(net, k, (0, 2, 3, 1)), split_heads(net, v)
        mixed = net("MatMul", net("Softmax", net("MatMul", q, k), axis=-1), v)
        mixed = net(
            "Reshape", net("Transpose", mixed, perm=(0, 2, 1, 3)), net.constant(np.array([0, -1, HEADS * WIDTH]))
        )
        x = net("Add", x, net("Mul", dense(net, mixed, width, HEADS * WIDTH), net.weight(width)))
        y = net("Tanh", dense(net, layer_norm(net, x, width, how), 2 * width, width))
        x = net("Add", x, dense(net, y, width, 2 * width))
        x = layer_norm(net, x, width, how) if hindrance == "post" else x
    y = dense(net, net("ReduceMean", layer_norm(net, x, width, how), axes=[1], keepdims=0), 5, width)
    if hindrance == "skip":
        y = net("Add", y, dense(net, net("ReduceMean", x, axes=[1], keepdims=0), 5, width))
    if hindrance in ("absolute", "quotient"):
        total = net("ReduceMean", net("Abs", x) if hindrance == "absolute" else net("Div", x, x), axes=[-1])
        y = net("Add", y, dense(net, net("ReduceMean", net("Mul", x, total), axes=[1], keepdims=0), 5, width))
    return net.model(y, (1, TOKENS, FEATURES), (1, 5))


def unfolded(width: int = 32) -> onnx.ModelProto:
    """A map of 8 x 8 in patches of 2 x 2, tokens of which attend across patches in MobileViT: channels and rows lie on
    one axis on the way."""
    net = Net(3)
    x = conv(net, "x", 3, width, norm=False)
    x = net("Reshape", x, net.constant(np.array([4 * width, 2, 4, 2])))
    x = net("Reshape", net("Transpose", x, perm=[0, 2, 1, 3]), net.constant(np.array([1, width, 16, 4])))
    x = net("Transpose", x, perm=[0, 3, 2, 1])
    y = net("Tanh", dense(net, layer_norm(net, x, width, "node"), 2 * width, width))
    x = net("Add", x, dense(net, y, width, 2 * width))
    y = dense(net, layer_norm(net, x, width, "node"), 5, width)
    return net.model(y, (1, 3, 8, 8), (1, 4, 16, 5))


def language_model(*, even: bool = False, width: int = 16, words: int = 11) -> onnx.ModelProto:
    """A table of tokens that is transposed to give the scores; norms whose scales and shifts are one tensor each.

    Positions are looked up by GatherND; the stream is tiled, enlarged and padded with zeros on its way.

    Args:
        even: whether the scales are all one, as an exporter finds them in a network that was not trained.
    """
    net = Net(2)
    scales = np.ones(width) if even else net.rng.uniform(0.5, 1.5, width)
    scale, shift = net.constant(scales.astype(np.float32), "scale"), net.constant(np.zeros(width, np.float32))
    table = net.weight(words, width, name="table")
    places = net.constant(np.arange(TOKENS)[None, :, None])
    x = net("Add", net("Gather", table, "x"), net("GatherND", net.weight(TOKENS, width), places))
    x = net("Tile", x, net.constant(np.array([1, 2, 1])))
    x = net("Resize", x, "", net.constant(np.array([1, 0.5, 1], np.float32)), mode="nearest")
    for _ in range(2):
        y = net("LayerNormalization", x, scale, shift, axis=-1)
        y = net("Pad", y, net.constant(np.array([0, 1, 0, 0, 0, 0])), net.constant(np.float32(0)))
        y = net("Slice", y, *(net.constant(np.array([n])) for n in (0, TOKENS, 1)))  # each sees the one before
        x = net("Add", x, dense(net, net("Tanh", dense(net, y, 2 * width, width)), width, 2 * width))
    y = net("LayerNormalization", x, scale, shift, axis=-1)
    y = net("MatMul", y, net("Transpose", table, perm=[1, 0]))
    return net.model(y, ("n", TOKENS), ("n", TOKENS, words), TensorProto.INT64)


def tied(*, scaled: bool, double: bool, words: int = 500, width: int = 16) -> onnx.ModelProto:
    """A table of tokens that is transposed to give the scores, and a branch between; perhaps a scale per channel."""
    net = Net(2)
    x = net("Gather", net.weight(words, width, name="table"), "x")
    x = net("Add", x, dense(net, net("Relu", dense(net, x, 24, width)), width, 24))
    x = net("Mul", x, net.constant(net.rng.uniform(0.5, 2, width).astype(np.float32))) if scaled else x
    y = net("MatMul", x, net("Transpose", "table", perm=[1, 0]))
    model = net.model(y, ("n", TOKENS), ("n", TOKENS, words), TensorProto.INT64)
    if double:
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
        for t in model.graph.initializer:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), t.name))
    return model


def shared_vector(*, ir_version: int = 8, width: int = 16) -> onnx.ModelProto:
    """A stream that two branches add to, with a bias that is one tensor, behind and before a scale per channel."""
    net = Net(3)
    x = net("Relu", dense(net, "x", FEATURES))
    stream, bias = net("MatMul", x, net.weight(FEATURES, width)), net.weight(width, name="bias")
    scale = net.constant(net.rng.uniform(0.5, 2, width).astype(np.float32))
    stream = net("Add", net("Mul", net("Add", stream, bias), scale), bias)
    out = net("MatMul", net("Relu", dense(net, stream, 32, width)), net.weight(32, 5))
    model = net.model(out, ("n", TOKENS, FEATURES), ("n", TOKENS, 5))
    model.ir_version = ir_version
    if ir_version < 4:
        value = helper.make_tensor_value_info
        model.graph.input.extend(value(t.name, t.data_type, t.dims) for t in model.graph.initializer)
        model.opset_import[0].version = 8
    return model


def sequences(samples: int, seed: int = 0) -> np.ndarray:
    """Tokens whose features depend on each other."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).standard_normal((FEATURES, FEATURES)) * 0.8 ** np.arange(FEATURES)
    return (rng.standard_normal((samples, TOKENS, FEATURES)) @ mix).astype(np.float32)
