"""Local functions: their calls end, unfold to a bearable size, and are written out, so that each can be cut on its own.

Shape inference and runtimes write every call out.  Thirty functions that each call the one before twice are a few
hundred bytes and a billion nodes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from onnx import ModelProto, NodeProto, inliner

from onnxprune.errors import ModelError
from onnxprune.model.graphs import graphs_of
from onnxprune.model.network import Network
from onnxprune.model.tensors import nodes as within
from onnxprune.model.tensors import quoted

MOST = 1 << 20  # nodes that a model may unfold to; the largest language models have a tenth of that
DEEPEST = 200  # calls inside each other; runtimes follow them by recursion

Name = tuple[str, str, str]  # domain, name, overload


def check_calls(model: ModelProto) -> None:
    """No function calls itself, on whatever way, and all calls together unfold to a model of bearable size.

    Raises:
        ModelError: a function is recursive, defined twice, or a part of a chain or an explosion of calls.
    """
    names = [(f.domain, f.name, f.overload) for f in model.functions]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ModelError(f"two functions are named {_shown(twice[0])}")
    functions = dict(zip(names, model.functions, strict=True))
    calls = {name: _calls(f.node, functions.keys()) for name, f in functions.items()}
    sizes: dict[Name, int] = {}
    depths: dict[Name, int] = {}
    for name in _callees_first(calls):
        sizes[name] = _unfolded(functions[name].node, calls[name], sizes)
        depths[name] = 1 + max((depths[called] for called in calls[name]), default=0)
        if depths[name] > DEEPEST:
            raise ModelError(f"its functions call each other over {DEEPEST} levels, up to {_shown(name)}")
        if sizes[name] > MOST:
            raise ModelError(
                f"the function {_shown(name)} unfolds to {sizes[name]:.2g} nodes, and {MOST} are supported"
            )
    total = _unfolded(model.graph.node, _calls(model.graph.node, functions.keys()), sizes)
    if functions and total > MOST:
        raise ModelError(f"with its functions written out it has {total:.2g} nodes, and {MOST} are supported")


def _shown(name: Name) -> str:
    return quoted(":".join(filter(None, name)))


def _calls(nodes: Iterable[NodeProto], known: Iterable[Name]) -> Counter[Name]:
    """How often each function is called, in bodies as well."""
    known = frozenset(known)
    found = Counter((n.domain, n.op_type, n.overload) for n in within(nodes)) if known else Counter()
    return Counter({name: count for name, count in found.items() if name in known})


def _unfolded(nodes: Iterable[NodeProto], calls: Counter[Name], sizes: dict[Name, int]) -> int:
    return sum(1 for _ in within(nodes)) + sum(sizes[name] * count for name, count in calls.items())


def _callees_first(calls: dict[Name, Counter[Name]]) -> list[Name]:
    """The functions in an order in which each comes after all that it calls.  Raises ModelError for a cycle."""
    waiting = {name: len(called) for name, called in calls.items()}
    callers: dict[Name, list[Name]] = defaultdict(list)
    for name, called in calls.items():
        for other in called:
            callers[other].append(name)
    order = [name for name, count in waiting.items() if not count]
    for name in order:
        for caller in callers[name]:
            waiting[caller] -= 1
            if not waiting[caller]:
                order.append(caller)
    if len(order) < len(calls):
        circle = next(name for name in calls if name not in set(order))
        raise ModelError(f"the function {_shown(circle)} calls itself, directly or through others")
    return order


def inlined(network: Network) -> Network:
    """The network with the nodes of local functions in place of their calls; itself where it calls none.

    A function's body stands in the file once, while its calls may lose different channels: a count of channels that
    a call bakes into a Reshape can only follow the cut in a body of its own.
    """
    model = network.graph
    known = {(function.domain, function.name) for function in model.functions}
    if not any((n.domain, n.op_type) in known for graph, _ in graphs_of(model.graph) for n in graph.node):
        return network
    return network.with_graph(inliner.inline_local_functions(_with_defaults(model)))


def _with_defaults(model: ModelProto) -> ModelProto:
    """The model with the attributes of functions that have defaults at every call, since the inliner knows none."""
    out = ModelProto()
    out.CopyFrom(model)
    defaults = {(f.domain, f.name, f.overload): list(f.attribute_proto) for f in out.functions}
    for node in within(out.graph.node, *(f.node for f in out.functions)):
        said = {attribute.name for attribute in node.attribute}
        known = defaults.get((node.domain, node.op_type, node.overload), ())
        node.attribute.extend(default for default in known if default.name not in said)
    return out
