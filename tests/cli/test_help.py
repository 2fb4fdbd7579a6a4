"""Help on one screen and in full, completion in shells, and what a JSON report says of the run itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import CUT, DIGITS, Runner

import onnxprune
from onnxprune.cli.about import cli
from onnxprune.report.summary import SCHEMA


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_the_short_help_fits_a_screen_and_names_the_long_one(run: Runner, command: list[str]) -> None:
    outcome = run(*command, "-h")
    lines = outcome.out.splitlines()
    assert outcome.code == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith("--help` shows all there is.")
    assert len(run(*command, "--help").out.splitlines()) >= 5


def test_help_is_a_command_too(run: Runner) -> None:
    assert run("help").out == run("--help").out
    assert run("help", "apply").out == run("apply", "--help").out
    outcome = run("help", "aply")
    assert outcome.code == 2
    assert "there is no command 'aply'; there are apply, verify" in outcome.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run: Runner, shell: str) -> None:
    assert f"_ONNXPRUNE_COMPLETE={shell}_complete" in run("completion", shell).out


@pytest.mark.parametrize(
    ("words", "found"),
    [("onnxprune insp", {"inspect"}), ("onnxprune net.onnx out.onnx --ra", {"--ratio", "--ratio-for"})],
)
def test_shells_are_told_commands_and_options(words: str, found: set[str]) -> None:
    asked = {"_ONNXPRUNE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-m", "onnxprune"]
    told = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True).stdout
    assert {line.partition(",")[2] for line in told.splitlines()} == found


def test_a_json_report_tells_the_run_itself(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [DIGITS, "out.onnx", *CUT, "--no-measure", "--target", "activations=12KiB", "--json"]
    found = run(*[w for w in words if w not in ("--ratio", 0.5, "0.5")]).json
    assert found["schema"] == SCHEMA
    assert found["command"].startswith(f"onnxprune {DIGITS} out.onnx")
    assert found["versions"]["onnxprune"] == onnxprune.__version__
    assert {"python", "machine", "onnx", "numpy", "scipy", "protobuf", "blas"} <= found["versions"].keys()
    assert found["assumed_shapes"] == {"image": [1, 1, 8, 8]}
    search = found["search"]
    assert (search["cost"], search["figures"], search["limits"]) == ("macs", ["activations"], ["activations=12KiB"])
    assert {"figures": [12288], "holds": True}.items() <= search["probes"][0].items()
    assert any(p["holds"] and p["figures"][0] <= 12288 for p in search["probes"])
    assert any(not p["holds"] and p["figures"][0] > 12288 for p in search["probes"])
    assert len(found["next_commands"]) == 3


def test_nothing_comes_next_where_nothing_was_removed(tmp_path: Path) -> None:
    report = onnxprune.prune(DIGITS, tmp_path / "out.onnx", ratio=0, measure=False).report
    assert not report.next_commands
    assert report.command is None
