"""Bodies of If, Loop and Scan without what cannot change the output: what goes, what must stay, and the oracle."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from law import run as outputs_of
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument
from other_sizes import assert_same
from planted import CLOSE
from random_bodies import bodies

import onnxprune
from onnxprune.channels import analyse
from onnxprune.lossless import redundancy
from onnxprune.lossless.inside import either
from onnxprune.lossless.propagate import Knowledge
from onnxprune.model.network import Network
from onnxprune.operators.facts import Facts, facts, known, unknown
from onnxprune.operators.value_numbers import name_of
from onnxprune.surgery.rewrite import cut

RNG = np.random.default_rng(0)
SIZES = [{"N": n} for n in (1, 2, 5)]
FEEDS = [
    {"x": RNG.standard_normal((n, 6)).astype(np.float32), "m": np.array(m), "flag": np.array(f)}
    for n, m, f in [(1, 0, True), (2, 1, True), (3, 4, True), (3, 4, False), (2, 9, True)]
]


def dense(*shape: int, zero: Sequence[int] = (), alike: Sequence[int] = (), unread: Sequence[int] = ()) -> np.ndarray:
    """Weights (inputs, outputs): some outputs are zero, some twice the first of them, some inputs are not read."""
    w = RNG.uniform(-1, 1, shape) / 2
    w[..., list(zero)] = 0
    for k in alike[1:]:
        w[..., k] = 2 * w[..., alike[0]]
    w[list(unread)] = 0
    return w.astype(np.float32)


def model(nodes: str, **values: Any) -> onnx.ModelProto:
    """A network of x (N, 6), a number of rounds m and a flag, that gives y (N, 4)."""
    graph = onnx.parser.parse_graph(f"g (float[N,6] x, int64 m, bool flag) => (float[N,4] y) {{ {nodes} }}")
    known = {"w": dense(6, 8), "v": dense(8, 4), "none": np.zeros((1, 8), np.float32)} | values
    for name, value in known.items():
        array = np.asarray(value)
        graph.initializer.append(
            numpy_helper.from_array(array.astype(np.float32) if array.dtype == float else array, name)
        )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def removed(network: onnx.ModelProto, near: float = CLOSE, *, stacks: bool = False) -> dict[str, dict[str, int]]:
    """What goes, by group; both networks give the same for every feed, in two runtimes.

    stacks: a loop gives what its rounds give, which onnx's reference evaluator cannot stack.
    """
    shapes = {"x": (2, 6)}
    found = redundancy(
        Network.of(network), analyse(network, input_shapes=shapes), analyse=lambda m: analyse(m, input_shapes=shapes)
    )
    small = cut(found.model, found.deps, found.deps.dead(found.kept))
    onnx.checker.check_model(small, full_check=True)
    for feed in FEEDS:
        (want,), (got,) = outputs_of(network, feed), outputs_of(small, feed)
        np.testing.assert_allclose(got, want, rtol=0, atol=near * np.abs(want).max())
        if stacks:
            continue
        want, got = (ReferenceEvaluator(each).run(None, feed)[0] for each in (network, small))
        np.testing.assert_allclose(got, want, rtol=0, atol=10 * near * np.abs(want).max())
    return {name: dict(counts) for name, counts in found.removed.items()}


# --- branches ----------------------------------------------------------------------


BRANCHES = """
    h = MatMul(x, w)
    z = If(flag) <then_branch = t () => (float[N,8] a) { p = MatMul(h, w1) a = Relu(p) },
                  else_branch = e () => (float[N,8] b) { q = MatMul(h, w2) b = Tanh(q) }>
    y = MatMul(z, v)
"""


def test_what_is_dead_in_both_branches_goes_and_nothing_else() -> None:
    network = model(BRANCHES, w1=dense(8, 8, zero=(0, 1, 2)), w2=dense(8, 8, zero=(1, 2, 3)))
    assert list(removed(network).values()) == [{"dead": 2}]


@pytest.mark.parametrize(
    ("nodes", "defaults"),
    [
        (BRANCHES, {"flag": True}),
        (BRANCHES.replace("If(flag)", "If(other)").replace("z =", "other = Not(flag) z ="), {"flag": False}),
        ("h = MatMul(x, w) f = Cast<to=1>(m) z = Mul(h, f) y = MatMul(z, v)", {"m": np.int64(0)}),
        (
            """h = MatMul(x, w)
            z = Loop(m, , h) <body = b (int64 i, bool c, float[N,8] s1) => (bool d, float[N,8] s2) {
                d = Identity(c) s = MatMul(s1, w1) s2 = Relu(s) }>
            y = MatMul(z, v)""",
            {"m": np.int64(3)},
        ),
    ],
    ids=["a flag", "not a flag", "a factor", "a number of rounds"],
)
def test_defaults_that_a_caller_may_replace_are_not_relied_on(nodes: str, defaults: dict[str, Any]) -> None:
    network = model(nodes, w1=dense(8, 8, zero=(0, 1)), w2=dense(8, 8, zero=(1,)), **defaults)
    assert sum_of(removed(network)) == int("w2" in nodes)  # which is dead either way
    small = onnxprune.prune(network, lossless=True).model
    assert [i.name for i in small.graph.input] == ["x", "m", "flag"]


def test_what_is_alike_in_both_branches_by_one_factor_is_one_channel() -> None:
    twice = dense(8, 8)
    twice[:, 4] = 3 * twice[:, 0]
    network = model(BRANCHES, w1=dense(8, 8, alike=(0, 2)), w2=dense(8, 8, alike=(0, 3)))
    assert not removed(network)  # neither is alike in the other branch
    linear = BRANCHES.replace("Relu(p)", "Identity(p)").replace("Tanh(q)", "Identity(q)")
    assert sum_of(removed(model(linear, w1=dense(8, 8, alike=(0, 2)), w2=dense(8, 8, alike=(0, 2))))) == 1
    assert not removed(model(linear, w1=dense(8, 8, alike=(0, 4)), w2=twice))  # by two factors


def facts_in(network: onnx.ModelProto, *shape: int) -> dict[str, Facts | None]:
    """Facts of all values; `shape` is that of all that the rounds of a loop give, as a run has shown it."""
    observed = {"all": np.zeros(shape, np.float32)} if shape else None
    return Knowledge.of(Network.of(network), analyse(network, input_shapes={"x": (2, 6)}, observed=observed)).facts


def sum_of(found: dict[str, dict[str, int]], kind: str = "") -> int:
    return sum(n for counts in found.values() for k, n in counts.items() if k.startswith(kind))


@pytest.mark.parametrize(("way", "goes"), [(True, 3), (False, 2)])
def test_a_branch_that_is_always_taken_says_it_alone(way: bool, goes: int) -> None:
    nodes = BRANCHES.replace("If(flag)", "If(way)")
    network = model(nodes, way=way, w1=dense(8, 8, zero=(0, 1, 2)), w2=dense(8, 8, zero=(1, 2)))
    assert sum_of(removed(network), "dead") == goes


def test_a_dead_channel_that_a_body_captures_goes() -> None:
    """Its constant moves into the bias of the layer that reads it inside, which has none before."""
    nodes = """
        p = MatMul(x, w)  c = Add(p, b)  h = Relu(c)
        z = If(flag) <then_branch = t () => (float[N,4] a) { a = MatMul(h, v) },
                      else_branch = e () => (float[N,4] c2) { c1 = MatMul(h, v2) c2 = Add(c1, own) }>
        y = Identity(z)
    """
    network = model(nodes, w=dense(6, 8, zero=(1, 4)), b=np.full(8, 0.5), v2=dense(8, 4), own=dense(4))
    assert sum_of(removed(network), "dead") == 2


# --- rounds --------------------------------------------------------------------------

LOOP = """
    h = MatMul(x, w)
    s0 = START
    s = Loop(m, flag, s0) <body = l (int64 i, bool go, float[N,8] s1) => (bool on, float[N,8] s2) {
        on = Identity(go)  BODY
    }>
    y = MatMul(s, v)
"""


def loop(start: str, body: str) -> str:
    return LOOP.replace("START", start).replace("BODY", body)


@pytest.mark.parametrize(
    ("start", "body", "more", "expected"),
    [
        ("Mul(h, some)", "a = Mul(s1, half) s2 = Relu(a)", {}, {"dead": 2}),  # zero for all rounds
        ("Add(none0, some)", "a = MatMul(s1, u) s2 = Mul(a, some)", {"u": dense(8, 8)}, {"dead": 2}),
        ("Mul(h, some)", "a = Add(s1, ones) s2 = Relu(a)", {}, {"duplicate": 1}),  # from the second round on 1, 2, …
        ("Mul(h, some)", "a = Add(s1, b) s2 = Relu(a)", {"b": np.arange(8) / 9 + 0.1}, {"duplicate": 1}),  # by 2.1
        ("Mul(h, some)", "a = Add(s1, h) s2 = Relu(a)", {}, {}),  # zero in the first round alone
        ("Mul(h, some)", "a = Add(s1, b) s2 = Relu(a)", {"b": -np.arange(8) / 9 - 0.1}, {"dead": 2}),
        ("Mul(h, some)", "a = MatMul(s1, u) s2 = Add(s1, a)", {"u": dense(8, 8, zero=(0, 1, 2))}, {"dead": 2}),
        ("Mul(h, some)", "a = MatMul(s1, u) s2 = Add(s1, a)", {"u": dense(8, 8, zero=(1, 2))}, {"dead": 1}),
        ("Add(none0, ones)", "s2 = Identity(s1)", {}, {"dead": 7}),  # one always stays
        ("Identity(h)", "s2 = MatMul(s1, u)", {"u": dense(8, 8, zero=(0, 1))}, {}),  # there may be no round
        ("Identity(h)", "a = MatMul(s1, u) s2 = Tanh(a)", {"w": dense(6, 8, zero=(0,)), "u": dense(8, 8)}, {}),
    ],
)
def test_states(start: str, body: str, more: dict[str, Any], expected: dict[str, int]) -> None:
    some = np.float32([0, 0, 1, 2, 3, -1, -2, 0.5])
    nodes = loop(start, body)
    if "none0" in start:
        nodes = nodes.replace("h = MatMul(x, w)", "h = MatMul(x, w) none0 = Mul(h, nil)")
    values = {"some": some, "half": np.full(8, 0.5), "ones": np.ones(8), "nil": np.zeros(8)} | more
    found = removed(model(nodes, **values), 1e-5)
    assert {kind: sum_of(found, kind) for kind in expected} == expected
    assert sum_of(found) == sum(expected.values())


@pytest.mark.parametrize(("begins", "rounds", "goes"), [("", 3, 2), ("", 0, 0), ("flag", 3, 0), ("yes", 2, 2)])
def test_what_at_least_one_round_makes_constant_is_so_behind_the_loop(begins: str, rounds: int, goes: int) -> None:
    """In it, the first round still gets what it was before."""
    nodes = loop("Identity(h)", "a = Relu(s1) r = MatMul(a, u) s2 = Tanh(r)").replace("m, flag", f"r0, {begins}")
    network = model(nodes, r0=rounds, yes=True, u=dense(8, 8, zero=(0, 1)))
    found = facts_in(network)["s"]
    assert found is not None
    assert int(found.constant.sum()) == goes
    removed(network, 1e-5)


def test_copies_stay_copies_only_as_long_as_every_round_leaves_them_so() -> None:
    w, body = dense(6, 8, alike=(0, 1)), "a = MatMul(s1, u) s2 = Add(s1, a)"
    assert sum_of(removed(model(loop("Identity(h)", body), w=w, u=dense(8, 8, alike=(0, 1))), 1e-5)) == 1
    assert not removed(model(loop("Identity(h)", body), w=w, u=dense(8, 8)), 1e-5)
    late = dense(8, 8, alike=(0, 1))
    late[:, 3] = late[:, 2]
    late[5, 3] += 0.25  # the third round is the first in which 2 and 3 differ
    start = dense(6, 8, zero=(5,), alike=(0, 1))
    start[:, 3] = start[:, 2]
    shift = "a = MatMul(s1, u) c = Add(s1, a) s2 = Add(c, b)"
    found = removed(model(loop("Identity(h)", shift), w=start, u=late, b=np.float32([0, 0, 0, 0, 0, 1, 0, 0])), 1e-5)
    assert sum_of(found) == 1


def test_states_that_hang_on_each_other() -> None:
    """Each is zero as long as the other one is."""
    nodes = """
        h = MatMul(x, w)  n0 = Mul(h, nil)
        p, q = Loop(m, flag, n0, n0) <body = l (int64 i, bool go, float[N,8] p1, float[N,8] q1)
            => (bool on, float[N,8] p2, float[N,8] q2) {
                on = Identity(go)  p2 = MatMul(q1, u)  a = MatMul(p1, u)  q2 = Mul(a, h) }>
        z = Add(p, h)  r = Add(z, q)  y = MatMul(r, v)
    """
    network = model(nodes, nil=np.zeros(8), u=dense(8, 8))
    known = facts_in(network)
    assert all((f := known[name]) is not None and (f.low == 0).all() and (f.high == 0).all() for name in ("p", "q"))
    removed(network)


def test_what_all_rounds_give_is_not_what_the_last_one_gives() -> None:
    """The first of all is what q was before the first round, and p is what it was before the last one."""
    nodes = """
        h = MatMul(x, w)
        p, q, all = Loop(three, , h, h) <body = l (int64 i, bool go, float[N,8] p1, float[N,8] q1)
            => (bool on, float[N,8] p2, float[N,8] q2, float[N,8] o) {
                on = Identity(go)  p2 = Identity(q1)  a = MatMul(q1, u)  q2 = Tanh(a)  o = Identity(q1) }>
        y = MatMul(p, v)
    """
    network = model(nodes, u=dense(8, 8), three=3)
    found = facts_in(network, 3, 2, 8)
    names = [f.identity.ravel()[0] for name in ("h", "p", "q", "all") if (f := found[name]) is not None]
    assert len(set(names)) == 4


def test_a_run_has_not_shown_how_many_rounds_there_are_next_time() -> None:
    """The last of three rounds and a row of zeros is such a row; of more rounds it is none."""
    nodes = """
        h = MatMul(x, w)
        k, all = Loop(m, , h) <body = l (int64 i, bool go, float[N,8] k1) => (bool on, float[N,8] k2, float[N,8] o) {
            on = Identity(go)  k2 = Tanh(k1)  o = Identity(k2) }>
        c = Concat<axis=0>(all, row)  s = Gather<axis=0>(c, three)  z = Add(h, s)  y = MatMul(z, v)
    """
    network = model(nodes, row=np.zeros((1, 2, 8)), three=3)
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    found = facts_in(network, 3, 2, 8)["s"]
    assert found is not None
    assert not found.constant.any()


@pytest.mark.parametrize("turned", [(0, 0), (1, 1), (0, 1)])
def test_slices_are_alike_where_they_come_in_the_same_order(turned: tuple[int, int]) -> None:
    nodes = f"""
        h = MatMul(x, w)  s = Concat<axis=0>(h, h)
        o, k = Scan(s, s) <num_scan_inputs = 2, scan_input_directions = [{turned[0]}, {turned[1]}],
            scan_output_directions = [{turned[0]}, {turned[1]}],
            body = b (float[8] p, float[8] q) => (float[8] r, float[8] t) {{ r = Tanh(p)  t = Tanh(p) }}>
        z = Add(o, k)  a = Slice(z, zero, two, zero)  y = MatMul(a, v)
    """
    found = facts_in(model(nodes, zero=np.array([0]), two=np.array([2])))
    p, q, o, k = (found[name] for name in ("o.body/p", "o.body/q", "o", "k"))
    assert p is not None and q is not None and o is not None and k is not None  # noqa: PT018
    assert np.array_equal(p.identity, q.identity) == (turned[0] == turned[1])
    assert np.array_equal(o.identity, k.identity) == (turned[0] == turned[1])


def test_slices_and_stacks_along_other_axes_are_no_copies() -> None:
    """A square input, and its transpose."""
    nodes = """
        o, k = Scan(s, s) <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_output_axes = [0, 1],
            body = b (float[6] p, float[6] q) => (float[6] r, float[6] t) { r = Tanh(p)  t = Tanh(p) }>
        z = Add(o, k)  a = MatMul(z, w)  c = MatMul(a, v)  d = ReduceSum<keepdims = 1>(c)
        h = MatMul(x, w)  e = MatMul(h, v)  y = Add(e, d)
    """
    network = model(nodes)
    network.graph.input.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, (6, 6)))
    found = facts_in(network)
    for one, other in (("o.body/p", "o.body/q"), ("o", "k")):
        a, b = found[one], found[other]
        assert a is not None
        assert b is not None
        assert not np.isin(a.identity, b.identity).any()


def test_scans() -> None:
    """A recurrent cell: dead units, copies, and steps of which some features are dead."""
    nodes = """
        e = MatMul(x, w)  f = Relu(e)  g = Unsqueeze(f, zero)  t = Concat<axis=0>(g, g, g)
        n0 = MatMul(f, nil)
        h, all = Scan(n0, t) <num_scan_inputs = 1, body = b (float[N,8] h1, float[N,8] step)
            => (float[N,8] h2, float[N,8] o) {
                a = MatMul(step, u)  c = MatMul(h1, r)  d = Add(a, c)  h2 = Tanh(d)  o = Identity(h2) }>
        s = ReduceMax<keepdims=0, axes=[0]>(all)  z = Add(s, h)  y = MatMul(z, v)
    """
    u, r = dense(8, 8, zero=(0, 1)), dense(8, 8, zero=(0, 1))
    u[:, 3], r[:, 3] = u[:, 2], r[:, 2]
    network = model(nodes, zero=np.array([0]), nil=np.zeros((8, 8)), w=dense(6, 8, zero=(5,)), u=u, r=r)
    found = removed(network, 1e-5)
    assert sum_of(found, "dead") == 3
    assert sum_of(found, "duplicate") == 1


def test_bodies_inside_bodies() -> None:
    """A loop in a branch in a loop; a state of the outer one is captured two levels below."""
    nodes = """
        h = MatMul(x, w)  s0 = Mul(h, some)
        s = Loop(m, flag, s0) <body = l (int64 i, bool go, float[N,8] s1) => (bool on, float[N,8] s2) {
            on = Identity(go)
            k = If(flag) <then_branch = t () => (float[N,8] a) {
                    z0 = MatMul(s1, u)
                    z = Loop(three, yes, z0) <body = l2 (int64 j, bool go2, float[N,8] z1) => (bool on2, float[N,8] z2)
                    {   on2 = Identity(go2)  p = MatMul(s1, u)  q = Add(z1, p)  z2 = Tanh(q) }>
                    a = Mul(z, some) },
                else_branch = e () => (float[N,8] b) { b = Identity(s1) }>
            s2 = Relu(k) }>
        y = MatMul(s, v)
    """
    some = np.float32([0, 0, 1, 2, 3, -1, -2, 0.5])
    network = model(nodes, some=some, three=3, yes=True, u=dense(8, 8, zero=(2,)))
    assert sum_of(removed(network, 1e-5), "dead") == 2  # the third is zero in the branch that has it so alone


def test_integers_that_overflow_are_no_bounds() -> None:
    nodes = """
        h = MatMul(x, w)
        n, s = Loop(m, flag, n0, h) <body = l (int64 i, bool go, int8 n1, float[N,8] s1)
            => (bool on, int8 n2, float[N,8] s2) {
                on = Identity(go)  n2 = Add(n1, big)  f = Cast<to=1>(n1)  k = Relu(f)  j = Sub(f, k)
                a = Mul(h, j)  s2 = Add(s1, a) }>
        y = MatMul(s, v)
    """
    network = model(nodes, n0=np.int8(1), big=np.int8(100))
    known = facts_in(network)
    assert not any(f is not None and f.constant.all() for name, f in known.items() if name.endswith("/j"))


def test_integers_that_a_loop_leaves_alone_are_known() -> None:
    nodes = """
        h = MatMul(x, w)
        n, s = Loop(m, flag, n0, h) <body = l (int64 i, bool go, int32 n1, float[N,8] s1)
            => (bool on, int32 n2, float[N,8] s2) {
                on = Identity(go)  n2 = Mul(n1, n1)  f = Cast<to=1>(n1)  a = Mul(h, f)  s2 = Add(s1, a) }>
        y = MatMul(s, v)
    """
    found = facts_in(model(nodes, n0=np.int32(1)))["n.body/f"]
    assert found is not None
    assert found.constant.all()


STATES = [f"p{k}" for k in range(12)]


def test_states_in_a_chain_are_known_however_many_they_are() -> None:
    """In each round, a state becomes what the next one was; the last becomes what has two dead channels."""
    before, after = (", ".join(f"float[N,8] {name}.{side}" for name in STATES) for side in "ab")
    moved = "  ".join(f"{a}.b = Identity({b}.a)" for a, b in pairwise(STATES))
    nodes = f"""
        h = MatMul(x, w)  n0 = Mul(h, nil)
        {", ".join(STATES)} = Loop(m, flag, {", ".join(["n0"] * len(STATES))})
            <body = l (int64 i, bool go, {before}) => (bool on, {after})
            {{ on = Identity(go)  {moved}  {STATES[-1]}.b = Identity(h) }}>
        y = MatMul(p0, v)
    """.replace(".a", "_a").replace(".b", "_b")
    network = model(nodes, w=dense(6, 8, zero=(0, 1)), nil=np.zeros(8))
    found = facts_in(network)["p0"]
    assert found is not None
    assert found.zero.ravel().tolist() == [True, True, *[False] * 6]


def test_a_loop_in_which_each_round_tells_one_channel_less_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = """
        h = MatMul(x, w)
        s = Loop(m, flag, h) <body = l (int64 i, bool go, float[N,64] s1) => (bool on, float[N,64] s2) {
            on = Identity(go)  s2 = Gather<axis = 1>(s1, picks) }>
        y = MatMul(s, v)
    """
    w, picks = dense(6, 64, zero=range(63)), np.minimum(np.arange(64) + 1, 63)
    rounds, walk = list[int](), Knowledge.walk
    monkeypatch.setattr(Knowledge, "walk", lambda self, nodes: (rounds.append(1), walk(self, nodes))[1])
    assert facts_in(model(nodes, w=w, picks=picks, v=dense(64, 4)))["s"] is not None
    assert len(rounds) < 15


def test_a_loop_of_weights_that_draws_numbers_is_no_constant() -> None:
    nodes = """
        h = MatMul(x, w)
        s = Loop(two, yes, none) <body = l (int64 i, bool go, float[1,8] s1) => (bool on, float[1,8] s2) {
            on = Identity(go)  r = RandomNormalLike(s1)  s2 = Add(s1, r) }>
        z = Mul(h, s)  y = MatMul(z, v)
    """
    network = model(nodes, two=2, yes=True)
    knowledge = Knowledge.of(Network.of(network), analyse(network, input_shapes={"x": (2, 6)}))
    assert not knowledge.network.is_constant("s")


@given(bodies())
def test_random_bodies_give_what_they_gave(network: onnx.ModelProto) -> None:
    shapes = {"x": (2, 8)}
    found = redundancy(
        Network.of(network), analyse(network, input_shapes=shapes), analyse=lambda m: analyse(m, input_shapes=shapes)
    )
    small = cut(found.model, found.deps, found.deps.dead(found.kept)) if found.kept else network
    for k, (n, m, f) in enumerate([(2, 0, True), (3, 1, True), (2, 3, False), (4, 5, True)]):
        x = np.random.default_rng(k).standard_normal((n, 8)).astype(np.float32)
        feed = {"x": x, "m": np.array(m), "flag": np.array(f)}
        try:
            want = outputs_of(network, feed)
        except (Fail, InvalidArgument):  # no network: what a loop stacks is empty where there is no round
            continue
        for a, b in zip(want, outputs_of(small, feed), strict=True):
            if np.isfinite(a).all():
                np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * np.abs(a).max(initial=1e-3))


# --- the command --------------------------------------------------------------------


def test_the_whole_run_at_other_sizes() -> None:
    """Proven by the run itself, and by the oracle that knows nothing of it."""
    some = np.float32([0, 0, 1, 2, 3, -1, -2, 0.5])
    network = model(
        loop("Mul(h, some)", "a = MatMul(s1, u) c = Add(s1, a) s2 = Tanh(c)"), some=some, u=dense(8, 8, zero=(0, 1))
    )
    result = onnxprune.prune(network, lossless=True, measure=False)
    assert result.report.removed == {"dead": 2}
    assert_same(network, result.model, SIZES)


def test_what_a_number_of_rounds_that_is_an_input_stacks() -> None:
    """No inference knows how many slices there are, and a run of no rounds would show a stack without any."""
    nodes = """
        h = MatMul(x, w)  z0 = Mul(h, none)
        s, all = Loop(m, flag, z0) <body = l (int64 i, bool go, float[N,8] s1) => (bool on, float[N,8] s2, float[N,8] o)
            { on = Identity(go)  o = Identity(s1)  s2 = Add(s1, h) }>
        y = MatMul(all, v)
    """
    network = model(nodes, w=dense(6, 8, zero=(0, 1)))
    network.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", 1, ["K", "N", 4]))
    for seed in range(4):
        result = onnxprune.prune(network, lossless=True, measure=False, seed=seed)
        assert result.report.removed == {"dead": 2}


# --- facts of one of two values -------------------------------------------------------


def test_one_of_two_values() -> None:
    token = name_of("token")
    first, second = known(np.float64([[0, 2, 4, 1]])), known(np.float64([[0, 3, 6, 1]]))
    found = either(first, second, (5, 4), token)
    assert found is not None
    assert found.constant.tolist() == [[True, False, False, True]]
    assert found.identity[0, 1] == found.identity[0, 2]
    assert (found.scale[0, 2] / found.scale[0, 1]).item() == 2
    uneven = either(first, known(np.float64([[0, 3, 5, 1]])), (5, 4), token)
    assert uneven is not None
    assert uneven.identity[0, 1] != uneven.identity[0, 2]
    other = either(first, unknown(2, name_of("x")), (5, 4), token)
    assert other is not None
    assert not np.isfinite(other.low).any()
    same = either(unknown(2, name_of("x")), unknown(2, name_of("x")), (5, 4), token)
    assert same is not None
    assert same.identity == name_of("x")
    grown = either(facts(np.zeros((1, 4)), np.ones((1, 4)), np.zeros(4, np.uint64)), first, (5, 4), token)
    assert grown is not None
    assert grown.high.tolist() == [[1, 2, 4, 1]]
