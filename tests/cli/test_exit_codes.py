"""Exit codes one by one: what each stands for, the one line that goes with it, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import CUT, DIGITS, MIXED, ROOT, SAMPLE, Runner, finished, nothing_written, process, stuck_model

from onnxprune.cli.screen import Bar
from onnxprune.model.network import Network

stages, study = map(import_module, ("onnxprune.pipeline.outcome", "onnxprune.pipeline.study"))
posix = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


def one_line(text: str) -> bool:
    return text.startswith("Error: ") and text.count("\n") == 1 and "Traceback" not in text


# --- 0 -----------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], ["inspect", "-h"], ["methods"], ["x", "y", "-h"]])
def test_done_when_asked_for_words(run: Runner, words: list[str]) -> None:
    outcome = run(*words)
    assert outcome.code == 0
    assert outcome.out
    assert not outcome.err


def test_done_when_nothing_can_be_cut(run: Runner, there: Path) -> None:
    model = stuck_model(there / "stuck.onnx")
    outcome = run(model, "out.onnx", *CUT, "--no-measure")
    assert outcome.code == 0
    assert "faithful copy" in outcome.out
    assert "it is an output of the network" in outcome.out
    assert (there / "out.onnx").read_bytes() == model.read_bytes()


# --- 1 -----------------------------------------------------------------------


def test_strict_fails_when_nothing_can_be_cut(run: Runner, there: Path) -> None:
    model = stuck_model(there / "stuck.onnx")
    with nothing_written(there):
        outcome = run(model, "out.onnx", *CUT, "--strict")
    assert outcome.code == 1
    assert one_line(outcome.err)
    assert "nothing can be cut" in outcome.err


def test_a_wrong_rewrite_is_caught_and_nothing_is_written(
    run: Runner, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaging(*given: object) -> Network:
        model = rewritten(*given).proto()
        weight = next(t for t in model.graph.initializer if t.name == "conv2.weight")
        array = onnx.numpy_helper.to_array(weight).copy()
        array[[0, 1]] = array[[1, 0]]
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        return Network.of(model)

    rewritten = study.pruned
    monkeypatch.setattr(study, "pruned", damaging)
    (there / "out.onnx").write_bytes(b"what was there before")
    with nothing_written(there):
        outcome = run(DIGITS, "out.onnx", *CUT, "--plan-out", "plan.json", "--report", "report.html")
    assert outcome.code == 1
    assert one_line(outcome.err)
    assert "not the masked original" in outcome.err


def test_verify_tells_a_damaged_result(run: Runner, there: Path) -> None:
    assert run(DIGITS, "a.onnx", *CUT, "--no-measure", "--plan-out", "a.json").code == 0
    assert run(DIGITS, "b.onnx", *CUT, "--no-measure", "--method", "random").code == 0
    assert run("verify", DIGITS, "a.onnx", "--plan", "a.json").code == 0
    outcome = run("verify", DIGITS, "b.onnx", "--plan", "a.json")
    assert outcome.code == 1
    assert one_line(outcome.err)


def test_a_bug_is_one_line_and_a_trace_only_with_v(run: Runner, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("list index out of range\nand a second line")

    monkeypatch.setattr(stages, "make_plan", broken)
    with nothing_written(there):
        outcome = run(DIGITS, "out.onnx", *CUT)
        detailed = run(DIGITS, "out.onnx", *CUT, "-v")
    assert outcome.code == detailed.code == 1
    assert one_line(outcome.err)
    assert "IndexError" in outcome.err
    assert "please report it" in outcome.err
    assert "Traceback" in detailed.err


def test_no_memory_is_one_line(run: Runner, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(study, "pruned", greedy)
    with nothing_written(there):
        outcome = run(DIGITS, "out.onnx", *CUT)
    assert outcome.code == 3
    assert one_line(outcome.err)
    assert "memory" in outcome.err


# --- 2 -----------------------------------------------------------------------

USAGE = {
    "no budget": ([], "--ratio 0.5"),
    "two budgets": (["--ratio", "0.5", "--target", "macs=0.5"], "give one"),
    "percent without a sign": (["--ratio", "50"], "did you mean 50%?"),
    "all channels": (["--ratio", "1"], "below 1"),
    "not a number": (["--ratio", "half"], "0.5 or 50%"),
    "unknown target": (["--target", "flops=0.5"], "macs="),
    "target without share": (["--target", "macs"], "macs=0.5"),
    "threshold": (["--threshold", "2"], "at most 1"),
    "unknown option": (["--ratoi", "0.5"], "--ratio"),
    "unknown method": (["--ratio", "0.5", "--method", "best"], "ncc"),
    "unknown method option": (["--ratio", "0.5", "--method-option", "power=2"], "linkage"),
    "method option without value": (["--ratio", "0.5", "--method-option", "linkage"], "NAME=VALUE"),
    "ratio for nothing": (["--ratio-for", "0.5"], "GLOB=R"),
    "pattern that matches nothing": (["--ratio", "0.5", "--exclude", "conv9*"], "--exclude 'conv9*' matches no layer"),
    "share of nothing": (["--ratio", "0.5", "--ratio-for", "conv9*=0.7"], "--ratio-for 'conv9*' matches no layer"),
    "value is missing": (["--ratio"], "requires an argument"),
    "third file": (["more.onnx", "--ratio", "0.5"], "unexpected"),
    "shape of no input": (["--ratio", "0.5", "--input-shapes", "picture:1x1x8x8"], "'image'"),
    "shape that does not fit": (["--ratio", "0.5", "--input-shapes", "image:1x3x8x8"], "does not fit"),
    "unknown provider": (["--ratio", "0.5", "--providers", "abacus"], "abacus"),
    "unknown metric": (["--ratio", "0.5", "--data", str(SAMPLE), "--metric", "beauty"], "top1"),
    "report of no known form": (["--ratio", "0.5", "--report", "report.pdf"], ".html"),
    "plan over the input": (["--ratio", "0.5", "--plan-out", str(DIGITS)], "would overwrite"),
    "report over the plan": (["--ratio", "0.5", "--plan-out", "x.json", "--report", "x.json"], "would overwrite"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage(run: Runner, there: Path, case: str) -> None:
    words, hint = USAGE[case]
    with nothing_written(there):
        outcome = run(DIGITS, "out.onnx", *words)
    assert outcome.code == 2
    assert one_line(outcome.err)
    assert hint in outcome.err
    assert not outcome.out


def test_usage_without_words_shows_the_help(run: Runner) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "Usage: onnxprune" in outcome.out


def test_usage_needs_an_output(run: Runner, there: Path) -> None:
    assert run(DIGITS, *CUT).code == 2
    assert run(DIGITS, *CUT, "--dry-run", "--no-measure").code == 0


def test_usage_output_over_input(run: Runner, there: Path) -> None:
    (there / "net.onnx").write_bytes(DIGITS.read_bytes())
    with nothing_written(there):
        outcome = run("net.onnx", "net.onnx", *CUT)
    assert outcome.code == 2
    assert "--force" in outcome.err
    assert run("net.onnx", "net.onnx", *CUT, "--force", "--no-measure").code == 0
    assert (there / "net.onnx").stat().st_size < DIGITS.stat().st_size


def test_usage_a_command_with_a_typing_error(run: Runner, there: Path) -> None:
    outcome = run("inspct", DIGITS)
    assert outcome.code == 2
    assert "`onnxprune inspect`" in outcome.err


def test_usage_unknown_node_names_near_ones(run: Runner) -> None:
    outcome = run("explain", DIGITS, "/conv3/Cnov")
    assert outcome.code == 2
    assert "'/conv3/Conv'" in outcome.err


def test_usage_plan_of_another_network(run: Runner, there: Path) -> None:
    assert run(DIGITS, "a.onnx", *CUT, "--no-measure", "--plan-out", "a.json").code == 0
    outcome = run("apply", MIXED, "b.onnx", "--plan", "a.json")
    assert outcome.code == 2
    assert "another network" in outcome.err
    (there / "no.json").write_text("{}")
    assert run("apply", DIGITS, "b.onnx", "--plan", "no.json").code == 2


def test_usage_metric_that_needs_labels_is_told_before_anything_is_written(run: Runner, there: Path) -> None:
    np.savez(there / "bare.npz", image=np.zeros((4, 1, 8, 8), np.float32))
    with nothing_written(there):
        outcome = run(DIGITS, "out.onnx", *CUT, "--data", "bare.npz", "--metric", "top1")
    assert outcome.code == 2
    assert "labels" in outcome.err


# --- 3 -----------------------------------------------------------------------

NO_MODELS = {
    "empty": (b"", "empty"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html><body>not found</body></html>", "not an ONNX model"),
    "torch file": (b"PK\x03\x04" + bytes(200), "not an ONNX model"),
    "noise": (bytes(range(255, 0, -1)) * 40, "ONNX model"),
}


@pytest.mark.parametrize("case", NO_MODELS)
def test_no_model(run: Runner, there: Path, case: str) -> None:
    content, hint = NO_MODELS[case]
    (there / "in.onnx").write_bytes(content)
    with nothing_written(there):
        for words in (["in.onnx", "out.onnx", "--ratio", "0.5"], ["inspect", "in.onnx"], ["explain", "in.onnx", "a"]):
            outcome = run(*words)
            assert outcome.code == 3
            assert one_line(outcome.err)
            assert hint in outcome.err


def test_model_that_is_cut_short(run: Runner, there: Path) -> None:
    (there / "in.onnx").write_bytes(DIGITS.read_bytes()[:100_000])
    outcome = run("in.onnx", "out.onnx", *CUT)
    assert outcome.code == 3
    assert "cut short" in outcome.err


def test_model_that_onnxruntime_cannot_run(run: Runner, there: Path) -> None:
    model = onnx.load(DIGITS)
    model.graph.node[1].domain = "acme"
    model.opset_import.add(domain="acme", version=1)
    onnx.save(model, there / "in.onnx")
    outcome = run("in.onnx", "out.onnx", *CUT)
    assert outcome.code == 3
    assert "--no-verify" in outcome.err
    assert run("in.onnx", "out.onnx", *CUT, "--no-verify").code == 0
    assert run("inspect", "in.onnx").code == 0


# --- 4 -----------------------------------------------------------------------


def test_files_that_are_missing(run: Runner, there: Path) -> None:
    for words in (
        ["nothing.onnx", "out.onnx", "--ratio", "0.5"],
        [DIGITS, "nowhere/out.onnx", "--ratio", "0.5"],
        [DIGITS, "out.onnx", "--ratio", "0.5", "--data", "nothing.npz"],
        [DIGITS, "out.onnx", "--ratio", "0.5", "--plan-out", "nowhere/plan.json"],
        [DIGITS, "out.onnx", "--ratio", "0.5", "--report", "nowhere/report.html"],
        ["verify", DIGITS, "nothing.onnx", "--plan", "nothing.json"],
        ["apply", DIGITS, "out.onnx", "--plan", "nothing.json"],
        ["inspect", "nothing.onnx"],
    ):
        with nothing_written(there):
            outcome = run(*words)
        assert outcome.code == 4, words
        assert one_line(outcome.err), words


def test_directories_in_place_of_files(run: Runner, there: Path) -> None:
    (there / "folder").mkdir()
    for words in (
        ["folder", "out.onnx", "--ratio", "0.5"],
        [DIGITS, "folder", "--ratio", "0.5"],
        [DIGITS, "out.onnx", "--ratio", "0.5", "--plan-out", "folder"],
    ):
        outcome = run(*words)
        assert outcome.code == 4, words
        assert "directory" in outcome.err, words


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="ROOT may write everywhere")
def test_directory_that_is_write_protected(run: Runner, there: Path) -> None:
    folder = there / "closed"
    folder.mkdir(mode=0o555)
    assert run(DIGITS, folder / "out.onnx", *CUT).code == 4


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@FULL
@pytest.mark.parametrize("words", [("inspect", DIGITS, "--json"), ("--help",), ("methods",), ("bla", "--json")])
def test_a_full_standard_output_is_one_line(there: Path, words: tuple[object, ...]) -> None:
    with open("/dev/full", "w") as full:
        outcome = finished(process(*words, stdout=full))
    assert outcome.code == (2 if "bla" in words else 4)
    assert one_line(outcome.err)


LATE = """
import sys
from onnxprune.cli import main, screen
screen.SILENCE = 0
sys.exit(main())
"""


@posix
@pytest.mark.parametrize("reader", ["gone", pytest.param("full", marks=FULL)])
@pytest.mark.parametrize("ratio", ["0.5", "2"])
def test_words_that_nobody_reads_stop_no_job(there: Path, reader: str, ratio: str) -> None:
    """Progress, warnings and errors may be lost; what is written and the exit code are the same."""
    if reader == "full":
        write = os.open("/dev/full", os.O_WRONLY)
    else:
        read, write = os.pipe()
        os.close(read)
    command = [sys.executable, "-c", LATE, str(DIGITS), "out.onnx", "--ratio", ratio, *CUT[2:], "--no-measure"]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write, text=True, cwd=there, env=settings)
    os.close(write)
    assert finished(started).code == (0 if ratio == "0.5" else 2)
    assert (there / "out.onnx").exists() == (ratio == "0.5")


# --- 130, and readers that leave ---------------------------------------------

STAGES = ("load", "analyse", "choose channels", "plan", "rewrite", "save", "verify", "measure")


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_in_every_stage(run: Runner, there: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    def interrupt(bar: Bar, what: str, done: int, of: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "__call__", interrupt)
    with nothing_written(there):
        outcome = run(DIGITS, "out.onnx", *CUT)
    assert outcome.code == 130
    assert one_line(outcome.err)
    assert not outcome.out


@posix
def test_interrupted_while_onnxruntime_works(there: Path) -> None:
    started = process(DIGITS, "out.onnx", *CUT, "--input-shapes", "image:6000x1x8x8")
    end = time.monotonic() + 40
    while not list(there.glob(".onnxprune-*")):  # the temporary output is there: verification begins
        assert started.poll() is None, finished(started)
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.3)
    started.send_signal(signal.SIGINT)
    outcome = finished(started)
    assert outcome.code == 130
    assert one_line(outcome.err)
    assert not list(there.iterdir())


IMPORTING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[-1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from onnxprune.cli import main
sys.exit(main())
"""


@posix
@pytest.mark.parametrize("module", ["click", "rich.console", "numpy", "scipy.linalg", "onnxprune.pipeline.inspect"])
def test_interrupted_while_a_library_is_loaded(there: Path, module: str) -> None:
    """One line and no trace, wherever Ctrl-C comes in the second before the work begins."""
    command = [sys.executable, "-c", IMPORTING, "explain", str(DIGITS), module]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    outcome = finished(started)
    assert outcome.code == 130
    assert outcome.err == "Error: interrupted\n"


@posix
def test_a_reader_that_leaves_is_no_error(there: Path) -> None:
    read, write = os.pipe()
    started = process("inspect", MIXED, "--json", stdout=write)
    os.close(write)
    os.close(read)
    outcome = finished(started)
    assert outcome.code == 0
    assert not outcome.err


@posix
def test_closed_streams_are_no_error(there: Path) -> None:
    words = f"'{sys.executable}' -m onnxprune '{DIGITS}' out.onnx --ratio 0.5 --compensate none --no-measure"
    found = set()
    for closed in (">&- 2>&-", "<&- >&- 2>&-", "2>&-", "</dev/null >/dev/null 2>&1"):
        assert os.system(f"PYTHONPATH='{ROOT}' {words} {closed} --force") == 0, closed
        found.add((there / "out.onnx").read_bytes())
    assert len(found) == 1  # nothing was printed into the output
