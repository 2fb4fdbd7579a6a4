"""Lossless pruning of attention in one node: heads that are zero, unread or copies go, all else stays."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from planted import CLOSE, Net, gone, lossless

from onnxprune.channels import analyse
from onnxprune.lossless import redundancy
from onnxprune.model.network import Network

HEADS, WIDTH, FEATURES, TOKENS = 4, 4, 6, 5
RUNTIME = {"domain": "com.microsoft", "num_heads": HEADS}


def head(k: int) -> slice:
    return slice(WIDTH * k, WIDTH * (k + 1))


class Attention:
    """Weights of an attention between two layers, to be planted in, and the network with it in one node."""

    def __init__(self, seed: int = 0) -> None:
        self.net = Net(seed)
        filters, inner = self.net.filters, HEADS * WIDTH
        self.made = [np.vstack([filters(FEATURES, inner), filters(1, inner)]) for _ in "qkv"]  # the last row is a bias
        self.read = filters(inner, 5)

    def zero(self, k: int) -> None:
        self.made[2][:, head(k)] = 0

    def unread(self, k: int) -> None:
        self.read[head(k)] = 0

    def copied(self, k: int, onto: int) -> None:
        for array in self.made:
            array[:, head(onto)] = array[:, head(k)]

    def model(self, kind: str, *, outputs: int = 1, shared: int = 1, heads: int = HEADS) -> onnx.ModelProto:
        """The network; `shared` query heads stand over each key and value, those of the first heads."""
        net, few = self.net, HEADS // shared * WIDTH
        own = [a if k == 0 else a[:, :few] for k, a in enumerate(self.made)]
        if kind == "packed":
            w, b = (net.tensor(np.concatenate(x, -1)) for x in ([a[:-1] for a in own], [a[-1] for a in own]))
            y = net.op("Attention", "x", w, b, **{**RUNTIME, "num_heads": heads})
        else:
            y = self._with_inputs(kind, own, heads, shared, outputs)
        y = net.op("MatMul", y, net.tensor(self.read))
        model = net.model(y, TOKENS, FEATURES, opset=23)
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info(y, 1, ["n", TOKENS, 5]))
        return model

    def _with_inputs(self, kind: str, own: list[np.ndarray], heads: int, shared: int, outputs: int) -> str:
        net = self.net
        q, k, v = (net.op("MatMul", "x", net.tensor(a[:-1])) for a in own)
        if kind == "bias inside":
            return net.op("MultiHeadAttention", q, k, v, net.tensor(np.concatenate([a[-1] for a in own])), **RUNTIME)
        q, k, v = (net.op("Add", x, net.tensor(a[-1])) for x, a in zip((q, k, v), own, strict=True))
        counts = {"q_num_heads": heads, "kv_num_heads": heads // shared}
        if kind == "standard":
            return net.op("Attention", q, k, v, **counts)
        if kind == "apart":
            grids = (net.op("Reshape", x, net.ints(0, 0, -1, WIDTH)) for x in (q, k, v))
            y = net.op("Attention", *(net.op("Transpose", x, perm=[0, 2, 1, 3]) for x in grids))
            return net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, HEADS * WIDTH))
        y = net.op("MultiHeadAttention", q, k, v, **RUNTIME)
        net.nodes[-1].output.extend(f"present{j}" for j in range(1, outputs))
        return y


KINDS = ("packed", "multi head", "bias inside", "standard", "apart")


@pytest.mark.parametrize("kind", KINDS)
def test_heads_without_values_and_heads_that_nothing_reads_go(kind: str) -> None:
    planted = Attention()
    planted.zero(1)
    planted.unread(2)
    found, small, error = lossless(planted.model(kind))
    assert sorted(found.removed.values(), key=str) == [{"dead": 1, "ignored": 1}]
    assert error < CLOSE
    node = next(n for n in small.graph.node if "Attention" in n.op_type)
    assert {a.name: a.i for a in node.attribute if a.name.endswith("num_heads")} == (
        {} if kind == "apart" else dict.fromkeys(("q_num_heads", "kv_num_heads"), 2) if kind == "standard"
        else {"num_heads": 2}
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_heads_of_which_a_part_is_weighed_stay(kind: str) -> None:
    """One feature of values, and a row of the layer that reads it, in heads whose others are zero."""
    planted = Attention()
    planted.zero(1)
    planted.made[2][0, head(1)][2] = 1
    planted.unread(2)
    planted.read[head(2)][3] = 1
    found, _, _ = lossless(planted.model(kind))
    assert not gone(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoiled", [None, 0, 1, 2])
def test_copies_of_heads_become_one_where_queries_keys_and_values_are_alike(kind: str, spoiled: int | None) -> None:
    planted = Attention()
    planted.copied(0, 3)
    if spoiled is not None:
        planted.made[spoiled][0, head(3)] *= 2
    found, _, error = lossless(planted.model(kind))
    assert gone(found, "duplicate") == gone(found) == (spoiled is None)
    assert error < CLOSE


@pytest.mark.parametrize(("same", "goes"), [(True, 1), (False, 0)])
@pytest.mark.parametrize("kind", ["packed", "multi head"])
def test_copies_of_heads_with_masks_of_their_own_stay(kind: str, same: bool, goes: int) -> None:
    planted = Attention()
    planted.copied(0, 3)
    model = planted.model(kind)
    node = next(n for n in model.graph.node if "Attention" in n.op_type)
    mask = planted.net.filters(1, 1 if same else HEADS, TOKENS, TOKENS).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    node.input.extend([*[""] * (5 - len(node.input)), "mask"])
    found, _, error = lossless(model)
    assert gone(found) == goes
    assert error < CLOSE


@pytest.mark.parametrize("unread", [(2,), (2, 3)])
def test_query_heads_that_share_keys_go_together(unread: tuple[int, ...]) -> None:
    planted = Attention()
    for k in unread:
        planted.unread(k)
    found, _, error = lossless(planted.model("standard", shared=2))
    assert gone(found) == len(unread) - 1
    assert error < CLOSE


def test_heads_whose_keys_are_an_output_stay() -> None:
    planted = Attention()
    planted.unread(2)
    model = planted.model("multi head", outputs=3)
    value = helper.make_tensor_value_info("present1", 1, ["n", HEADS, TOKENS, WIDTH])
    assert gone(redundancy(Network.of(model), analyse(model), analyse=analyse)) == 0
    model.graph.output.append(value)
    assert gone(redundancy(Network.of(model), analyse(model), analyse=analyse)) == 0


@pytest.mark.parametrize("kind", ["packed", "standard"])
def test_a_single_head_loses_values_and_no_keys(kind: str) -> None:
    planted = Attention()
    planted.made[2][:, [1, 5]] = 0
    planted.read[[4, 5, 7]] = 0
    found, _, error = lossless(planted.model(kind, heads=1))
    assert sorted(found.removed.values(), key=str) == [{"dead": 2, "ignored": 2}]
    assert error < CLOSE
