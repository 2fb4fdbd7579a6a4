"""Control flow: branches, loops and what they capture."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from patterns.builder import NONE, ODD, Net, pattern

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def body(
    net: Net, build: Callable[[Net], list[str]], inputs: list[tuple[str, int, list[int] | None]]
) -> onnx.GraphProto:
    """A body whose nodes take the weights of the network around them."""
    outer, net.nodes = net.nodes, []
    outputs = build(net)
    nodes, net.nodes = net.nodes, outer
    return helper.make_graph(
        nodes,
        f"body{len(outer)}",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(name, BOOL if name.startswith("not") else FLOAT, None) for name in outputs],
    )


@pattern("If: branches of the same width", 1, 3, 8, 8)
def branches(net: Net, k: int) -> str:
    """Both branches read what was made before, have hidden channels of their own, and write the same channels."""
    y = net.cbr("x", 3, 8 * k)

    def narrow(net: Net) -> list[str]:
        return [net.cbr(net.cbr(y, 8 * k, 4 * k, 1), 4 * k, 6 * k)]

    def plain(net: Net) -> list[str]:
        return [net.cbr(y, 8 * k, 6 * k, 1)]

    mean = net.op("ReduceMean", "x", keepdims=0)
    large = net.op("Greater", mean, net.tensor(np.float32(0)))
    z = net.op("If", large, then_branch=body(net, narrow, []), else_branch=body(net, plain, []))
    return net.head(z, 6 * k)


@pattern("Loop: a residual block in every round", 1, 3, 8, 8)
def loop(net: Net, k: int) -> str:
    c = 8 * k

    def block(net: Net) -> list[str]:
        z = net.cbr(net.cbr("state", c, 6 * k), 6 * k, c)
        return [net.op("Not", net.op("Not", "go")), net.op("Add", "state", z)]

    inputs = [("round", INT, []), ("go", BOOL, []), ("state", FLOAT, None)]
    y = net.cbr("x", 3, c)
    rounds, go = net.tensor(np.array(3), "ints"), net.tensor(np.array(True))
    return net.head(net.op("Loop", rounds, go, y, body=body(net, block, inputs)), c)


@pattern("Scan: a recurrent cell", 5, 2, 6)
def scan(net: Net, k: int) -> list[str]:
    """Steps of (batch, features); the state is (batch, units)."""
    c = 8 * k

    def cell(net: Net) -> list[str]:
        w, r = net.weight(6, c, dead=[(1, ODD)]), net.weight(c, c, dead=[(1, ODD)])
        h = net.op("Tanh", net.op("Add", net.op("MatMul", "step", w), net.op("MatMul", "state", r)))
        return [h, net.op("Identity", h)]

    inputs = [("state", FLOAT, None), ("step", FLOAT, None)]
    zeros = net.tensor(np.zeros((2, c), np.float32))
    h, y = net.op("Scan", zeros, "x", outputs=2, num_scan_inputs=1, body=body(net, cell, inputs))
    return [net.linear(h, c, 3, dead=NONE), net.project(y, c, 3, dead=NONE)]
