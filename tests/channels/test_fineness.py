"""Golden lines: the groups of small graphs, as fine as their structure allows.

Each line is a group: its name, the number of its channels, and the slots that they occupy as `tensor[axis]`, with
`×n` where each channel has n positions there.  A rule that ties too much loses channels or whole lines.
"""

import pytest
from onnx import ModelProto
from text_graphs import build

from onnxprune.channels import analyse

# name: (nodes, with the shapes of weights in place of their first mention; golden lines)
GRAPHS = {
    "chain": (
        "c = Conv(x, w1[8,3,3,3], b1[8])  r = Relu(c)  y = Conv(r, w2[4,8,3,3], b2[4])",
        "w1 8: w1[0] b1[0] w2[1]",
    ),
    "residual": (
        "a = Conv(x, w1[8,3,1,1])  b = Conv(a, w2[6,8,1,1])  c = Conv(b, w3[8,6,1,1])  d = Add(a, c)"
        "  y = Conv(d, w4[4,8,1,1])",
        "w1 8: w1[0] w2[1] w3[0] w4[1]",
        "w2 6: w2[0] w3[1]",
    ),
    "concat with fan-out": (
        "a = Conv(x, w1[4,3,1,1])  b = Conv(a, w2[6,4,1,1])  c = Concat<axis=1>(a, b)  y = Conv(c, w3[5,10,1,1])",
        "w1 4: w1[0] w2[1] w3[1]",
        "w2 6: w2[0] w3[1]",
    ),
    "split in halves": (
        "a = Conv(x, w1[8,3,1,1])  p, q = Split<axis=1>(a, s{3,5})  b = Conv(p, w2[4,3,1,1])  c = Conv(q, w3[4,5,1,1])"
        "  y = Add(b, c)",
        "w1 3: w1[0] w2[1]",
        "w1#2 5: w1[0] w3[1]",
    ),
    "half of the channels go on unchanged": (
        "a = Conv(x, w1[8,3,1,1])  p, q = Split<axis=1>(a, s{4,4})  b = Conv(q, w2[4,4,1,1])  c = Concat<axis=1>(p, b)"
        "  y = Conv(c, w3[5,8,1,1])",
        "w1 4: w1[0] w3[1]",
        "w1#2 4: w1[0] w2[1]",
        "w2 4: w2[0] w3[1]",
    ),
    "overlapping slices": (
        "a = Conv(x, w1[6,3,1,1])  p = Slice(a, z{0}, e{4}, o{1})  q = Slice(a, t{2}, f{6}, o)"
        "  b = Conv(p, w2[4,4,1,1])"
        "  c = Conv(q, w3[4,4,1,1])  y = Add(b, c)",
        "w1 2: w1[0] w2[1]",
        "w1#2 2: w1[0] w2[1] w3[1]",
        "w1#3 2: w1[0] w3[1]",
    ),
    "flatten over positions": (
        "a = Conv(x, w1[8,3,1,1])  f = Flatten(a)  y = Gemm<transB=1>(f, w2[5,128], b2[5])",
        "w1 8: w1[0] w2[1]×16",
    ),
    "channels last": (
        "a = Conv(x, w1[8,3,1,1])  t = Transpose<perm=[0,2,3,1]>(a)  b = Add(t, v[8])  f = Flatten(b)"
        "  y = MatMul(f, w2[128,5])",
        "w1 8: w1[0] v[0] w2[0]×16",
    ),
    "shuffle of channels stays fine": (
        "a = Conv(x, w1[8,3,1,1])  r = Reshape(a, s{1,2,4,4,4})  t = Transpose<perm=[0,2,1,3,4]>(r)"
        "  b = Reshape(t, u{1,8,4,4})  y = Conv(b, w2[4,8,1,1])",
        "w1 8: w1[0] w2[1]",
    ),
    "two shuffles": (
        "a = Conv(x, w1[8,3,1,1])  r = Reshape(a, s{1,2,4,4,4})  t = Transpose<perm=[0,2,1,3,4]>(r)"
        "  b = Reshape(t, u{1,8,4,4})  d = Conv(b, k[8,1,3,3])<group=8>  r2 = Reshape(d, s2{1,2,4,2,2})"
        "  t2 = Transpose<perm=[0,2,1,3,4]>(r2)  b2 = Reshape(t2, u2{1,8,2,2})  y = Conv(b2, w2[4,8,1,1])",
        "w1 8: w1[0] k[0] w2[1]",
    ),
    "depthwise": (
        "a = Conv(x, w1[8,3,1,1])  d = Conv<group=8>(a, k[8,1,3,3], b1[8])  y = Conv(d, w2[4,8,1,1])",
        "w1 8: w1[0] k[0] b1[0] w2[1]",
    ),
    "depthwise with a multiplier": (
        "a = Conv(x, w1[4,3,1,1])  d = Conv<group=4>(a, k[8,1,3,3])  y = Conv(d, w2[4,8,1,1])",
        "w1 4: w1[0] k[0]×2 w2[1]×2",
    ),
    "grouped": (
        "a = Conv(x, w1[8,3,1,1])  g = Conv<group=2>(a, k[6,4,3,3])  y = Conv(g, w2[4,6,1,1])",
        "w1 4: w1[0]×2 k[1]",
        "k 3: k[0]×2 w2[1]×2",
    ),
    "batch normalisation": (
        "a = Conv(x, w1[8,3,1,1])  n = BatchNormalization(a, s[8], b[8], m[8], v[8])  y = Conv(n, w2[4,8,1,1])",
        "w1 8: w1[0] s[0] b[0] m[0] v[0] w2[1]",
    ),
    "gate": (
        "a = Conv(x, w1[8,3,1,1])  p = GlobalAveragePool(a)  q = Conv(p, w2[2,8,1,1])  r = Relu(q)"
        "  h = Conv(r, w3[8,2,1,1])  i = Sigmoid(h)  j = Mul(a, i)  y = Conv(j, w4[4,8,1,1])",
        "w1 8: w1[0] w2[1] w3[0] w4[1]",
        "w2 2: w2[0] w3[1]",
    ),
    "pixel shuffle": (
        "a = Conv(x, w1[8,3,1,1])  d = DepthToSpace<blocksize=2>(a)  y = Conv(d, w2[4,2,1,1])",
        "w1 2: w1[0]×4 w2[1]",
    ),
    "transposed convolution": (
        "a = Conv(x, w1[8,3,1,1])  d = ConvTranspose(a, k[8,6,2,2], b1[6])  y = Conv(d, w2[4,6,1,1])",
        "w1 8: w1[0] k[0]",
        "k 6: k[1] b1[0] w2[1]",
    ),
    "one bias for two layers": (
        "a = Conv(x, w1[8,3,1,1], b[8])  c = Conv(a, w2[8,8,1,1], b)  y = Conv(c, w3[4,8,1,1])",
        "w1 8: w1[0] b[0] w2[1]",
        "w2 8: w2[0] b[0] w3[1]",
    ),
    "one weight for two layers": (
        "a = Conv(x, w1[8,3,1,1])  b = Conv(a, w[8,8,1,1])  c = Conv(b, w)  y = Conv(c, w3[4,8,1,1])",
        "w1 8: w1[0] w[0] w[1] w3[1]",
    ),
    "one weight for two branches": (
        "a = Conv(x, w[8,3,1,1])  q = Relu(x)  b = Conv(q, w)  c = Concat<axis=1>(a, b)  y = Conv(c, w3[4,16,1,1])",
        "w 8: w[0] w3[1]×2",
    ),
    "local response normalisation": (
        "a = Conv(x, w1[8,3,1,1])  n = LRN<size=3>(a)  b = Conv(n, w2[6,8,1,1])  y = Conv(b, w3[4,6,1,1])",
        "w1 8: w1[0] w2[1]",
        "w2 6: w2[0] w3[1]",
    ),
    "an unknown operator keeps what it touches": (
        "a = Conv(x, w1[8,3,1,1])  n = my.Odd(a)  b = Conv(x, w2[6,3,1,1])  c = Conv(b, w3[8,6,1,1])  y = Add(n, c)",
        "w2 6: w2[0] w3[1]",
    ),
    "a layer and its output": (
        "y = Conv(x, w1[8,3,1,1])",
    ),
    "prelu, and channels picked by number": (
        "a = Conv(x, w1[4,3,1,1])  p = PRelu(a, s[4,1,1])  g = Gather<axis=1>(p, i{3,0,3})  y = Conv(g, w2[4,3,1,1])",
        "w1 1: w1[0] s[0] w2[1]",
        "w1#2 2: w1[0] s[0]",
        "w1#3 1: w1[0] s[0] w2[1]×2",
    ),
    "padding makes channels that stay": (
        "a = Conv(x, w1[4,3,1,1])  p = Pad(a, n{0,1,0,0,0,1,0,0})  y = Conv(p, w2[4,6,1,1])",
        "w1 4: w1[0] w2[1]",
    ),
    "an embedding": (
        "i = Cast<to=7>(x)  j = Flatten(i)  e = Gather(t[9,6], j)  r = ReduceMean<axes=[1],keepdims=0>(e)"
        "  y = Gemm(r, w[6,5])",
        "t 6: t[1] w[0]",
    ),
    "a norm by the mean of squares": (
        "a = Conv(x, w1[8,3,1,1])  q = Mul(a, a)  m = ReduceMean<axes=[1]>(q)  r = Sqrt(m)  n = Div(a, r)"
        "  y = Conv(n, w2[4,8,1,1])",
        "w1 8: w1[0] w2[1]",
    ),
    "lengths relative to their mean": (
        "a = Conv(x, w1[8,3,1,1])  q = ReduceL2<axes=[2,3]>(a)  m = ReduceMean<axes=[1]>(q)  r = Div(q, m)"
        "  n = Mul(a, r)  y = Conv(n, w2[4,8,1,1])",
        "w1 8: w1[0] w2[1]",
    ),
    "the norm of what was divided by its norm": (
        "a = Conv(x, w1[8,3,1,1])  q = ReduceL2<axes=[1]>(a)  d = Div(a, q)  r = ReduceL2<axes=[1]>(d)  n = Div(d, r)"
        "  y = Conv(n, w2[4,8,1,1])",
        "w1 8: w1[0] w2[1]",
    ),
    "a norm by mean and variance keeps its channels": (
        "a = Conv(x, w1[8,3,1,1])  m = ReduceMean<axes=[1]>(a)  d = Sub(a, m)  q = Mul(d, d)"
        "  v = ReduceMean<axes=[1]>(q)  r = Sqrt(v)  n = Div(d, r)  y = Conv(n, w2[4,8,1,1])",
    ),
    "a kernel of one tap over channels": (
        "a = Conv(x, w1[8,3,1,1])  r = Reshape(a, s{1,8,16})  t = Transpose<perm=[0,2,1]>(r)  b = Conv(t, w2[6,16,1])"
        "  u = Transpose<perm=[0,2,1]>(b)  y = Conv(u, w3[5,8,1])",
        "w1 8: w1[0] w3[1]",
    ),
    "one key for all heads": (
        "q = Conv(x, w1[8,3,1,1])  r = Reshape(q, s{1,2,4,16})  t = Transpose<perm=[0,1,3,2]>(r)"
        "  a = Conv(x, w2[4,3,1,1])  k = Reshape(a, u{1,1,4,16})  y = MatMul(t, k)",
        "w1 4: w1[0]×2 w2[0]",
    ),
    "groups whose heads are as many": (
        "a = Conv(x, w1[8,3,1,1])  g = Conv<group=2>(a, w2[12,4,1,1])  r = Reshape(g, s{2,6,16})"
        "  q, k = Split<axis=1>(r, h{3,3})  t = Transpose<perm=[0,2,1]>(q)  y = MatMul(t, k)",
        "w1 4: w1[0]×2 w2[1]",
        "w2 3: w2[0]×4",
    ),
    "groups of a convolution that a norm keeps whole": (
        "a = Conv(x, w1[8,3,1,1])  g = Conv<group=4>(a, w2[12,2,1,1])  r = Reshape(g, s{4,3,16})"
        "  n = Softmax<axis=1>(r)  f = Reshape(n, u{1,12,4,4})  y = Conv(f, w3[5,12,1,1])",
        "w1 4: w1[0]×2 w2[0]×3 w3[1]×3",
    ),
    "filters mixed from a bank": (
        "a = Conv(x, w1[4,3,1,1])  p = ReduceMean<axes=[2,3],keepdims=0>(x)  m = MatMul(p, w2[3,24])"
        "  f = Reshape(m, s{6,4,1,1})  b = Conv(a, f)  y = Conv(b, w3[5,6,1,1])",
        "w1 4: w1[0] w2[1]×6",
        "w2 6: w2[1]×4 w3[1]",
    ),
    "mean of squares over channels": (
        "a = Conv(x, w1[8,3,1,1])  q = Mul(a, a)  r = ReduceSum(q, o{1})  b = Conv(r, w2[6,1,1,1])"
        "  y = Conv(b, w3[4,6,1,1])",
        "w1 8: w1[0]",
        "w2 6: w2[0] w3[1]",
    ),
}  # fmt: skip


def lines(model: ModelProto) -> list[str]:
    found = []
    for group in analyse(model).groups:
        slots = [(f"{s.source}[{s.axis}]", s.positions.shape[1]) for s in group.slots]
        told = " ".join(slot if n == 1 else f"{slot}×{n}" for slot, n in slots)
        found.append(f"{group.name} {len(group)}: {told}")
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_groups_are_as_fine_as_they_can_be(name: str) -> None:
    nodes, *golden = GRAPHS[name]
    assert lines(build(nodes)) == golden
