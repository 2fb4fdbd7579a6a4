"""Sweeps that run: the same for any workers, nothing done twice, and no result half there, whatever ends them."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import DIGITS, MIXED, ROOT, SAMPLE, Runner, finished, process, stuck_model

import onnxprune
from onnxprune.errors import CheckFailed, FileError, UsageError
from onnxprune.sweeps import workers

PLAIN: dict[str, Any] = {"methods": "l2", "compensate": "none", "measure": False, "data": str(SAMPLE)}
GRID = ("--targets", "macs=0.4,0.8", "--methods", "ncc,l2", "--compensate", "none", "--no-measure", "--data", SAMPLE)


# --- the sweep ---------------------------------------------------------------


def results(folder: Path) -> list[dict[str, Any]]:
    """The table without what was timed; every model in it is the one that it names."""
    found = [json.loads(text) for text in (folder / "results.jsonl").read_text("utf-8").splitlines()]
    for told in found:
        told["latency"], told["fronts"] = None, [f for f in told["fronts"] if f != "latency"]
        if told["model"]:
            assert hashlib.sha256((folder / told["model"]).read_bytes()).hexdigest() == told["sha256"]
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep by one worker, in this process."""
    folder = tmp_path_factory.mktemp("alone")
    found = onnxprune.sweep([DIGITS, MIXED], folder, targets="macs=0.4,0.8", jobs=1, min_accuracy=0.2, **PLAIN)
    assert [(r.network, r.target, r.error) for r in found.rows] == [
        (name, target, None) for name in ("digits_cnn", "digits_mixed") for target in ("macs=0.4", "macs=0.8")
    ]
    assert all(r.macs <= float(r.target[5:]) * r.macs_before and r.proof and r.figure == "top1" for r in found.rows)
    for told in results(folder)[1:3]:
        source = DIGITS if told["network"] == "digits_cnn" else MIXED
        assert onnxprune.verify(source, folder / told["model"], folder / told["plan"]).passed
    return folder


def test_any_number_of_workers_gives_the_same(alone: Path, tmp_path: Path) -> None:
    onnxprune.sweep([DIGITS, MIXED], tmp_path, targets="macs=0.4,0.8", jobs=2, min_accuracy=0.2, **PLAIN)
    assert results(tmp_path) == results(alone)
    assert (tmp_path / "index.html").read_text("utf-8") == (alone / "index.html").read_text("utf-8")


def test_a_sweep_goes_on_where_it_was_stopped(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(alone, folder)
    expected, (gone, other, *_) = results(folder), sorted((folder / "models").glob("*.onnx"))
    gone.unlink()
    other.write_bytes(b"half")
    half = sorted((folder / "results").iterdir())[-1]
    again = onnxprune.sweep([DIGITS, MIXED], folder, targets="macs=0.4,0.8", jobs=1, min_accuracy=0.2, **PLAIN)
    assert again.reused == 2
    assert results(folder) == expected
    half.write_text(half.read_text("utf-8")[:40])
    more = onnxprune.sweep([DIGITS, MIXED], folder, targets="macs=0.4,0.6,0.8", jobs=1, **PLAIN)
    assert more.reused == 3
    assert len(more.rows) == 6


def test_weights_outside_of_a_model_are_a_part_of_its_result(tmp_path: Path) -> None:
    options = {**PLAIN, "save_as_external_data": True, "targets": "macs=0.5", "jobs": 1}
    row = onnxprune.sweep(DIGITS, tmp_path, **options).rows[0]
    assert row.data_sha256 is not None
    (name,) = row.data_sha256
    data = tmp_path / "models" / name
    whole = data.read_bytes()
    assert onnxprune.sweep(DIGITS, tmp_path, **options).reused == 1
    data.write_bytes(whole[:-1] + b"?")
    with pytest.raises(FileError, match="move it away"):
        onnxprune.sweep(DIGITS, tmp_path, **options).require()
    data.unlink()
    again = onnxprune.sweep(DIGITS, tmp_path, **options)
    assert again.reused == 0
    assert data.read_bytes() == whole


def test_an_error_is_told_in_its_row_and_ends_nothing(tmp_path: Path) -> None:
    stuck = stuck_model(tmp_path / "stuck.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    options = {"compensate": "none", "measure": False, "jobs": 1}
    found = onnxprune.sweep([DIGITS, broken, stuck], tmp_path / "out", targets="macs=0.5", methods="l2,cshe", **options)
    rows = {(r.network, r.method): r for r in found.rows}
    assert rows["digits_cnn", "l2"].error is None
    assert "needs calibration images" in str(rows["digits_cnn", "cshe"].error)
    assert rows["broken", "l2"].exit_code == 3
    assert "cshe" in str(found)
    assert "failed: " in (tmp_path / "out" / "index.html").read_text("utf-8")
    found.require()
    again = onnxprune.sweep([DIGITS, broken, stuck], tmp_path / "out", targets="macs=0.5", methods="l2,cshe", **options)
    assert again.reused == sum(r.error is None for r in found.rows)  # what failed is tried again


def test_latency_is_measured_when_the_work_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pipeline.measure.measure", None)  # as it would be beside the others
    monkeypatch.setattr("onnxprune.sweeps.sweep.SECONDS", 0.05)
    options = {**PLAIN, "measure": True, "data": None}
    found = onnxprune.sweep(DIGITS, tmp_path, targets="macs=0.5", jobs=1, **options)
    time = found.rows[0].latency
    assert time is not None
    assert 0 < time.low <= time.after <= time.high
    assert found.rows[0].figure == "snr"
    monkeypatch.setattr("onnxprune.sweeps.sweep.measure", None)  # and once
    assert onnxprune.sweep(DIGITS, tmp_path, targets="macs=0.5", jobs=1, **options).rows[0].latency == time


# --- on the command line -----------------------------------------------------


def test_the_command(run: Runner, there: Path) -> None:
    outcome = run("sweep", DIGITS, "out", *GRID, "--jobs", 1, "--min-accuracy", "50%", "--json")
    assert outcome.code == 0
    assert len(outcome.json["rows"]) == 4
    assert set(outcome.json["recommended"]) == {"digits_cnn"}
    shown = run("sweep", DIGITS, "out", *GRID, "--jobs", 1, "--min-accuracy", "50%")
    assert "recommended for accuracy of at least 50.00%" in " ".join(shown.out.split())
    assert "4 done before" in " ".join(shown.out.split())
    timed = [word for word in GRID if word != "--no-measure"]
    missed = run("sweep", DIGITS, "out", *timed, "--jobs", 1, "--min-accuracy", "50%", "--latency", "0.001us")
    assert missed.code == 1
    assert "no cut of digits_cnn" in missed.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        ((DIGITS,), 2),
        (("none.onnx", "out", "--targets", "macs=0.5"), 4),
        ((DIGITS, "out"), 2),
        ((DIGITS, "out", "--targets", "0.5"), 2),
        ((DIGITS, DIGITS, "--targets", "macs=0.5", "--methods", "l2"), 4),
        ((DIGITS, "out", "--targets", "macs=0.5", "--jobs", "0"), 2),
        ((DIGITS, "out", "--targets", "macs=0.5", "--backend", "none"), 2),
        ((DIGITS, "out", "--targets", "macs=0.5", "--ratio", "0.5"), 2),
        ((DIGITS, "out", "--targets", "macs=0.5", "--min-accuracy", "90%"), 2),  # what no cut could show
        ((DIGITS, "out", "--targets", "macs=0.5", "--latency", "1ms", "--no-measure"), 2),
    ],
)
def test_mistakes_have_the_exit_codes_of_all_commands(
    run: Runner, there: Path, words: tuple[Any, ...], code: int
) -> None:
    assert run("sweep", *words).code == code


def test_a_network_that_is_none_has_its_exit_code(run: Runner, there: Path) -> None:
    (there / "broken.onnx").write_bytes(b"no model")
    outcome = run("sweep", "broken.onnx", "out", "--targets", "macs=0.5", "--jobs", 1)
    assert outcome.code == 3
    assert "no combination has a result" in outcome.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_whatever_ends_a_sweep_leaves_whole_results_only(alone: Path, tmp_path: Path, number: signal.Signals) -> None:
    words = (tmp_path, "--targets", "macs=0.4,0.8", "--methods", "l2", *GRID[4:], "--jobs", 1)
    started = process("sweep", DIGITS, *words)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "results").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(number)
    outcome = finished(started)
    assert outcome.code == (130 if number == signal.SIGINT else -9)
    left = [json.loads(p.read_text("utf-8")) for p in (tmp_path / "results").glob("*.json")]
    assert left
    assert all((tmp_path / told["model"]).is_file() and "error" not in told for told in left)
    again = onnxprune.sweep(DIGITS, tmp_path, targets="macs=0.4,0.8", jobs=1, **PLAIN)
    assert again.reused == len(left)
    assert results(tmp_path) == results(alone)[:2]


def test_workers_that_die_are_told_and_what_is_done_is_kept(tmp_path: Path) -> None:
    script = tmp_path / "die.py"
    script.write_text("import os, signal\ndef load_data():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(CheckFailed, match="a worker died"):
        onnxprune.sweep(DIGITS, tmp_path / "out", targets="macs=0.4,0.8", jobs=2, **{**PLAIN, "data": str(script)})
    assert (tmp_path / "out" / "results.jsonl").read_text("utf-8") == ""


# --- elsewhere ---------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers on this machine: its address, and the workers."""
    pytest.importorskip("distributed", reason="Dask is not installed here")
    told = tmp_path / "scheduler.json"
    where = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
        return subprocess.Popen(command, env=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    started = [start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told))]
    deadline = time.monotonic() + 60
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    options = ("--scheduler-file", str(told), "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path))
    started += [start("worker", *options) for _ in range(2)]
    yield json.loads(told.read_text("utf-8"))["address"], started[1:]
    for one in started:
        one.kill()
        one.wait()


def test_a_worker_of_dask_that_dies_costs_nothing(
    alone: Path, tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, (victim, _) = cluster

    def progress(what: str, done: int, of: int) -> None:
        if done == 1 and of == 4:  # in the middle
            victim.kill()

    found = onnxprune.sweep(
        [DIGITS, MIXED], tmp_path / "out", targets="macs=0.4,0.8", backend="dask", scheduler=address, progress=progress,
        min_accuracy=0.2, **PLAIN,
    )  # fmt: skip
    assert victim.wait() == -9
    assert found.reused == 0
    assert results(tmp_path / "out") == results(alone)


@pytest.mark.slow
def test_ray_gives_the_same(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed here")
    onnxprune.sweep(
        [DIGITS, MIXED], tmp_path / "out", targets="macs=0.4,0.8", backend="ray", jobs=2, min_accuracy=0.2, **PLAIN
    )
    assert results(tmp_path / "out") == results(alone)


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend, module in (("dask", "dask.distributed"), ("ray", "ray")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UsageError, match=rf"onnxprune\[{backend}\]"):
            onnxprune.sweep(DIGITS, tmp_path, targets="macs=0.5", backend=backend, **PLAIN)


def test_a_scheduler_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed here")
    monkeypatch.setattr(workers, "SECONDS", 1)
    with pytest.raises(FileError, match="no Dask scheduler answers"):
        onnxprune.sweep(
            DIGITS, tmp_path, targets="macs=0.5", backend="dask", scheduler="tcp://127.0.0.1:9", **PLAIN
        )  # fmt: skip
