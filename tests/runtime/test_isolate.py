"""Sessions in a process of their own, and limits on memory."""

import gc
import io
import json
import os
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from runtime_models import build, conv_net

from onnxprune import CheckFailed, ModelError, UsageError, prune, sensitivity, verify
from onnxprune.pipeline.kinds import Amount, Unfit
from onnxprune.runtime import isolate
from onnxprune.runtime.isolate import LONGEST, Limits, isolated, receive, send
from onnxprune.runtime.latency import measure
from onnxprune.runtime.session import Session, make_session

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux only")
FEED = {"x": np.ones((2, 3, 8, 8), np.float32)}


def apart(model: Any, limits: Limits | None = None) -> Session:
    with isolated(limits or Limits()):
        return make_session(model, providers="cpu")


def endless() -> onnx.ModelProto:
    """A Loop of 2⁶² rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Sin", ["v"], ["v_out"])],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("c", 9), ("v", 1))],
        [helper.make_tensor_value_info(n, t, []) for n, t in (("c_out", 9), ("v_out", 1))],
    )
    nodes = [helper.make_node("Loop", ["rounds", "true", "x"], ["y"], body=body)]
    weights = {"rounds": np.array(2**62), "true": np.array(True)}
    return build(nodes, [("x", TensorProto.FLOAT, [])], [("y", TensorProto.FLOAT, [])], weights)


def huge(elements: int) -> onnx.ModelProto:
    """Sums a ConstantOfShape of so many elements, in 72 bytes of weights."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["big"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("ReduceSum", ["big"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    return build(nodes, [("x", TensorProto.FLOAT, [])], [("y", TensorProto.FLOAT, [])], {"n": np.array([elements])})


def test_gives_the_same_numbers() -> None:
    here, there = make_session(conv_net(), providers="cpu"), apart(conv_net())
    assert (there.inputs, there.outputs, there.provider) == (here.inputs, here.outputs, here.provider)
    for name, array in here.run(FEED).items():
        np.testing.assert_array_equal(there.run(FEED)[name], array)


def test_strings_and_scalars_pass() -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    for element, array in (
        (8, np.array(["a", "ß"], object)),
        (1, np.float32(3)),
        (9, np.array([[True]])),
        (10, np.float16(2)),
    ):
        shape = list(np.shape(array))
        found = apart(build(nodes, [("x", element, shape)], [("y", element, shape)])).run({"x": np.asarray(array)})["y"]
        assert found.shape == tuple(shape)
        assert found.tolist() == np.asarray(array).tolist()


def test_a_refused_model_is_refused_in_the_same_words() -> None:
    model = conv_net()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError) as here:
        make_session(model, providers="cpu")
    with pytest.raises(ModelError) as there:
        apart(model)
    assert str(there.value) == str(here.value)


def test_wrong_sizes_are_refused_and_the_session_goes_on() -> None:
    session = apart(conv_net())
    with pytest.raises(ModelError, match="cannot run the model"):
        session.run({"x": np.ones((2, 4, 8, 8), np.float32)})
    assert session.run(FEED)


@posix
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGSEGV, "crashed .SIGSEGV"), (signal.SIGABRT, "SIGABRT"), (signal.SIGKILL, "for want of memory")],
)
def test_a_crash_is_a_failed_check(number: int, words: str) -> None:
    session = apart(conv_net())
    os.kill(session.native.process.pid, number)
    with pytest.raises(CheckFailed, match=words) as caught:
        session.run(FEED)
    assert "\n" not in str(caught.value)


def test_a_run_that_does_not_end_is_stopped() -> None:
    session = apart(endless(), Limits(seconds=60))
    object.__setattr__(session.native.limits, "seconds", 1.0)
    with pytest.raises(CheckFailed, match="more than 1 s while it ran"):
        session.run({"x": np.float32(1)})
    assert session.native.process.poll() is not None


def test_a_run_in_this_process_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.runtime.stoppable.SECONDS", 0.5)
    session = make_session(endless(), providers="cpu")
    with pytest.raises(CheckFailed, match=r"more than 0\.5 s for one run"):
        session.run({"x": np.array(1, np.float32)})
    monkeypatch.undo()
    assert make_session(conv_net(), providers="cpu").run(FEED)


@posix
def test_ctrl_c_ends_a_run_that_does_not_end() -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            make_session(endless(), providers="cpu").run({"x": np.array(1, np.float32)})
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


@linux
def test_memory_is_limited() -> None:
    session = apart(huge(1 << 29), Limits(memory=1 << 30))  # 2 GiB
    with pytest.raises((ModelError, CheckFailed)):
        session.run({"x": np.float32(1)})
    assert float(apart(huge(1 << 20), Limits(memory=1 << 30)).run({"x": np.float32(1)})["y"]) == 1 + 2**20


def test_latency_is_that_of_the_run_alone() -> None:
    found = measure({"apart": apart(conv_net())}, FEED, seconds=0.05)["apart"]
    assert 0 < found.median < 0.05


def test_the_process_ends_with_the_session() -> None:
    session = apart(conv_net())
    process = session.native.process
    del session
    gc.collect()
    assert process.wait(10) is not None


# --- messages ----------------------------------------------------------------


def test_messages_hold_data_and_nothing_else() -> None:
    stream = io.BytesIO()
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1], "e": np.zeros((0, 4), np.float32)}
    send(stream, {"k": [1, None]}, arrays, b"model")
    assert b"numpy" not in stream.getvalue()  # as pickles would have it
    stream.seek(0)
    head, found, model = receive(stream)
    assert head["k"] == [1, None]
    assert model == b"model"
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "arrays", [[["a", 1, [2], 4]], [["a", 1, [-1], 4]], [["a", 99, [1], 4]], [["a", 1, [2**61], 4]]], ids=str
)
def test_an_array_of_another_size_is_not_made(arrays: list) -> None:
    header = json.dumps({"arrays": arrays, "model_bytes": 0}).encode()
    with pytest.raises((ValueError, KeyError, TypeError)):
        receive(io.BytesIO(struct.pack("<Q", len(header)) + header + bytes(64)))


def test_ends_that_come_early_are_noticed() -> None:
    with pytest.raises(EOFError):
        receive(io.BytesIO(b"1234"))
    with pytest.raises(ValueError, match="too long"):
        receive(io.BytesIO(struct.pack("<Q", LONGEST + 1)))


# --- the whole command -------------------------------------------------------


def test_an_isolated_run_writes_the_same_file(tmp_path: Path) -> None:
    data = {"x": np.random.default_rng(0).normal(size=(32, 3, 8, 8)).astype(np.float32)}
    for name, isolated_run in (("here", False), ("there", True)):
        result = prune(
            conv_net(), tmp_path / name, ratio=0.5, method="l2", data=data, isolate=isolated_run, measure=False
        )
        assert result.report.proof
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    assert verify(conv_net(), tmp_path / "there", result.plan, isolate=True).passed


def test_sensitivity_is_isolated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    apart: list[object] = []
    whole = isolate.Child.run
    monkeypatch.setattr(isolate.Child, "run", lambda self, *given: apart.append(self) or whole(self, *given))
    data = {"x": np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)}
    there = sensitivity(conv_net(), data=data, isolate=True, method="l2")
    assert apart
    apart.clear()
    assert sensitivity(conv_net(), data=data, method="l2").curves == there.curves
    assert not apart


@posix
def test_nothing_is_written_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"before")

    def crash(child: Any, feed: Any, names: Any) -> Any:
        child.process.send_signal(signal.SIGSEGV)
        return whole(child, feed, names)

    whole = isolate.Child.run
    monkeypatch.setattr(isolate.Child, "run", crash)
    with pytest.raises(CheckFailed, match="SIGSEGV"):
        prune(conv_net(), target, ratio=0.5, compensate="none", isolate=True, input_shapes=["x:1x3x8x8"])
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["out.onnx"]


@linux
def test_a_fill_of_2_34_elements_costs_nothing_but_a_refusal(tmp_path: Path) -> None:
    model, target = huge(1 << 34), tmp_path / "out.onnx"
    with pytest.raises((ModelError, CheckFailed)):
        prune(model, target, ratio=0.5, compensate="none", isolate=True, max_memory="1GiB")
    assert not target.exists()
    assert prune(model, target, ratio=0.5, compensate="none", verify=False, measure=False).plan.groups == ()


# --- limits ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("500MB", 500_000_000), ("2g", 2 * 10**9), ("1.5 gib", 3 << 29), (123, 123), ("77b", 77)],
)
def test_amounts_of_memory(text: Any, size: int) -> None:
    assert Amount().read(text) == size


@pytest.mark.parametrize("text", ["", "much", "4 GiBs", "-1", "0", "1e9", True, "²"])
def test_other_words_are_no_amount(text: Any) -> None:
    with pytest.raises(Unfit):
        Amount().read(text)
    with pytest.raises(UsageError, match="max_memory wants an amount of memory, like 4GiB"):
        prune(conv_net(), ratio=0.5, max_memory=text)


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    monkeypatch.setattr("onnxprune.pipeline.run.load", lambda _: pytest.fail("it was read"))
    with pytest.raises(ModelError, match=r"about 7\.8 GiB.*allows 4\.0 GiB"):
        prune(path, tmp_path / "out.onnx", ratio=0.5, compensate="none", max_memory="4GiB")


def test_data_files_count(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    rng = np.random.default_rng(0)
    model = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", 1, [1, 1024])],
        [("y", 1, [1, 1024])],
        {"w": rng.standard_normal((1024, 1024)).astype(np.float32)},
    )
    onnx.save(model, path, save_as_external_data=True, location="w.data")
    with (tmp_path / "w.data").open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelError, match=r"1\.0 GiB of model"):
        prune(path, tmp_path / "out.onnx", ratio=0.5, compensate="none", max_memory="2GiB")


def test_activations_count_too(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="max_memory"):
        prune(
            conv_net(size=256),
            None,
            ratio=0.5,
            compensate="none",
            max_memory="300MiB",
            input_shapes=["x:64x3x256x256"],
            measure=False,
        )
    assert prune(
        conv_net(size=8),
        None,
        ratio=0.5,
        compensate="none",
        max_memory="300MiB",
        measure=False,
        input_shapes=["x:1x3x8x8"],
    )


def test_memory_that_runs_out_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("onnxprune.pipeline.study.analyse", fail)
    with pytest.raises(ModelError, match="not enough memory"):
        prune(conv_net(), None, ratio=0.5, compensate="none", verify=False, measure=False)
