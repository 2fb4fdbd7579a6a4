"""The column `reach`: what it leaves out is left as it is by onnxruntime, whatever a channel becomes."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.operators.reach import Reach
from onnxprune.operators.registry import Taken, operator_of
from onnxprune.runtime.session import make_session

RUNTIME = {"domain": "com.microsoft", "num_heads": 2}
SHARED = {"q_num_heads": 4, "kv_num_heads": 2}
NODES = {  # operator, shapes of the inputs (None where one is left out), attributes, rows
    "packed": ("Attention", [(2, 3, 5), (5, 24), (24,), None, None, (2, 2, 3, 3)], RUNTIME, 7),
    "of several sizes": ("Attention", [(2, 3, 5), (5, 20), (20,)], RUNTIME | {"qkv_hidden_sizes": [4, 4, 12]}, 6),
    "multi head": (
        "MultiHeadAttention", [(2, 3, 8), (2, 4, 8), (2, 4, 8), (24,), None, (2, 2, 3, 4)], RUNTIME, 7,
    ),
    "standard": ("Attention", [(2, 3, 16), (2, 4, 8), (2, 4, 6), (2, 4, 3, 4)], SHARED, 4),
    "apart": ("Attention", [(2, 4, 3, 5), (2, 2, 4, 5), (2, 2, 4, 6), (4, 3, 4)], {}, 5),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "shapes", "attributes", "count"), NODES.values(), ids=NODES)
def test_a_channel_has_a_part_in_outputs_of_its_number_alone(
    kind: str, shapes: list[tuple[int, ...] | None], attributes: dict, count: int
) -> None:
    names = [f"i{k}" if shape else "" for k, shape in enumerate(shapes)]
    node = helper.make_node(kind, names, ["y"], **attributes)
    kinds = [helper.make_tensor_value_info(n, 1, s) for n, s in zip(names, shapes, strict=True) if s]
    out = helper.make_tensor_value_info("y", 1, None)
    imports = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", kinds, [out])
    session = make_session(helper.make_model(graph, opset_imports=imports, ir_version=10))
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in zip(names, shapes, strict=True) if s}
    given = {k: v for k, v in attributes.items() if k != "domain"}
    reach = operator_of(node).reach
    assert reach is not None
    rows: list[Reach] = reach(Taken(given, shapes, lambda _: None))
    assert len(rows) == count
    before, moved = session.run(feeds)["y"], set[int]()
    for row in rows:
        for number in set(row.own.tolist()) - {-1}:
            changed = feeds[names[row.place]].copy()
            at = (slice(None),) * row.axis + (row.own == number,)
            changed[at] += rng.standard_normal(changed[at].shape).astype(np.float32)
            after = session.run(feeds | {names[row.place]: changed})["y"]
            same = np.isclose(np.moveaxis(after, row.onto, 0), np.moveaxis(before, row.onto, 0), atol=1e-6)
            still = same.reshape(len(same), -1).all(axis=1)
            assert still[row.reached != number].all()
            moved |= set() if still.all() else {row.place}
    assert moved == {row.place for row in rows}
