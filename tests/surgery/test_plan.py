"""Plans: what is to be removed, as a value that is saved, read, checked and applied again."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from text_graphs import build

from onnxprune.channels import analyse
from onnxprune.errors import FileError, UsageError
from onnxprune.surgery import Plan, cut
from onnxprune.surgery.plan import check_plan, make_plan

NODES = "a = Conv(x, w1[8,3,1,1], b[8])  c = Conv(a, w2[8,8,1,1], b)  y = Conv(c, w3[4,8,1,1])"
DEPS = analyse(build(NODES))
KEPT = {"w1": np.array([0, 2, 5]), "w2": np.array([1, 2])}
SOURCE = {"sha256": "0" * 64, "name": "some.onnx"}


def plan() -> Plan:
    return make_plan(DEPS, KEPT, source=SOURCE, options={"ratio": 0.5})


def test_a_plan_says_what_each_tensor_keeps() -> None:
    found = plan()
    assert {g.name: g.keep for g in found.groups} == {"w1": (0, 2, 5), "w2": (1, 2)}
    assert found.initializers["w2"] == {0: (1, 2), 1: (0, 2, 5)}
    assert found.initializers["w3"] == {1: (1, 2)}
    assert list(found.copies.values()) == ["b"]
    assert list(found.readers.values()) == [("c",)]


def test_anyone_can_check_the_surgery_from_it() -> None:
    model, found = build(NODES), plan()
    pruned = {t.name: numpy_helper.to_array(t) for t in cut(model, DEPS, DEPS.dead(found.kept)).graph.initializer}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        for axis, positions in found.initializers.get(tensor.name, {}).items():
            array = np.take(array, positions, axis)
        np.testing.assert_array_equal(pruned[tensor.name], array)


def test_a_plan_survives_json(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan().save(path)
    assert Plan.load(path) == plan()
    assert json.loads(path.read_text())["version"] == 2


def test_a_plan_of_the_first_version_is_read() -> None:
    old = plan().to_json() | {"version": 1}
    found = Plan.from_json({k: v for k, v in old.items() if k not in ("readers", "computed", "digests", "content")})
    assert found.copies == plan().copies
    assert found.digests is found.content is None
    check_plan(DEPS, found)


def test_a_plan_prints() -> None:
    assert str(plan()).splitlines() == ["w1      8 →     3", "w2      8 →     2"]


def test_groups_that_are_not_named_stay_whole() -> None:
    found = make_plan(DEPS, {"w1": KEPT["w1"]}, source=SOURCE)
    assert len(found.kept["w2"]) == 8


@pytest.mark.parametrize("keep", [[], [8], [-1]])
def test_a_group_keeps_channels_that_it_has(keep: list[int]) -> None:
    with pytest.raises(UsageError, match=f"at least one must stay; asked: {re.escape(str(keep))}"):
        make_plan(DEPS, {"w1": np.array(keep, np.int64)}, source=SOURCE)


def test_unknown_groups() -> None:
    with pytest.raises(UsageError, match="no group is named 'w9'"):
        make_plan(DEPS, {"w9": np.array([0])}, source=SOURCE)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1}', '{"version": 3}', '{"version": true}', "nonsense", "null", '"text"']
)
def test_what_is_no_plan(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        Plan.load(tmp_path / "plan.json")
    assert "\n" not in str(caught.value)


def test_what_a_plan_lacks_is_named() -> None:
    with pytest.raises(UsageError, match="no onnxprune plan: it has no 'version'"):
        Plan.from_json({})


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        Plan.load(tmp_path / "none.json")
    with pytest.raises(FileError):
        plan().save(tmp_path / "none" / "plan.json")


def test_a_plan_fits_its_network_and_no_other() -> None:
    check_plan(DEPS, plan())
    with pytest.raises(UsageError, match="'w2' that this network has not"):
        check_plan(analyse(build("a = Conv(x, w1[8,3,1,1])  y = Conv(a, w3[4,8,1,1])")), plan())
    with pytest.raises(UsageError, match="has 6 channels here and 8 in the plan"):
        check_plan(analyse(build(NODES.replace("8", "6"))), plan())
    with pytest.raises(UsageError, match="cuts other tensors"):
        check_plan(analyse(build(NODES.replace("y = Conv(c, w3", "y = Conv(c, w4"))), plan())
