"""A network whose filters have mean 0 and length 1, as the graph computes it."""

import onnx
from patterns.builder import ODD, Net


def standardised(net: Net, y: str, cin: int, cout: int) -> str:
    """A convolution whose filters have mean 0 and length 1 over all their inputs, and a gain of their own."""
    w = net.weight(cout, cin, 3, 3, name="raw")
    w = net.op("Sub", w, net.op("ReduceMean", w, axes=[1, 2, 3]))
    w = net.op("Div", w, net.op("ReduceL2", w, axes=[1, 2, 3]))
    w = net.op("Mul", w, net.weight(cout, 1, 1, 1, dead=[(0, ODD)], low=0.5))
    return net.relu(net.op("Conv", y, w, net.weight(cout, dead=[(0, ODD)], low=-0.5), pads=[1] * 4))


def standardised_network() -> onnx.ModelProto:
    net = Net()
    y = standardised(net, net.cbr("x", 3, 16), 16, 16)
    y = net.head(standardised(net, y, 16, 8), 8)
    return net.model((1, 3, 8, 8), [y], 1, (1, 3, 8, 8))
