"""Sessions: providers, taps, replaced values, memory, odd element types, and refusals in one line."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from runtime_models import SHARED, build, conv_net, masked_and_pruned, needs_models, weight

from onnxprune.errors import FileError, ModelError, OnnxPruneError, UsageError
from onnxprune.model import network, outline
from onnxprune.model.elements import is_packed
from onnxprune.model.tensors import BITS, nbytes_of
from onnxprune.runtime import engine as engine_module
from onnxprune.runtime import providers, source
from onnxprune.runtime.engine import engine, quiet, reason, usable_cpus
from onnxprune.runtime.providers import CPU, choose, match
from onnxprune.runtime.session import make_session
from onnxprune.runtime.source import Variant

X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


def run(model, **options):
    return make_session(model, providers="cpu", **options).run({"x": X})


def changed(model, values):
    """A model with other values in some tensors, or in place of outputs of nodes."""
    variant = Variant.of(model)
    return Variant(variant.network.with_values(values), variant.base)


def test_path_bytes_and_proto_give_the_same(tmp_path):
    model = conv_net()
    onnx.save(model, tmp_path / "m.onnx")
    found = [
        run(m)["logits"] for m in (model, model.SerializeToString(), tmp_path / "m.onnx", str(tmp_path / "m.onnx"))
    ]
    assert all(np.array_equal(found[0], other) for other in found[1:])
    np.testing.assert_allclose(run(model, optimize=True)["logits"], found[0], rtol=1e-4, atol=1e-4)


def test_specs_of_a_session():
    session = make_session(conv_net(), providers="cpu", threads=1)
    assert [(s.name, s.shape, s.dtype) for s in session.inputs] == [("x", ("N", 3, 8, 8), np.float32)]
    assert (session.provider, session.threads, session.outputs[0].name) == ("CPU", 1, "logits")


def test_taps_are_added_and_the_model_is_left_alone():
    model = conv_net()
    before = model.SerializeToString()
    session = make_session(model, providers="cpu", taps=["r1", "f", "logits"])
    found = session.run({"x": X})
    assert list(found) == ["logits", "r1", "f"]
    np.testing.assert_array_equal(found["f"] @ weight(model, "w3").T > 0, found["logits"] > 0)
    assert session.run({"x": X}, ["f"]).keys() == {"f"}
    assert model.SerializeToString() == before


@pytest.mark.parametrize("optimize", [False, True])
def test_threads_wait_busily_only_where_they_are_timed(optimize):
    for spin in (False, True):
        session = make_session(conv_net(), providers="cpu", optimize=optimize, spin=spin)
        options = session.native.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spin))


def test_unknown_tap_is_refused():
    with pytest.raises(UsageError, match="'nowhere'"):
        make_session(conv_net(), taps=["nowhere"])


def test_replaced_values_stand_in_for_initializers_and_for_node_outputs():
    model = conv_net()
    masked, _ = masked_and_pruned(model, [1, 4])
    zeroed = weight(masked, "w2")
    np.testing.assert_array_equal(run(changed(model, {"w2": zeroed}))["logits"], run(masked)["logits"])
    fixed = np.ones((2, 5), np.float32)
    np.testing.assert_allclose(run(changed(model, {"f": fixed}))["logits"], fixed @ weight(model, "w3").T, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("w2", np.zeros((5, 6, 3, 1), np.float32)), ("w2", np.zeros((5, 6, 3, 3))), ("what", np.ones(1))],
)
def test_values_that_do_not_fit_are_refused(name, value):
    with pytest.raises(UsageError, match=name):
        changed(conv_net(), {name: value})


@pytest.fixture
def spilling(monkeypatch):
    """Every model counts as large."""
    monkeypatch.setattr(source, "SPILL_MODEL", 0)
    for module in (source, network, outline):
        monkeypatch.setattr(module, "LIFTED", 64)


@pytest.mark.parametrize("form", [Path, ModelProto.SerializeToString], ids=["path", "bytes"])
def test_a_model_is_read_once_whatever_is_asked_of_it(form, tmp_path, monkeypatch):
    onnx.save(conv_net(), tmp_path / "m.onnx")
    variant = Variant(tmp_path / "m.onnx" if form is Path else form(conv_net()))
    reads, read = [], source.as_proto
    monkeypatch.setattr(source, "as_proto", lambda given: reads.append(given) or read(given))
    before = variant.graph.SerializeToString()
    assert np.array_equal(run(variant, taps=["c1"])["logits"], run(variant, taps=["r1"])["logits"])
    assert len(reads) == 1
    assert variant.graph.SerializeToString() == before


@pytest.mark.parametrize("kind", sorted(k for k, bits in BITS.items() if bits in (2, 4) and k != 23))
def test_elements_of_less_than_a_byte_are_neither_handed_over_nor_read(kind):
    """Of float4 onnxruntime has no kernel here."""
    value, dtype = helper.make_tensor_value_info, helper.tensor_dtype_to_np_dtype(kind)
    assert is_packed(dtype)
    ends, tensors = (value("f", 1, [4]), value("q", kind, [4])), {"s": np.float32(0.1), "z": np.zeros((), dtype)}
    opset = {"opset": 25, "ir": 13}
    read = build([helper.make_node("DequantizeLinear", ["q", "s", "z"], ["f"])], [], [], tensors, **opset)
    read.graph.input.append(ends[1])
    read.graph.output.append(ends[0])
    with pytest.raises(ModelError, match=f"arrays of {dtype} cannot be handed"):
        make_session(read, providers="cpu").run({"q": np.ones(4, dtype)})
    made = build([helper.make_node("QuantizeLinear", ["f", "s", "z"], ["q"])], [], [], tensors, **opset)
    made.graph.input.append(ends[0])
    made.graph.output.append(ends[1])
    with pytest.raises(ModelError, match=f"outputs of {dtype} cannot be read"):
        make_session(made, providers="cpu").run({"f": np.ones(4, np.float32)})


def test_large_models_go_through_a_file_that_is_gone_afterwards(spilling, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = conv_net()
    expected = make_session(model.SerializeToString(), providers="cpu").run({"x": X})
    assert source.prepare(Variant(model)).holds is not None
    session = make_session(model, providers="cpu", taps=["c1"])
    if os.name == "posix":
        assert not [p for p in tmp_path.iterdir() if any(p.glob("weights"))]
    np.testing.assert_array_equal(session.run({"x": X})["logits"], expected["logits"])
    zeroed = weight(masked_and_pruned(model, [0])[0], "w2")
    given = make_session(changed(model, {"w2": zeroed}), providers="cpu").run({"x": X})
    np.testing.assert_array_equal(given["logits"], run(masked_and_pruned(model, [0])[0])["logits"])


def test_large_files_are_outlined_instead_of_parsed(spilling, tmp_path, monkeypatch):
    masked, _ = masked_and_pruned(conv_net(), [0, 3])
    onnx.save(masked, tmp_path / "m.onnx")
    expected, whole = run(masked, taps=["r1"]), run(conv_net())
    monkeypatch.setattr(source, "as_proto", None)
    found = run(tmp_path / "m.onnx", taps=["r1"])
    assert all(np.array_equal(found[n], expected[n]) for n in ("logits", "r1"))
    given = run(changed(tmp_path / "m.onnx", {"w2": weight(conv_net(), "w2")}))
    assert np.array_equal(given["logits"], whole["logits"])


@pytest.mark.parametrize("least", [1, 64, 400, 10**9])
def test_an_outline_is_the_model_without_its_large_weights(least, tmp_path):
    model = conv_net()
    model.metadata_props.add(key="names", value="0: ä, 1: b")
    model.graph.initializer[1].ClearField("raw_data")
    model.graph.initializer[1].float_data.extend([1.5] * 6)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = outline.outline(tmp_path / "m.onnx", least=least)
    if least == 1:
        assert found is None, "elements in a typed field cannot be left where they are"
        return
    assert found.tensors.keys() == {t.name for t in model.graph.initializer if len(t.raw_data) >= least}
    assert not any(t.raw_data for t in found.graph.graph.initializer if t.name in found.tensors)
    assert found.proto() == model


def test_what_is_no_model_has_no_outline(tmp_path):
    content = conv_net().SerializeToString()
    (tmp_path / "whole").write_bytes(content)
    assert outline.outline(tmp_path / "whole", least=64) is not None
    for i, bad in enumerate((b"PK\3\4 a zip file", content[: len(content) // 2], b"\x3f" * 9, b"\x3a" + b"\xff" * 20)):
        (tmp_path / str(i)).write_bytes(bad)
        assert outline.outline(tmp_path / str(i), least=64) is None


@needs_models
def test_outlines_of_real_networks(tmp_path):
    for path in sorted((SHARED / "models").glob("*.onnx"))[::5]:
        model = onnx.load(path)
        found = outline.outline(path, least=1000)
        typed = any(not t.raw_data and nbytes_of(t) >= 1000 for t in model.graph.initializer)
        assert typed if found is None else found.proto() == model


def test_spilled_weights_of_every_kind_arrive(spilling):
    """Typed fields, halves and packed 4-bit integers, all through the data file."""
    rng = np.random.default_rng(0)
    small = rng.integers(-8, 8, (16, 16)).astype(ml_dtypes.int4)
    arrays = {
        "a": rng.standard_normal((16, 16)).astype(np.float32),
        "h": rng.standard_normal((16, 16)).astype(np.float16),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("Cast", ["h"], ["hf"], to=TensorProto.FLOAT),
        helper.make_node("Sum", ["x", "a", "hf", "d"], ["y"]),
    ]
    io = [("x", TensorProto.FLOAT, [16, 16])], [("y", TensorProto.FLOAT, [16, 16])]
    model = build(nodes, *io, {**arrays, "s": np.float32(1).reshape(())}, opset=21, ir=10)
    model.graph.initializer.append(numpy_helper.from_array(small, "q"))
    typed = next(t for t in model.graph.initializer if t.name == "a")
    typed.ClearField("raw_data")
    typed.float_data.extend(arrays["a"].ravel().tolist())
    zero = np.zeros((16, 16), np.float32)
    total = arrays["a"] + arrays["h"].astype(np.float32) + small.astype(np.float32)
    np.testing.assert_allclose(make_session(model).run({"x": zero})["y"], total, rtol=1e-6)
    swapped = make_session(changed(model, {"q": small.T})).run({"x": zero})["y"]
    np.testing.assert_allclose(
        swapped, total - small.astype(np.float32) + small.T.astype(np.float32), rtol=1e-6, atol=1e-6
    )


def test_external_data_is_found_with_taps_and_replaced_values(tmp_path):
    model = conv_net()
    expected = run(model)["logits"]
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    path = tmp_path / "m.onnx"
    zeroed = weight(masked_and_pruned(conv_net(), [2])[0], "w2")
    assert np.array_equal(run(path)["logits"], expected)
    assert np.array_equal(run(path, taps=["r1"])["logits"], expected)
    outside = onnx.load(path, load_external_data=False)
    assert np.array_equal(run(Variant(outside, folder=tmp_path), taps=["r1"])["logits"], expected)
    masked = run(changed(path, {"w2": zeroed}))["logits"]
    assert np.array_equal(masked, run(masked_and_pruned(conv_net(), [2])[0])["logits"])


def test_weightless_copies_of_dates_old_and_new_keep_their_ir(spilling):
    model = conv_net()
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
    )
    session = make_session(model, providers="cpu")
    assert [s.name for s in session.inputs] == ["x"]
    np.testing.assert_array_equal(session.run({"x": X})["logits"], run(conv_net())["logits"])


@pytest.mark.parametrize("element", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT16])
def test_element_types_that_numpy_lacks(element):
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=1), helper.make_node("Relu", ["f"], ["r"])]
    nodes.append(helper.make_node("Cast", ["r"], ["y"], to=element))
    session = make_session(build(nodes, [("x", element, [4])], [("y", element, [4])], opset=21, ir=10))
    values = np.array([1, -1, 2.5, 3]).astype(helper.tensor_dtype_to_np_dtype(element))
    found = session.run({"x": values})["y"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found.astype(np.float32), [1, 0, 2.5, 3])


def test_int4_inputs_are_refused():
    model = build(
        [helper.make_node("Cast", ["x"], ["y"], to=1)], [("x", TensorProto.INT4, [4])], [("y", 1, [4])], opset=21, ir=10
    )
    with pytest.raises(ModelError, match="int4"):
        make_session(model).run({"x": np.zeros(4, ml_dtypes.int4)})


def test_no_reads_of_a_file_that_is_not_there():
    with pytest.raises(FileError, match="nowhere"):
        make_session("nowhere.onnx")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (b"", "empty"),
        (b"no model at all", "no ONNX model"),
        (build([helper.make_node("Nope", ["x"], ["y"])], [("x", 1, [1])], [("y", 1, [1])]).SerializeToString(), "Nope"),
        (
            build(
                [helper.make_node("Relu", ["x"], ["y"])], [("x", 1, [1])], [("y", 1, [1])], opset=99
            ).SerializeToString(),
            "opset",
        ),
    ],
)
def test_refusals_take_one_line_and_say_what_to_do(model, says, capfd):
    with pytest.raises(ModelError) as caught:
        make_session(model)
    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert "onnxruntime_src" not in text
    assert len(text) < 420
    assert capfd.readouterr().err == ""


def test_running_on_wrong_shapes_names_them(capfd):
    with pytest.raises(ModelError, match=r"'x' \[2, 4, 8, 8\]"):
        make_session(conv_net()).run({"x": np.zeros((2, 4, 8, 8), np.float32)})
    assert capfd.readouterr().err == ""


@needs_models
def test_unsupported_models_get_one_line():
    folder = SHARED / "models" / "unsupported"
    files = sorted(folder.glob("**/*.onnx"))
    assert files
    for path in files:
        with pytest.raises(ModelError) as caught:
            make_session(path)
        assert "\n" not in str(caught.value)


# Providers


def test_names_of_providers(monkeypatch):
    have = ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU)
    monkeypatch.setattr(providers, "listed", lambda: have)
    words = {
        "cuda": have[1],
        "CUDAExecutionProvider": have[1],
        "Cu": have[1],
        "cpu": CPU,
        "rt": have[0],
        "TensorRT": have[0],
    }
    assert {w: match(w) for w in words} == words
    with pytest.raises(UsageError, match="cuda, cpu"):
        match("c")
    with pytest.raises(UsageError, match="no provider is called 'bogus'"):
        match("bogus")
    with pytest.raises(UsageError, match="built without CoreML"):
        match("coreml")


def test_providers_that_do_not_load_are_passed_over(monkeypatch):
    monkeypatch.setattr(providers, "listed", lambda: ("CUDAExecutionProvider", CPU))
    monkeypatch.setattr(providers, "failure", lambda p: None if p == CPU else "no such library")
    assert choose("auto") == choose("cuda,cpu") == choose(["CPU", "cuda"]) == (CPU,)
    with pytest.raises(UsageError, match="CUDA does not load here: no such library"):
        choose("cuda")
    monkeypatch.setattr(providers, "failure", lambda p: None)
    assert choose("auto") == choose("cuda") == ("CUDAExecutionProvider", CPU)
    with pytest.raises(UsageError):
        choose(" , ")


def test_every_listed_provider_is_tried_quietly(capfd):
    found = {p: providers.failure.__wrapped__(p) for p in providers.listed() if not p.startswith("Azure")}
    assert found[CPU] is None
    assert all(why is None or (why and "\n" not in why) for why in found.values())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_provider_that_fails_on_the_model_gives_way_to_the_next(monkeypatch):
    tried = []

    class Refusing:
        def __getattr__(self, name):
            return getattr(engine(), name)

        def InferenceSession(self, model, settings, providers, **options):
            tried.append(providers[0][0])
            if providers[0][0] != CPU:
                raise RuntimeError("CUDA out of memory")
            return engine().InferenceSession(model, settings, providers=providers, **options)

    monkeypatch.setattr("onnxprune.runtime.session.choose", lambda request: ("CUDAExecutionProvider", CPU))
    monkeypatch.setattr("onnxprune.runtime.session.engine", Refusing)
    assert make_session(conv_net()).provider == "CPU"
    assert tried == ["CUDAExecutionProvider", CPU]


# The import


def imported(folder: Path, code: str) -> subprocess.CompletedProcess:
    paths = [str(folder), str(Path(engine_module.__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    program = "from onnxprune.runtime.engine import engine\nfrom onnxprune.errors import OnnxPruneError\n"
    program += f"try:\n    engine()\nexcept OnnxPruneError as error:\n    print(error)\n{textwrap.dedent(code)}"
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("raise ImportError('no DLL')", "no DLL"),
        ("x = 1", "no InferenceSession"),
        ("import nothing_of_that_name", "nothing_of"),
        ("__version__ = '1.20.1'\nInferenceSession = int", "1.20.1 is too old, 1.25 is the oldest that will do"),
    ],
)
def test_a_broken_onnxruntime_is_told_in_one_line(tmp_path, content, says):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(content)
    done = imported(tmp_path, "")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert says in done.stdout
    assert "pip install" in done.stdout


def test_two_wheels_over_one_another_are_named(tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise AttributeError('half of me is gone')")
    for name in ("onnxruntime", "onnxruntime_gpu"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    done = imported(tmp_path, "")
    assert "onnxruntime and onnxruntime-gpu are installed over one another" in done.stdout
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu>=1.25'" in done.stdout


@pytest.mark.parametrize(
    ("system", "machine", "wheel"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
    ],
)
def test_where_there_is_no_wheel_the_usual_one_is_named(monkeypatch, system, machine, wheel):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(engine_module, "wheels", dict)
    assert engine_module.repair_hint() == f"pip install '{wheel}>=1.25'"


def test_macs_with_intel_processors_are_told_that_there_is_none(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert "for Macs with Intel processors there is none after 1.23" in engine_module.repair_hint()


def test_the_package_does_not_need_onnxruntime_to_be_imported(tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('gone')")
    done = imported(tmp_path, "import onnxprune, onnxprune.runtime.prove, onnxprune.runtime.data\nprint('fine')")
    assert done.stdout.splitlines()[-1] == "fine", done.stderr


def test_quiet_holds_back_what_c_prints(capfd):
    with quiet() as caught:
        os.write(2, b"noise from below\n")
        print("noise from above")
    assert caught.text == "noise from below\n"
    os.write(2, b"heard\n")
    assert tuple(capfd.readouterr()) == ("", "heard\n")


def test_quiet_gives_standard_error_back_after_an_exception(capfd):
    with pytest.raises(OnnxPruneError), quiet():
        raise OnnxPruneError("as it is")
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_quiet_in_two_threads_gives_both_streams_back(capfd):
    inside, left = threading.Event(), threading.Event()

    def other():
        with quiet():
            inside.set()
            left.wait(10)

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        inside.wait(0.2)
    left.set()
    thread.join()
    os.write(2, b"heard\n")
    print("seen")
    assert tuple(capfd.readouterr()) == ("seen\n", "heard\n")


def test_reasons_are_cut_to_what_helps():
    assert (
        reason("[ONNXRuntimeError] : 1 : FAIL : Load model from a b.onnx failed:Fatal error: it is X\nmore")
        == "it is X"
    )
    assert reason("") == "no reason given"
    assert len(reason("word " * 200)) == 240


def test_cpus_and_engine_are_there():
    assert usable_cpus() >= 1
    assert engine() is engine()


@pytest.mark.parametrize("op", ["QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"])
def test_unsigned_weights_give_exact_products(op):
    """On CPUs without the newer instructions, the sum of two products with int8 weights saturates at 16 bits."""
    rng = np.random.default_rng(0)
    conv, whole, code = "Conv" in op, op.endswith("Integer"), np.uint8(130)
    codes = {"w": rng.integers(-128, 128, (4, 6, 1, 1) if conv else (6, 4)).astype(np.int8), "wz": np.int8(3)}
    scales = {"xs": np.float32(0.1), "xz": code, "ws": np.float32(0.2), "ys": np.float32(3), "yz": code}
    quantised = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    node = helper.make_node(op, ["x", "w", "xz"] if whole else quantised, ["y"])
    shape = [1, 6, 5, 5] if conv else [5, 6]
    element = TensorProto.INT32 if whole else TensorProto.UINT8
    model = build([node], [("x", TensorProto.UINT8, shape)], [("y", element, None)], codes | scales)
    feed = {"x": rng.integers(0, 256, shape).astype(np.uint8)}
    found = make_session(Variant(model, unsigned=True)).run(feed)["y"]
    zero = 0 if whole else 3
    values, weights = feed["x"].astype(int) - 130, codes["w"].astype(int) - zero
    exact = np.einsum("nchw,oc->nohw", values, weights[:, :, 0, 0]) if conv else values @ weights
    if not whole:
        exact = np.clip(np.rint(exact * (0.1 * 0.2 / 3)) + 130, 0, 255)
    np.testing.assert_array_equal(found, exact)


def test_replaced_values_of_external_data_go_through_a_file_too(spilling, tmp_path):
    model, path = conv_net(), tmp_path / "m.onnx"
    onnx.save_model(conv_net(), path, save_as_external_data=True, size_threshold=0)
    zero = {name: np.zeros_like(weight(model, name)) for name in ("w2",)}
    prepared = source.prepare(changed(path, zero))
    assert prepared.holds is not None, "not in memory"
    assert not prepared.values
    expected = run(changed(model, zero))
    assert np.array_equal(run(changed(path, zero))["logits"], expected["logits"])
