"""Structures whose axes change their part: spatial axes made of channels, groups and heads, banks of weights."""

from patterns.builder import NONE, Net, pattern


@pattern("pointwise convolution along an axis made of channels", 2, 8, 20)
def over_a_state(net: Net, k: int) -> str:
    """Mixing in a state of few positions (Vision Mamba's hidden state mixer): the positions are channels."""
    read = net.conv("x", 8, 16 * k, 1, rank=1)
    write = net.op("Softmax", net.conv("x", 8, 16 * k, 1, rank=1), axis=-1)
    state = net.op("MatMul", net.conv("x", 8, 6 * k, 1, rank=1), net.transpose(net.op("Mul", write, read), 0, 2, 1))
    mixed = net.relu(net.conv(state, 6 * k, 10 * k, 1, rank=1))
    return net.conv(net.op("MatMul", mixed, read), 10 * k, 4, 1, rank=1, dead=NONE)
