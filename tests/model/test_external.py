"""A model cannot choose what is read: external data lies beside it, is long enough, and is nothing but a file."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_files import add, external, model, node, refusal, wide
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from onnxprune.errors import FileError, ModelError
from onnxprune.model import ExternalStyle, load, save

RAW = add().graph.initializer[0].raw_data


def loaded_weight(path: Path) -> bytes:
    return load(path).proto.graph.initializer[0].raw_data


def test_data_becomes_part_of_the_model(tmp_path: Path) -> None:
    found = load(external(tmp_path))
    assert found.proto == add()
    assert found.external == ExternalStyle(threshold=16, attributes=False, files=(tmp_path / "w.data",))
    assert found.size == (tmp_path / "model.onnx").stat().st_size + 16


def test_offset_and_length(tmp_path: Path) -> None:
    path = external(tmp_path, offset="100", length="16", data=bytes(100) + RAW + b"more")
    assert loaded_weight(path) == RAW


def test_the_hash_is_of_the_network_and_not_of_its_skeleton(tmp_path: Path) -> None:
    one, same, other = (external(tmp_path / name) for name in "abc")
    (other.parent / "w.data").write_bytes(RAW[::-1])
    assert load(one).sha256 == load(same).sha256 != load(other).sha256
    assert one.read_bytes() == other.read_bytes()


def test_every_file_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (tmp_path / "secret").write_bytes(RAW)
    (tmp_path / "inside2").mkdir()
    (tmp_path / "inside2" / "w.data").write_bytes(RAW)
    locations = [
        "../secret",
        "a/../../secret",
        str(tmp_path / "secret"),
        "..\\secret",
        "C:\\secret",
        "\\\\host\\w",
        "..",
        "/",
    ]
    for location in [*locations, "../inside2/w.data", "../inside/w.data", "w\0.data", "~/../secret"]:
        assert "is refused" in refusal(external(inside, location)), location


@pytest.mark.parametrize("location", [None, "", "none.data", "x/w.data"])
def test_missing_data(tmp_path: Path, location: str | None) -> None:
    path = external(tmp_path, location or "")
    if location is None:
        proto = onnx.load(path, load_external_data=False)
        proto.graph.initializer[0].ClearField("external_data")
        path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="does not say where" if not location else "put that file beside the model"):
        load(path)


def test_links(tmp_path: Path) -> None:
    path = external(tmp_path / "m", data=None)
    secret = tmp_path / "secret"
    secret.write_bytes(RAW)
    data = path.parent / "w.data"
    data.symlink_to(secret)
    assert "leads out of the directory" in refusal(path)
    data.unlink()
    data.symlink_to("w.data")
    assert "symbolic links" in refusal(path)  # a loop
    data.unlink()
    os.link(secret, data)
    assert "hard link" in refusal(path)
    data.unlink()
    (path.parent / "real.data").write_bytes(RAW)
    data.symlink_to("real.data")
    assert loaded_weight(path) == RAW  # stays inside


def test_a_directory_on_the_way_that_is_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.data").write_bytes(RAW)
    path = external(tmp_path / "m", "sub/w.data")
    (path.parent / "sub").symlink_to(outside)
    assert "leads out of the directory" in refusal(path)


def test_a_sibling_directory_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    path = external(tmp_path / "m", "link")
    (tmp_path / "m2").mkdir()
    (tmp_path / "m2" / "w.data").write_bytes(RAW)
    (path.parent / "link").symlink_to(tmp_path / "m2" / "w.data")
    assert "leads out" in refusal(path)


def test_the_hugging_face_cache(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0f1e" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    built = external(tmp_path / "build", "model.onnx_data", data=RAW)
    (blobs / "aaaa").write_bytes(built.read_bytes())
    (blobs / "bbbb").write_bytes(RAW)
    (snapshot / "model.onnx").symlink_to("../../../blobs/aaaa")
    (snapshot / "model.onnx_data").symlink_to("../../../blobs/bbbb")
    assert loaded_weight(snapshot / "model.onnx") == RAW
    (snapshot / "model.onnx_data").unlink()
    (snapshot / "model.onnx_data").symlink_to(tmp_path / "build" / "w.data")
    assert "leads out" in refusal(snapshot / "model.onnx")


def test_data_beside_the_real_file_of_a_linked_model(tmp_path: Path) -> None:
    path = external(tmp_path / "store")
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    assert loaded_weight(link) == RAW


def test_paths_are_not_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path / "m")
    (tmp_path / "w.data").write_bytes(bytes(16))  # a decoy where onnx 1.23 with an empty base directory would look
    monkeypatch.chdir(tmp_path)
    assert loaded_weight(Path("m/model.onnx")) == RAW
    monkeypatch.chdir(tmp_path / "m")
    assert loaded_weight(Path("model.onnx")) == RAW
    (tmp_path / "m" / "w.data").unlink()
    assert "missing" in refusal(path)


def test_a_way_through_a_link_and_back(tmp_path: Path) -> None:
    path = external(tmp_path / "a" / "m")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a" / "m")
    assert loaded_weight(tmp_path / "b" / "link" / ".." / "m" / "model.onnx") == RAW  # not b/m/model.onnx
    assert path.exists()


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    path = external(tmp_path, data=None)
    os.mkfifo(tmp_path / "w.data")
    assert "not a regular file" in refusal(path)  # without waiting for a writer
    os.unlink(tmp_path / "w.data")
    (tmp_path / "w.data").mkdir()
    assert "not a regular file" in refusal(path)


BAD_NUMBERS = [("-1", None), ("0x10", None), ("1e3", None), ("٣", None), ("9" * 30, None), (None, "-16"), (None, "15")]


@pytest.mark.parametrize(("offset", "length"), [*BAD_NUMBERS, (None, "17"), (None, "9" * 18), ("", None), (" 1", None)])
def test_numbers_that_make_no_sense(tmp_path: Path, offset: str | None, length: str | None) -> None:
    text = refusal(external(tmp_path, offset=offset, length=length))
    assert "impossible" in text or "its dims ask for 16" in text


@pytest.mark.parametrize(("offset", "data"), [("1", RAW), ("0", RAW[:-1]), ("9223372036854775807", RAW), (None, b"x")])
def test_data_that_is_too_short(tmp_path: Path, offset: str | None, data: bytes) -> None:
    assert "cut short or belongs to another model" in refusal(external(tmp_path, offset=offset, data=data))


def test_no_memory_is_spent_on_what_is_not_there(tmp_path: Path) -> None:
    proto = onnx.load(external(tmp_path), load_external_data=False)
    proto.graph.initializer[0].dims[:] = [2**40]
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    assert "the model asks for 4398046511104 bytes" in refusal(tmp_path / "model.onnx")


def test_a_small_file_cannot_fill_the_memory_by_being_read_often(tmp_path: Path) -> None:
    proto = onnx.load(external(tmp_path), load_external_data=False)
    for i in range(100):
        proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
        proto.graph.initializer[-1].name = f"copy{i}"
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert "the model asks for 1616 bytes" in refusal(path)
    del proto.graph.initializer[10:]
    path.write_bytes(proto.SerializeToString())
    assert load(path).proto.graph.initializer[9].raw_data == RAW  # tied weights are honest


def test_a_model_from_memory_has_no_directory(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert "give the path" in refusal(path.read_bytes())
    assert "give the path" in refusal(onnx.load(path, load_external_data=False))


def test_data_that_may_not_be_read_is_a_matter_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path)
    real = os.open

    def fail(file: object, *args: object, **kwargs: object) -> int:
        if str(file).endswith("w.data"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(file, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(FileError, match="Permission denied"):
        load(path)


def test_attributes_bodies_functions_and_sparse_tensors(tmp_path: Path) -> None:
    proto = wide()
    constant = numpy_helper.from_array(np.arange(1000.0), "c")
    proto.graph.node.insert(0, node("Constant", [], ["c"], value=constant))
    inner = helper.make_graph(
        [node("Identity", ["i"], ["o"])], "b", [], [], [numpy_helper.from_array(np.arange(900), "i")]
    )
    inner.output.add(name="o")
    flag = numpy_helper.from_array(np.array(True), "flag")
    proto.graph.initializer.append(flag)
    proto.graph.node.append(node("If", ["flag"], ["z"], then_branch=inner, else_branch=inner))
    expected = proto.SerializeToString()
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, convert_attribute=True)
    found = load(tmp_path / "m.onnx")
    assert found.proto.SerializeToString() == expected
    assert found.external is not None
    assert found.external.attributes


def test_one_file_per_tensor(tmp_path: Path) -> None:
    proto = wide()
    convert_model_to_external_data(proto, all_tensors_to_one_file=False)
    onnx.save(proto, tmp_path / "m.onnx")
    found = load(tmp_path / "m.onnx")
    assert found.proto == wide()
    assert found.external is not None
    assert len(found.external.files) == 3


def test_strings_cannot_be_stored_outside(tmp_path: Path) -> None:
    proto = onnx.load(external(tmp_path), load_external_data=False)
    proto.graph.initializer[0].data_type = TensorProto.STRING
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    assert "data type 8" in refusal(tmp_path / "model.onnx")


def test_a_location_that_is_not_text(tmp_path: Path) -> None:
    path = external(tmp_path, "NAME.data")
    path.write_bytes(path.read_bytes().replace(b"NAME", b"\xff\xfe\xfd\xfc"))
    assert "does not say where" in refusal(path)


MEASURE = """
import sys
from pathlib import Path
from onnxprune.model import load, save
def status(key):
    return next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith(key))
base = status("VmRSS")
model = load(sys.argv[1])
save(model.proto, sys.argv[2], style=model.external)
print((status("VmHWM") - base) / model.size)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_is_the_model_and_its_largest_tensor(tmp_path: Path) -> None:
    save(wide(10, 1_000_000), tmp_path / "m.onnx", style=ExternalStyle())
    arguments = [sys.executable, "-c", MEASURE, tmp_path / "m.onnx", tmp_path / "out.onnx"]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 1.5


@pytest.mark.slow
@pytest.mark.skipif("ONNXPRUNE_SLOW" not in os.environ, reason="3 GB of memory and 6 GB of disk: set ONNXPRUNE_SLOW=1")
def test_more_than_two_gibibytes(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).bytes(256 << 20)
    proto = model([node("Add", ["x", "w0"], ["y"])])
    for i in range(9):
        proto.graph.initializer.add(name=f"w{i}", data_type=TensorProto.UINT8, dims=[len(raw)], raw_data=raw)
    saved = save(proto, tmp_path / "big.onnx")
    assert saved.data is not None
    assert saved.data.stat().st_size == 9 * len(raw)
    assert len(proto.graph.initializer[0].raw_data) == len(raw)  # the caller's model is whole
    found = load(saved.path)
    assert [t.raw_data == raw for t in found.proto.graph.initializer] == [True] * 9
    again = save(found.proto, tmp_path / "again.onnx", style=found.external)
    assert again.path.read_bytes() == saved.path.read_bytes()
