"""Models from strangers through the whole command: one line, the right exit code, and nothing left behind."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runs import CUT, DIGITS, SHARED, Runner, finished, nothing_written, process
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.model import inference, inferrer, load
from onnxprune.model.inference import CRASHES, Inference

RNG = np.random.default_rng(0)
UNSUPPORTED = SHARED / "unsupported"


def value(name: str, shape: Sequence[int] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def floats(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def numbers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def network(middle: Sequence[NodeProto] = (), tensors: Sequence[TensorProto] = (), **more: Any) -> ModelProto:
    """Two convolutions, `c` to `d`, and what is between them: a Relu unless it is given."""
    between = list(middle) or [helper.make_node("Relu", ["c"], ["d"], name="relu")]
    nodes = [helper.make_node("Conv", ["x", "w1"], ["c"], name="conv1"), *between]
    nodes.append(helper.make_node("Conv", ["d", "w2"], ["y"], name="conv2"))
    weights = [floats("w1", 8, 3, 3, 3), floats("w2", 4, 8, 3, 3), *tensors]
    graph = helper.make_graph(nodes, "g", more.get("inputs") or [value("x", [1, 3, 9, 9])], [value("y")], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def changed(change: Callable[[ModelProto], object]) -> Callable[[], ModelProto]:
    def make() -> ModelProto:
        model = network()
        change(model)
        return model

    return make


# --- functions ---------------------------------------------------------------


def function(model: ModelProto, name: str, called: Sequence[tuple[str, str]]) -> None:
    """A function that calls others one after the other, (domain, operator)."""
    made = model.functions.add(name=name, domain="my", input=["v0"], output=[f"v{len(called)}"])
    made.opset_import.extend([helper.make_opsetid("", 17), helper.make_opsetid("my", 1)])
    for k, (domain, operator) in enumerate(called):
        made.node.add(op_type=operator, domain=domain, input=[f"v{k}"], output=[f"v{k + 1}"])


def calling(*functions: tuple[str, Sequence[tuple[str, str]]]) -> Callable[[], ModelProto]:
    """The last of the functions stands between the convolutions."""

    def make() -> ModelProto:
        model = network([helper.make_node(functions[-1][0], ["c"], ["d"], domain="my")])
        model.opset_import.append(helper.make_opsetid("my", 1))
        for name, called in functions:
            function(model, name, called)
        return model

    return make


def chain(length: int, times: int) -> list[tuple[str, list[tuple[str, str]]]]:
    """Functions that each call the one before so many times."""
    return [(f"F{k}", [("my", f"F{k - 1}") if k else ("", "Relu")] * times) for k in range(length)]


# --- bodies ------------------------------------------------------------------


def field(number: int, data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while length >= 128:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *out, length]) + data


def nested(levels: int) -> bytes:
    """If inside If, encoded by hand: protobuf itself refuses to build what is too deep."""
    graph = field(12, field(1, b"y"))
    for _ in range(levels):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(4, b"If") + field(5, attribute)) + field(12, field(1, b"y"))
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


def renamed(prefix: str) -> Callable[[], ModelProto]:
    """Every name in the model begins like that."""

    def rename(model: ModelProto) -> None:
        names = {name: prefix + name for name in ("x", "c", "d", "y", "w1", "w2")}
        for node in model.graph.node:
            node.name = prefix + node.name
            node.input[:] = [names[name] for name in node.input]
            node.output[:] = [names[name] for name in node.output]
        for item in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            item.name = names[item.name]
        model.graph.name = model.doc_string = model.producer_name = prefix

    return changed(rename)


KINDS = {
    "a sequence": helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None)),
    "an optional": helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None)),
    "a map": helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])),
    "a sparse tensor": helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]),
}


def taking(kind: onnx.TypeProto) -> ModelProto:
    """A network with one more input, of this type."""
    return network(inputs=[value("x", [1, 3, 9, 9]), helper.make_value_info("other", kind)])


def wide(channels: int) -> ModelProto:
    """A network whose one layer has so many channels."""
    model = network()
    weights = [TensorProto(name="w1", data_type=1, dims=[channels, 3, 1, 1], raw_data=bytes(12 * channels))]
    weights.append(TensorProto(name="w2", data_type=1, dims=[1, channels, 1, 1], raw_data=bytes(4 * channels)))
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return model


def no_outputs(model: ModelProto) -> None:
    model.graph.ClearField("output")


def twice(graph: GraphProto) -> None:
    graph.initializer.append(graph.initializer[0])
    graph.initializer[-1].raw_data = bytes(len(graph.initializer[0].raw_data))


REFUSED: dict[str, tuple[Callable[[], ModelProto | bytes], str]] = {
    "a function that calls itself": (calling(("F", [("my", "F")])), "calls itself"),
    "functions in a circle": (calling(("G", [("my", "F")]), ("F", [("my", "G")])), "calls itself"),
    "a function bomb": (calling(*chain(30, 2)), "unfolds to"),
    "a long chain of functions": (calling(*chain(1000, 1)), "200 levels"),
    "two functions of one name": (calling(("F", [("", "Relu")]), ("F", [("", "Relu")])), "two functions"),
    "bodies over 5,000 levels": (lambda: nested(5000), "damaged"),
    "no graph outputs": (changed(no_outputs), "no outputs"),
    "no graph at all": (changed(lambda m: m.ClearField("graph")), "no graph"),
    "two tensors of one name": (changed(lambda m: twice(m.graph)), "two different initializers"),
    "an input of 5,000 axes": (lambda: network(inputs=[value("x", [1] * 5000)]), "axes"),
    "an input of 2^34 pixels": (lambda: network(inputs=[value("x", [1, 3, 1 << 17, 1 << 17])]), "memory"),
    "tiles": (
        lambda: network([helper.make_node("Tile", ["c", "t"], ["d"])], [numbers("t", 1, 1, 100_000, 100_000)]),
        "memory",
    ),
    "thousands of axes": (
        lambda: network([helper.make_node("Einsum", ["c"], ["d"], equation="bchw->bchw" * 1000)]),
        "memory",
    ),
    "an expansion": (
        lambda: network([helper.make_node("Expand", ["c", "t"], ["d"])], [numbers("t", 1 << 30, 8, 7, 7)]),
        "memory",
    ),
    "a long range": (
        lambda: network(
            [
                helper.make_node("Range", ["a", "b", "s"], ["r"]),
                helper.make_node("Cast", ["r"], ["f"], to=1),
                helper.make_node("ReduceSum", ["f"], ["q"], keepdims=0),
                helper.make_node("Add", ["c", "q"], ["d"]),
            ],
            [numpy_helper.from_array(np.array(n), name) for n, name in ((0, "a"), (1 << 44, "b"), (1, "s"))],
        ),
        "memory",
    ),
    "the axis of a norm at 2^63": (
        lambda: network(
            [helper.make_node("LayerNormalization", ["c", "s"], ["d"], axis=(1 << 63) - 1)], [floats("s", 7)]
        ),
        "onnxruntime cannot",
    ),
    "one part too many": (
        lambda: network([helper.make_node("Split", ["c"], ["d", "e", "f"], axis=1, num_outputs=2)]),
        "onnxruntime cannot load",
    ),
    "an operator set 2^62": (
        changed(lambda m: m.opset_import.append(helper.make_opsetid("my", 1 << 62))),
        "version 4611686018427387904",
    ),
    **{f"{name} that it takes": (lambda kind=kind: taking(kind), "is no tensor") for name, kind in KINDS.items()},
    "names of 100,000 letters": (
        lambda: network([helper.make_node("Own" + "a" * 100_000, ["c"], ["d"], domain="my")]),
        "…",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_values_that_are_no_tensors_are_pruned_past(run: Runner, there: Path, name: str) -> None:
    onnx.save(taking(KINDS[name]), there / "in.onnx")
    assert run("inspect", "in.onnx").code == 0
    assert run("in.onnx", "out.onnx", "--ratio", 0.5, "--no-verify", "--no-measure").code == 0
    assert onnx.load(there / "out.onnx").graph.initializer[0].dims[0] == 4


def test_comparisons_that_do_not_fit_into_memory(run: Runner, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pipeline.limits.available", lambda: 1 << 27)
    onnx.save(wide(8192), there / "in.onnx")
    outcome = run("in.onnx", "out.onnx", "--ratio", 0.5)
    assert outcome.code == 3
    assert "compares each of the 8,192 channels of 'w1' with each" in outcome.err
    assert run("in.onnx", "out.onnx", "--ratio", 0.5, "--method", "l2").code == 0  # which compares none
    assert run("inspect", "in.onnx").code == 0


def test_filters_without_weights(run: Runner, there: Path) -> None:
    model = network(inputs=[value("x", [1, 0, 9, 9])])
    model.graph.initializer[0].CopyFrom(floats("w1", 8, 0, 3, 3))
    onnx.save(model, there / "in.onnx")
    outcome = run("in.onnx", "out.onnx", *CUT, "-v", "--no-verify")  # a sum of nothing is whatever lay in memory
    assert outcome.code == 0
    assert "its filters have no weights" in outcome.out


@pytest.mark.parametrize("case", REFUSED)
def test_refused(run: Runner, there: Path, case: str) -> None:
    make, hint = REFUSED[case]
    made = make()
    (there / "in.onnx").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    with nothing_written(there):
        outcome = run("in.onnx", "out.onnx", *CUT, "--no-measure")
    assert outcome.code == 3, outcome.err
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1
    assert len(outcome.err) < 1100
    assert outcome.err.rstrip("\n").isprintable()
    assert "/onnxruntime_src/" not in outcome.err
    assert hint in outcome.err
    assert not outcome.out


PRUNED: dict[str, Callable[[], ModelProto]] = {
    "escape sequences": renamed("\x1b[31mEVIL\x1b]0;pwn\x07\r\n"),
    "control characters of eight bits": renamed("\x9b31m"),
    "markup": renamed("[red]x[/red][/] [link=http://x] <script>"),
    "formats": renamed("%s%n{}{0}\\"),
    "right to left": renamed("\u202e\u2066"),
    "paths": renamed("../../../tmp/"),
    "another alphabet": renamed("卷积 é "),
    "long names": renamed("a" * 100_000),
    "the same output twice": changed(lambda m: m.graph.output.append(m.graph.output[0])),
    "an output that is an input": changed(lambda m: m.graph.output.append(m.graph.input[0])),
    "recorded shapes that are wrong": changed(lambda m: m.graph.value_info.append(value("c", [1, 99]))),
    "keys that are there twice": changed(
        lambda m: m.metadata_props.extend(onnx.StringStringEntryProto(key="\x1b[1m", value=v) for v in "ab")
    ),
    "a chain of a thousand": lambda: network(
        [helper.make_node("Relu", [f"t{k}" if k else "c"], [f"t{k + 1}" if k < 999 else "d"]) for k in range(1000)]
    ),
}


@pytest.mark.parametrize("case", PRUNED)
def test_pruned(run: Runner, there: Path, case: str) -> None:
    (there / "in.onnx").write_bytes(PRUNED[case]().SerializeToString())
    outcome = run("in.onnx", "out.onnx", *CUT, "--no-measure", "--report", "r.html", "-v")
    assert outcome.code == 0, outcome.err
    assert not {c for c in outcome.out + outcome.err if not c.isprintable()} - {"\n"}
    page = (there / "r.html").read_text(encoding="utf-8")
    assert "<script>x" not in page
    assert "<script> " not in page
    assert not {c for c in page if not c.isprintable()} - {"\n", "\t"}
    assert (there / "out.onnx").stat().st_size < (there / "in.onnx").stat().st_size
    load(there / "out.onnx")


def test_cut_off_anywhere(run: Runner, there: Path) -> None:
    data = DIGITS.read_bytes()
    places = {1, 2, 5, 20, 100, 105, 106, 110, 1000, len(data) - 300, len(data) - 2, len(data) - 1}
    for place in sorted(places | {len(data) * k // 17 for k in range(1, 17)}):
        (there / "in.onnx").write_bytes(data[:place])
        with nothing_written(there):
            outcome = run("in.onnx", "out.onnx", *CUT)
        assert (outcome.code, outcome.err.count("\n")) == (3, 1), place


def test_inference_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferrer, "SECONDS", 0.5)
    inference._end()  # so that a process of that patience starts
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Slice", ["x", "from", "to"], ["y"])]
    bounds = [numbers("from", 0), numbers("to", (1 << 63) - 1)]
    busy = helper.make_graph(nodes, "g", [value("x", [1 << 34])], [value("y")], bounds)
    slow = Inference()
    assert slow.of_model(helper.make_model(busy, opset_imports=[helper.make_opsetid("", 17)]), data_prop=True) is None
    assert slow.crashes == CRASHES
    inference._end()


def test_inference_that_crashes_is_given_up() -> None:
    killer = network([helper.make_node("LayerNormalization", ["c", "s"], ["d"], axis=(1 << 63) - 1)], [floats("s", 7)])
    inference = Inference()
    for _ in range(CRASHES + 2):
        inference.of_model(killer)
    assert inference.of_model(network()) is None or inference.crashes < CRASHES
    found = Inference().of_model(network())  # and the next analysis has a process again
    assert found is not None
    assert {v.name for v in found.graph.value_info} >= {"c", "d"}


# --- real files that are no use ----------------------------------------------


@pytest.mark.skipif(not UNSUPPORTED.is_dir(), reason="needs ../shared/models/unsupported")
@pytest.mark.parametrize("path", sorted(UNSUPPORTED.rglob("*.onnx")) or [None], ids=lambda p: p.stem if p else "none")
def test_real_files(run: Runner, there: Path, path: Path) -> None:
    with nothing_written(there):
        outcome = run(path, "out.onnx", *CUT, "--no-measure")
    assert outcome.code in (3, 4), outcome
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1


# --- files that are something else -------------------------------------------

ELSE = {
    "a saved model of TensorFlow": b"\x08\x01\x12\xc8\x01\n\x20" + b"\n\x0econv2d/kernel:0serve" * 10,
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(range(200)),
    "a PDF": b"%PDF-1.7\n\xff\xfe" + bytes(range(200)),
    "a TFLite model": b"\x1c\0\0\0TFL3" + bytes(range(200)),
    "an ORT model": b"\x18\0\0\0ORTM" + bytes(range(200)),
    "GGUF": b"GGUF\3\0\0\0" + bytes(200),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "safetensors": struct.pack("<Q", 40) + b'{"a":{"dtype":"F32","shape":[1]}}      ' + bytes(4),
    "a pickle": b"\x80\x04\x95abc.",
    "ciphertext": np.random.default_rng(1).bytes(5000),
    "zeros": bytes(5000),
    "text in two-byte letters": "hello onnx".encode("utf-16"),
    "a model and more": DIGITS.read_bytes() + b"garbage garbage",
    "line ends turned": DIGITS.read_bytes().replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("case", ELSE)
def test_other_files(run: Runner, there: Path, case: str) -> None:
    (there / "in.onnx").write_bytes(ELSE[case])
    with nothing_written(there):
        outcome = run("in.onnx", "out.onnx", *CUT)
    assert outcome.code == 3
    assert outcome.err.count("\n") == 1
    assert "ONNX" in outcome.err


def test_nothing_is_kept_in_the_home_folder(there: Path) -> None:
    """onnxruntime would keep a device id and a database of events there."""
    (there / "home").mkdir()
    environment = {"HOME": str(there / "home")}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
            patch.delenv(name, raising=False)
        started = process(DIGITS, "out.onnx", *CUT, "--isolate", environment=environment)
        outcome = finished(started)
    assert outcome.code == 0, outcome.err
    assert not list((there / "home").rglob("*"))
