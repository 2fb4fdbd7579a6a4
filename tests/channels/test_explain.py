"""A layer that cannot be cut has a reason, the same in every place that speaks of it."""

import onnx
import pytest
from patterns.blocks import heads_in_batch
from patterns.builder import NONE, Net

from onnxprune import inspect, prune
from onnxprune.channels import analyse
from onnxprune.channels.explain import explain
from onnxprune.channels.nodes import Use
from onnxprune.channels.unite import unite
from onnxprune.operators.coupling import Coupling


def model_of(net: Net, y: str) -> onnx.ModelProto:
    return net.model((1, 3, 8, 8), [y], 1, (1, 3, 8, 8))


def test_weights_that_a_caller_may_replace() -> None:
    """All but one constant are listed as inputs: nothing can be cut, and the layers and their costs are still known."""
    net = Net()
    y = net.cbr(net.op("Mul", "x", net.weight(1, name="const")), 3, 8)
    model = model_of(net, net.head(y, 8))
    listed = [t for t in model.graph.initializer if not t.name.startswith("const")]
    model.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in listed)
    report = prune(model, ratio=0.5, measure=False).report
    assert report.before.macs == report.after.macs > 0
    assert all("the caller may replace" in row.reason for row in report.frozen)
    assert len(report.frozen) == 2


def test_channels_that_live_and_die_together_are_nothing_to_be_cut() -> None:
    """Each is added to the next one, and the last to the first."""
    net = Net()
    y = net.conv("x", 3, 4, dead=NONE)
    turned = net.op("Gather", y, net.ints(1, 2, 3, 0), axis=1)
    model = model_of(net, net.head(net.op("Add", y, turned), 4))
    conv = model.graph.node[0].name
    found = inspect(model)
    assert not found.groups
    assert any("live and die together" in row.reason for row in found.frozen)
    (told,) = {e.verdict for e in [explain(analyse(model), conv)]}
    assert told.startswith("none of the 4 channels")
    assert "live and die together" in told


def test_a_unit_of_one_channel_is_nothing_to_be_cut() -> None:
    """Half of a layer is normalised in one group with what another layer gives: it is one unit, and so is that."""
    net = Net()
    y = net.cbr("x", 3, 6)
    heads = net.reshape(net.conv(y, 6, 8), 1, 2, 4, 64)
    turned = net.op("Gather", heads, net.ints(1, 0), axis=1)
    mixed = net.op("Add", heads, net.op("Gather", turned, net.ints(1, 2, 3, 0), axis=2))
    model = model_of(net, net.head(net.reshape(mixed, 1, 8, 8, 8), 8))
    found, report = inspect(model), prune(model, ratio=0.5, measure=False).report
    assert [group.channels for group in found.groups] == [group.channels for group in report.groups] == [6]
    told = explain(analyse(model), model.graph.node[2].name).verdict
    assert told.startswith("none of the 8 channels")


@pytest.mark.parametrize("group", [1, 2])
def test_channels_of_which_some_can_go_have_none(group: int) -> None:
    net = Net()
    model = model_of(net, net.head(net.cbr(net.cbr("x", 3, 4), 4, 4, group=group), 4))
    assert len(inspect(model).frozen) == 1


def test_what_is_frozen_at_every_size_has_its_own_reason() -> None:
    """The network is looked at once more at another batch; what cannot go at either is told as it was."""
    model = heads_in_batch(Net())
    deps, last = analyse(model), len(model.graph.node) - 1
    (told,) = {deps.reason(labels) for use, _, labels in deps.whole_writers() if use.node == last}
    assert told == "it is an output of the network"


def test_a_tensor_that_is_taken_at_one_size_alone_freezes_no_other() -> None:
    """A mask that is as large as the input is one there and none here: what else both sizes take is compared."""
    here, there = Coupling(), Coupling()
    first, second, mask = here.label(4), here.label(4), here.label(3)
    one, two, odd, tied = there.label(4), there.label(4), there.label(5), there.label(4)
    there.tie(one, two)
    there.tie(tied[:1], odd[:1])
    third = here.label(4)
    uses = [Use("w", 0, 1, (first,)), Use("v", 1, 1, (second,)), Use("m", 2, 0, (mask,)), Use("u", 3, 1, (third,))]
    others = [Use("w", 0, 1, (one,)), Use("v", 1, 1, (two,)), Use("m", 2, 0, (odd,)), Use("u", 3, 1, (tied,))]
    unite(here, uses, there, others, 1)
    component = here.solve()
    assert (component[first] == component[second]).all()
    assert (component[mask] == component[0]).all()
    assert (component[third] == component[0]).tolist() == [True, False, False, False]
    assert not (component[first] == component[0]).any()
