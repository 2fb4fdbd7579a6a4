"""What is written, where, in which style, what may be replaced; and the same model is the same bytes."""

import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_files import add, content, external, model, node, wide
from onnx import TensorProto, helper

from onnxprune.errors import CheckFailed, FileError, ModelError, UsageError
from onnxprune.model import ExternalStyle, load, network, save

OUTSIDE = ExternalStyle()


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    proto = wide()
    before = proto.SerializeToString(deterministic=True)
    saved = save(proto, tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    assert data == before == proto.SerializeToString(deterministic=True)
    assert saved.sha256 == hashlib.sha256(data).hexdigest()
    assert saved.size == len(data)
    assert saved.data is None
    assert list(content(tmp_path)) == ["m.onnx"]


def test_outside(tmp_path: Path) -> None:
    proto = wide()
    before = proto.SerializeToString(deterministic=True)
    saved = save(proto, tmp_path / "m.onnx", style=OUTSIDE)
    assert proto.SerializeToString(deterministic=True) == before  # onnx.save would have emptied it
    assert saved.data is not None
    assert saved.data.name == f"weights-{hashlib.sha256(saved.data.read_bytes()).hexdigest()[:32]}.data"
    assert saved.size == sum(map(len, content(tmp_path).values()))
    found = load(saved.path)
    assert found.proto == proto
    by_onnx = onnx.load(saved.path)
    assert [t.raw_data for t in by_onnx.graph.initializer] == [t.raw_data for t in proto.graph.initializer]
    onnx.checker.check_model(saved.path)
    inline = onnx.load(saved.path, load_external_data=False)
    stored = {t.name: t.data_location == TensorProto.EXTERNAL for t in inline.graph.initializer}
    assert stored == {"w0": True, "w1": True, "w2": True, "w": False}


@pytest.mark.parametrize("style", [None, OUTSIDE], ids=["inside", "outside"])
@pytest.mark.parametrize("least", [64, 64 << 10], ids=["small", "large"])
def test_a_network_is_written_as_the_message_that_it_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, style: ExternalStyle | None
) -> None:
    monkeypatch.setattr(network, "LIFTED", least)  # bytes from which on elements stand beside the graph
    proto = wide()
    proto.graph.initializer.append(helper.make_tensor("floats", TensorProto.FLOAT, [30_000], np.arange(30_000.0)))
    given = network.Network.of(proto)
    given = given.with_tensors({"w0": given.array("w0") * 2, "w": given.array("w") * 2})
    one, two = (save(m, tmp_path / f"{k}.onnx", style=style) for k, m in enumerate((given, given.proto())))
    assert (one.sha256, one.size, one.data) == (two.sha256, two.size, two.data)
    assert load(one.path).proto == given.proto()


def test_onnxruntime_runs_both_forms_alike(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    runs: list[Path] = []

    def check(path: Path) -> None:  # the temporary must be one that onnxruntime takes
        runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        runs.append(path)

    save(wide(), tmp_path / "in.onnx", check=check)
    save(wide(), tmp_path / "out.onnx", style=OUTSIDE, check=check)
    assert len(runs) == 2
    feeds = {"x": np.ones((2, 2), np.float32)}
    results = [
        runtime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(None, feeds)
        for name in ("in.onnx", "out.onnx")
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_long_tensors_start_where_they_can_be_mapped(tmp_path: Path) -> None:
    weights = [
        helper.make_tensor(f"w{i}", TensorProto.UINT8, [n], bytes(n), raw=True) for i, n in enumerate((1025, 1 << 20))
    ]
    saved = save(model([node("Identity", ["x"], ["y"])], weights), tmp_path / "m.onnx", style=OUTSIDE)
    skeleton = onnx.load(saved.path, load_external_data=False)
    offsets = [int(e.value) for t in skeleton.graph.initializer for e in t.external_data if e.key == "offset"]
    assert offsets == [0, 1 << 16]
    assert saved.data is not None
    assert saved.data.stat().st_size == (1 << 16) + (1 << 20)


def test_same_model_same_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for style in (None, OUTSIDE):
        one = save(wide(), tmp_path / "a.onnx", style=style)
        two = save(wide(), tmp_path / "other" / "b name.onnx", style=style)
        again = save(load(one.path).proto, tmp_path / "c.onnx", style=load(one.path).external)
        assert one.sha256 == two.sha256 == again.sha256
        if style:
            assert one.data is not None
            assert two.data is not None
            assert one.data.name == two.data.name


def test_saving_again_does_not_append(tmp_path: Path) -> None:
    first = save(wide(), tmp_path / "m.onnx", style=OUTSIDE)
    before = content(tmp_path)
    second = save(wide(), tmp_path / "m.onnx", style=OUTSIDE)
    assert content(tmp_path) == before
    assert first == second
    assert second.unused == ()


def test_saving_through_a_linked_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    save(wide(), tmp_path / "link" / "m.onnx", style=OUTSIDE)
    assert save(wide(), tmp_path / "link" / "m.onnx", style=OUTSIDE).unused == ()
    assert load(tmp_path / "link" / "m.onnx").proto == wide()


def test_data_of_the_old_model_stays_and_is_named(tmp_path: Path) -> None:
    first = save(wide(3), tmp_path / "m.onnx", style=OUTSIDE)
    second = save(wide(2), tmp_path / "m.onnx", style=OUTSIDE)
    assert second.unused == (first.data,)
    assert first.data is not None
    assert first.data.exists()
    assert save(wide(1), tmp_path / "m.onnx").unused == (second.data,)


def test_the_style_of_the_input(tmp_path: Path) -> None:
    constant = helper.make_tensor("c", TensorProto.UINT8, [3000], bytes(3000), raw=True)
    proto = model(
        [node("Constant", [], ["c"], value=constant), node("Relu", ["x"], ["y"])], list(wide().graph.initializer)
    )
    for style, expected in (
        (ExternalStyle(), 3),
        (ExternalStyle(16), 4),
        (ExternalStyle(16, True), 5),
        (ExternalStyle(1 << 30), 0),
    ):
        saved = save(proto, tmp_path / "m.onnx", style=style)
        assert saved.path.read_bytes().count(b"location") == expected
        assert (saved.data is None) == (not expected)
        found = load(saved.path)
        assert found.proto == proto
        if found.external:
            assert found.external.attributes == style.attributes


def test_over_the_limit_of_the_format_weights_go_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.model.write.LIMIT", 100_000)
    saved = save(wide(), tmp_path / "m.onnx")
    assert saved.data is not None
    assert load(saved.path).proto == wide()
    constant = helper.make_tensor("c", TensorProto.UINT8, [200_000], bytes(200_000), raw=True)
    in_attribute = model([node("Constant", [], ["c"], value=constant), node("Relu", ["x"], ["y"])])
    assert load(save(in_attribute, tmp_path / "a.onnx").path).proto == in_attribute
    assert load(save(in_attribute, tmp_path / "a.onnx", style=ExternalStyle(1 << 20)).path).proto == in_attribute
    monkeypatch.setattr("onnxprune.model.write.LIMIT", 100)
    with pytest.raises(ModelError, match="over 2 GiB without its weights"):
        save(wide(), tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_a_tensor_that_is_not_as_large_as_it_says_is_not_written(tmp_path: Path) -> None:
    proto = wide()
    proto.graph.initializer[0].dims[0] += 1
    for style in (None, OUTSIDE):
        with pytest.raises(ModelError, match="'w0' holds 160000 bytes where its dims ask for 160400"):
            save(proto, tmp_path / "m.onnx", style=style)
        assert content(tmp_path) == {}


# --- what may be replaced --------------------------------------------------------------------------------------------


def test_the_input_is_replaced_with_force_only(tmp_path: Path) -> None:
    source = save(add(), tmp_path / "in.onnx").path
    os.link(source, tmp_path / "hard.onnx")
    (tmp_path / "soft.onnx").symlink_to(source)
    for name in ("in.onnx", "hard.onnx", "soft.onnx", "../" + tmp_path.name + "/in.onnx"):
        with pytest.raises(UsageError, match="is the input itself"):
            save(wide(), tmp_path / name, source=source)
    assert load(source).proto == add()
    save(wide(), source, source=source, force=True)
    assert load(source).proto == wide()
    assert load(tmp_path / "hard.onnx").proto == add()


@pytest.mark.parametrize("force", [False, True])
def test_the_weights_of_the_input_are_never_replaced(tmp_path: Path, force: bool) -> None:
    source = external(tmp_path)
    with pytest.raises(UsageError, match="holds the weights of the input"):
        save(wide(), tmp_path / "w.data", source=source, force=force)
    assert load(source).proto == add()


def test_a_link_is_replaced_with_force_only_and_its_target_never(tmp_path: Path) -> None:
    store = save(add(), tmp_path / "store.onnx").path
    link = tmp_path / "link.onnx"
    for to in (store, tmp_path / "nowhere"):
        link.unlink(missing_ok=True)
        link.symlink_to(to)
        with pytest.raises(UsageError, match="is a link to"):
            save(wide(), link)
        save(wide(), link, force=True)
        assert not link.is_symlink()
        assert load(link).proto == wide()
        assert load(store).proto == add()


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "not a regular"),
        (tmp_path / "no" / "m", "no directory"),
    ):
        with pytest.raises(FileError, match=words):
            save(add(), path, force=True)
    with pytest.raises(FileError, match="not a regular file"):
        save(add(), "/dev/null", force=True)
    with pytest.raises(FileError, match="null bytes"):
        save(add(), tmp_path / "a\0b")


def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    umask = os.umask(0o027)
    try:
        save(add(), path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        saved = save(wide(), path, style=OUTSIDE)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert saved.data is not None
        assert stat.S_IMODE(saved.data.stat().st_mode) == 0o600
    finally:
        os.umask(umask)
    path.chmod(0o444)
    with pytest.raises(UsageError, match="write-protected"):
        save(add(), path)
    save(add(), path, force=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


# --- checking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [None, OUTSIDE])
def test_the_check_sees_the_whole_model_before_it_is_in_place(tmp_path: Path, style: ExternalStyle | None) -> None:
    target = tmp_path / "m.onnx"
    save(add(), target)
    seen = []

    def check(path: Path) -> None:
        assert path.parent == tmp_path
        assert load(target).proto == add()
        seen.append(load(path).proto)

    save(wide(), target, style=style, check=check)
    assert seen == [wide()]


@pytest.mark.parametrize("style", [None, OUTSIDE])
@pytest.mark.parametrize("error", [CheckFailed("differs"), OSError(5, "theirs"), KeyboardInterrupt(), SystemExit(3)])
def test_a_check_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, error: BaseException, style: ExternalStyle | None
) -> None:
    target = tmp_path / "m.onnx"
    save(add(), target)
    before = content(tmp_path)

    def check(path: Path) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        save(wide(), target, style=style, check=check)
    assert caught.value is error
    assert content(tmp_path) == before


def test_a_failed_check_leaves_data_that_another_model_uses(tmp_path: Path) -> None:
    save(wide(), tmp_path / "other.onnx", style=OUTSIDE)
    before = content(tmp_path)

    def check(path: Path) -> None:
        raise CheckFailed("differs")

    with pytest.raises(CheckFailed):
        save(wide(), tmp_path / "m.onnx", style=OUTSIDE, check=check)
    assert content(tmp_path) == before


def test_tensors_that_say_that_their_elements_are_inside_are_stored_outside(tmp_path: Path) -> None:
    """As onnx's own loader leaves them, which fetches elements from outside."""
    model = wide()
    for tensor in model.graph.initializer:
        tensor.data_location = TensorProto.DEFAULT
    save(model, tmp_path / "m.onnx", style=ExternalStyle())
    found = load(tmp_path / "m.onnx").proto.graph.initializer
    assert [t.raw_data for t in found] == [t.raw_data for t in wide().graph.initializer]
