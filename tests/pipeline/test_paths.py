"""Files that a run writes, against those that it reads: nothing is written over by mistake, and what fails is told."""

import os
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import CUT as SURGERY
from cli_runs import DIGITS, SAMPLE, Runner, finished, nothing_written, process
from onnx import TensorProto, helper

import onnxprune
from onnxprune.errors import CheckFailed
from onnxprune.model import load, save
from onnxprune.model.atomic import Temporary
from onnxprune.model.external import ExternalStyle
from onnxprune.model.references import data_files

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices of POSIX")
CUT = (*SURGERY, "--no-measure", "--no-verify")


@pytest.fixture
def files(there: Path) -> Path:
    """A network beside its weights, samples, a script, a plan, and second names of some of them."""
    model = onnx.load(DIGITS)
    onnx.save(model, there / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=1024)
    (there / "d.npz").write_bytes(SAMPLE.read_bytes())
    (there / "folder").mkdir()
    np.save(there / "folder" / "a.npy", np.load(SAMPLE)["image"][:8])
    (there / "s.py").write_text(
        "import numpy as np\ndef load_data(): yield {'image': np.zeros((1, 1, 8, 8), np.float32)}"
    )
    onnxprune.prune(there / "in.onnx", ratio=0.5, compensate="none", verify=False, measure=False).plan.save(
        there / "p.json"
    )
    (there / "hard.npz").hardlink_to(there / "d.npz")
    (there / "soft.json").symlink_to("p.json")
    return there


READ = {
    "data": (("--data", "d.npz"), "d.npz"),
    "another name of the data": (("--data", "d.npz"), "hard.npz"),
    "a file of a folder of data": (("--data", "folder"), "folder/a.npy"),
    "a script": (("--data", "s.py:load_data"), "s.py"),
    "data to test on": (("--data", "s.py", "--test-data", "d.npz"), "./d.npz"),
}


@posix
@pytest.mark.parametrize("option", ["OUT", "--plan-out", "--report"])
@pytest.mark.parametrize("case", READ)
def test_what_is_read_is_not_written_over(run: Runner, files: Path, case: str, option: str) -> None:
    options, path = READ[case]
    if option == "--report":  # whose name says what is in it
        os.rename("d.npz", "d.npz.json") if path.endswith("d.npz") else pytest.skip("one kind is enough")
        (files / "d.npz").symlink_to("d.npz.json")
        path = "d.npz.json"
    words = ("in.onnx", path, *CUT) if option == "OUT" else ("in.onnx", "out.onnx", *CUT, option, path)
    with nothing_written(files):
        outcome = run(*words, *options)
    assert outcome.code == 2
    assert "would overwrite" in outcome.err
    assert "--force" in outcome.err


@posix
@pytest.mark.parametrize("path", ["p.json", "soft.json"])
def test_a_plan_that_is_applied(run: Runner, files: Path, path: str) -> None:
    words = ("apply", "in.onnx", "out.onnx", "--plan", "p.json", "--no-measure", "--no-verify", "--plan-out", path)
    with nothing_written(files):
        assert run(*words).code == 2
    assert run(*words, "--force").code == 0  # it has been read by then


@pytest.mark.parametrize("target", ["in.data", "in.onnx"])
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_the_weights_of_the_input_are_never_written_over(
    run: Runner, files: Path, target: str, force: tuple[str, ...]
) -> None:
    with nothing_written(files):
        assert run("in.onnx", "out.onnx", *CUT, "--plan-out", target, *force).code == 2
        if target == "in.data":
            assert run("in.onnx", target, *CUT, *force).code == 2
        with pytest.raises(onnxprune.UsageError, match="would overwrite"):
            onnxprune.prune("in.onnx", "in.data", ratio=0.5, force=True)


def test_the_input_is_replaced_by_the_output_alone(run: Runner, files: Path) -> None:
    weights = (files / "in.data").read_bytes()
    assert run("in.onnx", "in.onnx", *CUT).code == 2
    assert run("in.onnx", "in.onnx", *CUT, "--force").code == 0
    assert (files / "in.data").read_bytes() == weights  # other models may need them
    load(files / "in.onnx")


def test_data_files_of_a_large_model(tmp_path: Path) -> None:
    """They are found without reading the weights inside, wherever the tensors stand."""
    outside = [TensorProto(name=n, data_type=1, dims=[1], data_location=1) for n in ("top", "node", "body")]
    for tensor in outside:
        tensor.external_data.add(key="location", value=f"{tensor.name}.bin")
        (tmp_path / f"{tensor.name}.bin").write_bytes(bytes(4))
    stale = TensorProto(name="stale", data_type=1, dims=[1], raw_data=bytes(4))
    stale.external_data.add(key="location", value="gone.bin")
    body = helper.make_graph([], "b", [], [], [outside[2]])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=outside[1]),
        helper.make_node("If", ["c"], [], then_branch=body),
    ]
    large = TensorProto(name="large", data_type=1, dims=[8 << 20], raw_data=bytes(32 << 20))
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [large, outside[0], stale]))
    onnx.save(model, tmp_path / "m.onnx")
    assert {p.name for p in data_files(tmp_path / "m.onnx")} == {"top.bin", "node.bin", "body.bin"}
    (tmp_path / "m.onnx").write_bytes(b"\x0f" * 99)
    assert data_files(tmp_path / "m.onnx") == ()


def test_a_file_of_billions_of_fields_is_not_gone_through(tmp_path: Path) -> None:
    for start in (b"", b"\x08\x01" * 3_000_000):  # fields without a number, and one of two bytes again and again
        (tmp_path / "m.onnx").write_bytes(start)
        os.truncate(tmp_path / "m.onnx", 1 << 32)
        assert data_files(tmp_path / "m.onnx") == ()


# --- data files that models share --------------------------------------------


def test_a_run_that_fails_leaves_the_weights_of_another(tmp_path: Path) -> None:
    """Two runs write equal weights at once; the first one to begin fails, and the other one's model stays whole."""
    model, style = load(DIGITS).proto, ExternalStyle()

    def meanwhile(_: Path) -> None:
        save(model, tmp_path / "b.onnx", style=style)
        raise CheckFailed("no")

    with pytest.raises(CheckFailed):
        save(model, tmp_path / "a.onnx", style=style, check=meanwhile)
    load(tmp_path / "b.onnx")
    assert not (tmp_path / "a.onnx").exists()


@posix
def test_both_runs_find_the_place_of_the_weights_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one may take itself for the one that put them there: the other waits until it has."""
    model, style, publish = load(DIGITS).proto, ExternalStyle(), Temporary.publish
    begun, threads = threading.Event(), list[threading.Thread]()

    def failing() -> None:
        with pytest.raises(CheckFailed):
            save(model, tmp_path / "b.onnx", style=style, check=refuse)

    def refuse(_: Path) -> None:
        raise CheckFailed("no")

    def slowly(made: Temporary, final: Path) -> None:
        if not begun.is_set():
            begun.set()
            threads.append(threading.Thread(target=failing))
            threads[0].start()
            threads[0].join(0.5)  # as far as it comes
        publish(made, final)

    monkeypatch.setattr(Temporary, "publish", slowly)
    save(model, tmp_path / "a.onnx", style=style)
    threads[0].join()
    load(tmp_path / "a.onnx")


def test_a_file_with_the_name_of_other_weights(tmp_path: Path) -> None:
    model, style = load(DIGITS).proto, ExternalStyle()
    data = save(model, tmp_path / "a.onnx", style=style).data
    assert data is not None
    data.write_bytes(b"the only copy of something")
    with pytest.raises(onnxprune.FileError, match="holds something else"):
        save(model, tmp_path / "b.onnx", style=style)
    assert data.read_bytes() == b"the only copy of something"
    with pytest.raises(onnxprune.UsageError, match="files of weights"):
        save(model, data)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
@pytest.mark.parametrize("what", ["source", "output", "data", "test_data"])
def test_names_that_no_file_can_have(there: Path, what: str, name: str) -> None:
    paths: dict[str, object] = {"source": DIGITS, "output": "out.onnx", what: f"{name}.npz"}
    with nothing_written(there), pytest.raises(onnxprune.FileError):
        onnxprune.prune(**paths, ratio=0.5, verify=False, measure=False)  # type: ignore[arg-type]


# --- names that cannot be, and what fails at the end -------------------------


def test_a_dash_is_no_file(run: Runner, there: Path) -> None:
    for words in ((DIGITS, "-", *CUT), (DIGITS, "o.onnx", *CUT, "--plan-out", "-")):
        with nothing_written(there):
            outcome = run(*words)
        assert outcome.code == 2
        assert "'-'" in outcome.err
    assert run(DIGITS, "./-", *CUT).code == 0


@pytest.mark.parametrize("option", ["OUT", "IN", "--plan-out", "--data", "--plan"])
def test_paths_that_are_too_long(run: Runner, there: Path, option: str) -> None:
    name = "x" * 300 + ".json"
    words = {"OUT": (DIGITS, name, *CUT), "IN": (name, "out.onnx", *CUT)}
    words["--plan"] = ("apply", DIGITS, "out.onnx", "--plan", name)
    with nothing_written(there):
        outcome = run(*words.get(option, (DIGITS, "out.onnx", *CUT, option, name)))
    assert outcome.code == 4
    assert outcome.err.count("\n") == 1
    assert "too long" in outcome.err


@posix
@pytest.mark.parametrize("name", ["/dev/full", "pipe.json"])
@pytest.mark.parametrize("option", ["--plan-out", "--report"])
def test_a_plan_or_report_that_cannot_be_written(run: Runner, there: Path, option: str, name: str) -> None:
    if option == "--report" and name == "/dev/full":
        name = "full.json"
        (there / name).symlink_to("/dev/full")
    if name == "pipe.json":
        os.mkfifo(there / name)  # which nobody reads
    outcome = run(DIGITS, "out.onnx", *CUT, option, name)
    assert outcome.code == 5
    assert "was written and is whole" in outcome.err
    assert "plan was not" in outcome.err if option == "--plan-out" else "report was not" in outcome.err
    assert outcome.err.count("\n") == 1
    assert "parameters" in outcome.out
    load(there / "out.onnx")
    assert run(DIGITS, *CUT, "--dry-run", option, name).code == 4


@posix
def test_a_pipe_that_is_read(run: Runner, there: Path) -> None:
    os.mkfifo(there / "pipe")
    reader = threading.Thread(target=lambda: read.append((there / "pipe").read_text()))
    read: list[str] = []
    reader.start()
    assert run(DIGITS, "out.onnx", *CUT, "--plan-out", "pipe").code == 0
    reader.join()
    assert read[0].startswith("{")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_full_standard_output_after_the_model(there: Path, words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        outcome = finished(process(DIGITS, "out.onnx", *CUT, *words, stdout=full))
    assert outcome.code == 5
    *progress, error = outcome.err.splitlines()
    assert all(line.split("/")[0].isdigit() for line in progress)  # a busy machine takes its time
    assert "out.onnx' was written" in error
    load(there / "out.onnx")
