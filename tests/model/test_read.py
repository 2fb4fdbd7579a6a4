"""Every way in which a file is not a model, or not a good one: one clear line, and never a traceback."""

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import SHARED
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import add, model, node, refusal, weight, wheel_models, wide
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import FileError, ModelError, UsageError
from onnxprune.model import load
from onnxprune.model.decode import decode
from onnxprune.model.encode import chunks, encode, length


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
NOT_A_MODEL = {
    "empty": (b"", "is empty"),
    "lfs": (LFS, "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--ab.onnx\n", "git annex get"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    "xml": (b'<?xml version="1.0"?><net name="m" version="11"></net>', "OpenVINO or other XML"),
    "torch": (zipped("archive/data.pkl", "archive/data/0"), "a PyTorch checkpoint"),
    "torchscript": (zipped("m/constants.pkl", "m/data.pkl"), "a TorchScript archive"),
    "keras": (zipped("metadata.json", "config.json"), "a Keras model"),
    "npz": (zipped("x.npy"), "NumPy archive"),
    "zip": (zipped("readme"), "a zip archive"),
    "pickle": (pickle.dumps({"state": [1.0]}), "a Python pickle"),
    "tflite": (b"\x1c\x00\x00\x00TFL3\x14\x00\x20\x00" + bytes(40), "TensorFlow Lite"),
    "ort": (b"\x18\x00\x00\x00ORTM\x00\x00" + bytes(40), ".ort format"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(40), "GGUF"),
    "safetensors": ((34).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1]}}', "safetensors"),
    "tensorrt": (b"ftrt\x00\x00\x00\x00" + bytes(40), "TensorRT engine"),
    "npy": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}", ".npy"),
    "gzip": (gzip.compress(b"model"), "gzip"),
    "json": (b'{"error": "not found"}', "a JSON file"),
    "onnx json": (json.dumps({"irVersion": "8", "graph": {}}).encode(), "ONNX model as JSON"),
    "onnx text": (b'<ir_version: 8, opset_import: ["" : 17]>\ng (float[2] x) => (float[2] y) {}', "textual syntax"),
    "textproto": (b'ir_version: 8\ngraph { name: "g" }', "protobuf text"),
    "text": ("Das ist ein schöner Text".encode(), "a text file"),
    "zeros": (bytes(5000), "zero bytes"),
    "noise": (np.random.default_rng(1).bytes(3000), "damaged"),
    "graphdef": (b"\x0a\x0a\x0a\x01x\x12\x05Const", "protobuf of another kind"),
}


@pytest.mark.parametrize(("content", "expected"), NOT_A_MODEL.values(), ids=NOT_A_MODEL)
def test_says_what_a_file_is_instead(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert expected in str(caught.value)
    assert "a.onnx" in str(caught.value)
    assert expected in refusal(content)  # the same from memory


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_model_is_refused(share: float) -> None:
    data = wide().SerializeToString()
    assert "cut short" in refusal(data[: int(len(data) * share)])


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, expected in ((tmp_path / "none.onnx", "there is no file"), (tmp_path, "is a directory")):
        with pytest.raises(FileError, match=expected):
            load(path)
    with pytest.raises(FileError, match="null"):
        load("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="not a regular file"):
        load(tmp_path / "pipe")  # must not wait for a writer
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(FileError, match="Permission denied"):
        load(tmp_path / "x.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.touch(0o000)
    with pytest.raises(FileError, match="Permission denied"):
        load(path)


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(add().SerializeToString())

    def slow(*args: object) -> object:
        with path.open("ab") as stream:
            stream.write(b"more")
        return decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("onnxprune.model.read.decode", slow)
    with pytest.raises(FileError, match="changed while it was read"):
        load(path)


def test_other_sources_are_a_mistake_in_usage() -> None:
    with pytest.raises(UsageError, match="not list"):
        load([1])


def test_no_source_is_changed_and_all_sources_agree(tmp_path: Path) -> None:
    gs = pytest.importorskip("onnx_graphsurgeon")
    proto = wide()
    data = proto.SerializeToString(deterministic=True)
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    loads = [load(path), load(str(path)), load(data), load(proto)]
    assert all(m.proto == proto for m in loads)
    assert {(m.sha256, m.size) for m in loads} == {(loads[0].sha256, len(data))}
    loads[3].proto.graph.node[0].name = "changed"
    assert proto.SerializeToString(deterministic=True) == data
    graph = gs.import_onnx(proto)
    assert [n.op_type for n in load(graph).proto.graph.node] == [n.op_type for n in proto.graph.node]
    assert loads[0].path == path
    assert loads[2].path is None
    assert load(loads[0]) is loads[0]


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(add().SerializeToString())
    printed = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == load(path).sha256


def test_nothing_of_the_format_is_lost() -> None:
    proto = wide()
    proto.metadata_props.add(key="names", value="{0: 'person'}")
    proto.graph.metadata_props.add(key="a", value="b")
    proto.graph.sparse_initializer.add(
        values=weight("s", (1,)), indices=numpy_helper.from_array(np.array([1])), dims=[4]
    )
    proto.training_info.add().initialization.name = "init"
    proto.graph.quantization_annotation.add(tensor_name="w")
    function = helper.make_function(
        "my", "F", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    proto.functions.append(function)
    data = proto.SerializeToString(deterministic=True) + b"\xfa\x07\x03new" + b"\xf8\x07\x96\x01"  # fields 127, unknown
    loaded = load(data).proto
    assert loaded.SerializeToString(deterministic=True) == data
    assert b"".join(chunks(encode(loaded, large=1))) == data


@pytest.mark.parametrize(("step", "large"), [(64, 1), (1000, 100), (4 << 20, 64 << 10)])
def test_reading_and_writing_in_pieces_equals_protobuf(
    step: int, large: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("onnxprune.model.decode.CHUNK", step)
    monkeypatch.setattr("onnxprune.model.encode.CHUNK", step)
    typed = helper.make_tensor("t", TensorProto.FLOAT, [300, 100], np.arange(30_000.0))
    models = [wide(), model([node("Add", ["x", "t"], ["y"])], [typed])]
    files = [p.read_bytes() for p in wheel_models()] + [m.SerializeToString() for m in models]
    for data in files:
        expected = onnx.ModelProto()
        expected.ParseFromString(data)
        found, _ = decode(io.BytesIO(data), len(data))
        reference = expected.SerializeToString(deterministic=True)
        assert found.SerializeToString(deterministic=True) == reference
        pieces = encode(found, large=large)
        assert b"".join(chunks(pieces)) == reference
        assert length(pieces) == len(reference)


def test_a_field_that_reaches_out_of_its_graph_is_refused() -> None:
    data = b"\x08\x08" + b"\x3a\x02" + b"\x12\x05" + b"hello"  # a graph of two bytes with a name of five
    with pytest.raises(DecodeError):
        onnx.ModelProto().ParseFromString(data)
    assert "5 bytes are announced" in refusal(data)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # onnx's own, while it builds its test cases
def test_every_model_of_the_wheel_loads() -> None:
    from onnx.backend.test.loader import load_model_tests

    files = wheel_models()
    assert len(files) >= 140
    for path in files:
        assert load(path).size == path.stat().st_size
    tests = load_model_tests(kind="node")
    nodes = [t.model or onnx.load(Path(t.model_dir or "") / "model.onnx") for t in tests]
    assert len(nodes) > 1000
    for proto in nodes[::4]:
        load(proto)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collection of real networks is not beside the repository")
def test_real_networks_load_and_unsupported_ones_say_why() -> None:
    files = sorted(SHARED.glob("*.onnx"))
    assert len(files) >= 42
    for path in files:
        read, whole = load(path), onnx.load(path)
        assert read.size == path.stat().st_size
        assert [n.output for n in read.proto.graph.node] == [n.output for n in whole.graph.node], path.stem
        assert list(read.proto.graph.initializer) == list(whole.graph.initializer), path.stem
    expected = {
        "fns_candy_uwp.onnx": "no operator set",
        "superres_caffe2era.onnx": "no operator set",
        "model.onnx": "the weights are missing",
    }
    for name, words in expected.items():
        assert words in refusal(next((SHARED / "unsupported").rglob(name)))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_refused_or_read_and_never_crashes(data: st.DataObject) -> None:
    content = bytearray(model([node("Conv", ["x", "w"], ["y"], pads=[0, 0])], [weight()]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with suppress(ModelError):
        read = load(bytes(content)).proto
        theirs = onnx.load_model_from_string(bytes(content))  # what is read is what is there
        assert (read.graph.node, read.graph.initializer) == (theirs.graph.node, theirs.graph.initializer)


MEASURE = """
import sys
from pathlib import Path
from onnxprune.model import load, save
def status(key):
    return next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith(key))
path = Path(sys.argv[1])
base = status("VmRSS")
model = load(path)
print((status("VmHWM") - base) / path.stat().st_size)
save(model.proto, path.with_name("out.onnx"))
print((status("VmHWM") - base) / path.stat().st_size)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_is_the_model_and_its_largest_tensor(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(wide(10, 2_000_000).SerializeToString())  # 80 MB in ten parts
    ran = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    reading, writing = map(float, ran.stdout.split())
    assert reading < 1.3
    assert writing < 1.4
