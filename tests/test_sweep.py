"""Sweeps: what is tried, what is worth a look, that nothing is done twice, and that no result is half there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import framed, needs_browser
from cli_runs import DIGITS, MIXED, ROOT, SAMPLE, Runner, finished, process, stuck_model
from test_pictures import Heard
from test_report import EVIL

import onnxprune
from onnxprune.errors import CheckFailed, FileError, ModelError, UsageError
from onnxprune.report.tradeoff import Row, Sweep, Timing, Wanted, with_fronts
from onnxprune.report.tradeoff_page import tradeoff_html
from onnxprune.sweeps import workers
from onnxprune.sweeps.grid import Combination, find_sources, read_names, read_targets
from onnxprune.sweeps.keys import key_of
from onnxprune.sweeps.run import seconds

PLAIN: dict[str, Any] = {"methods": "l2", "compensate": "none", "measure": False, "data": str(SAMPLE)}
GRID = ("--targets", "macs=0.4,0.8", "--methods", "ncc,l2", "--compensate", "none", "--no-measure", "--data", SAMPLE)


# --- what is tried -----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        ("macs=0.3:0.9:0.1", [f"macs={x}" for x in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]),
        ("macs=0.5", ["macs=0.5"]),
        ("params=0.5,0.7", ["params=0.5", "params=0.7"]),
        ("size=30%:50%:10%", ["size=0.3", "size=0.4", "size=0.5"]),
        ("MACs=0.2:0.4:0.25", ["macs=0.2"]),
        (["macs=0.5", "macs=0.5,0.6"], ["macs=0.5", "macs=0.6"]),
    ],
)
def test_targets_are_read(given: Any, targets: list[str]) -> None:
    assert list(read_targets(given)) == targets


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("latency=0.5", "measured afterwards"),
        ("0.5", "targets look like"),
        ("macs=0.9:0.3:0.1", "holds no number"),
        ("macs=0.1:0.2:0", "holds no number"),
        ("macs=0:1:1e-9", "more than"),
        ("macs=a:b:c", "first:last:step"),
        ((), "needs targets"),
    ],
)
def test_what_is_no_target_is_refused(given: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_targets(given)


def test_names_and_networks_are_found(tmp_path: Path) -> None:
    assert read_names(["ncc,obs", " l2", "ncc"]) == ("ncc", "obs", "l2")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"no \.onnx file"):
        find_sources(tmp_path / "folder")
    for name in ("b.onnx", "a.onnx", "notes.txt"):
        (tmp_path / "folder" / name).touch()
    assert [p.name for p in find_sources([tmp_path / "folder", DIGITS, DIGITS])] == ["a.onnx", "b.onnx", DIGITS.name]
    with pytest.raises(FileError, match="no file"):
        find_sources([tmp_path / "none.onnx"])
    with pytest.raises(UsageError, match="from files"):
        find_sources([b"bytes"])


@pytest.mark.parametrize(
    ("given", "value"), [("5ms", 0.005), (0.01, 0.01), ("500us", 0.0005), ("1 s", 1.0), (None, None)]
)
def test_times_have_units(given: Any, value: float | None) -> None:
    assert seconds(given) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ratio": 0.5}, "ratio is for one run"),
        ({"min_snr": 3.0, "retrain": len}, "retrain is for one run"),
        ({"methods": ""}, "needs methods"),
        ({"methods": "none"}, "none"),
        ({"targets": "macs=7"}, "7"),
        ({"latency": "soon"}, "5ms"),
        ({"backend": "threads"}, "no backend"),
        ({"scheduler": "tcp://localhost:1"}, "dask or ray"),
        ({"data": iter([])}, "digested"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_makes_no_sense_is_told_before_the_work(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        onnxprune.sweep(DIGITS, tmp_path / "out", **{"targets": "macs=0.5", "methods": "l2", **options})
    assert not list(tmp_path.rglob("*.onnx"))


# --- what a result is kept under ---------------------------------------------


def test_keys_follow_all_that_decides_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = tmp_path / "net.onnx", tmp_path / "data.npz"
    shutil.copy(DIGITS, mine)
    shutil.copy(SAMPLE, other)

    def key(source: Path = DIGITS, **options: Any) -> str:
        chosen = {"target": "macs=0.5", "method": "l2", "data": str(SAMPLE), **options}
        return key_of(Combination(source, "macs=0.5", "l2", chosen))

    assert key() == key(mine) == key(data=str(other)) == key(threads=2) == key(measure=False)
    assert (
        len({key(), key(target="macs=0.6"), key(method="ncc"), key(seed=1), key(data=None), key(metric=["top5"])}) == 6
    )
    assert key(data=np.zeros((2, 1, 8, 8))) == key(data=np.zeros((2, 1, 8, 8))) != key(data=np.ones((2, 1, 8, 8)))
    with mine.open("ab") as stream:
        stream.write(b"\x4a\x00")  # another file
    with other.open("ab") as stream:
        stream.write(b"\0")
    assert len({key(), key(mine), key(data=str(other))}) == 3
    before = key()
    monkeypatch.setattr("onnxprune.sweeps.keys.version", lambda name: "9.9")
    assert key() != before


# --- what is worth a look ----------------------------------------------------


def row(name: str, after: float | None, macs: int, latency: float | None = None, **more: Any) -> Row:
    time = None if latency is None else Timing(0.010, latency, latency, latency)
    options = {"figure": "top1", "unit": "share", "before": 0.9, "macs_before": 100, "bytes_before": 100, **more}
    return Row(name, "net", f"macs={name}", "l2", macs=macs, bytes=macs, after=after, latency=time, **options)


ROWS = with_fronts(
    [
        row("a", 0.89, 80, 0.008),
        row("b", 0.88, 60, 0.009),
        row("c", 0.80, 60, 0.004),
        row("d", 0.70, 30, 0.003),
        row("e", 0.70, 40, 0.003),
        row("f", 0.90, 100, 0.02),
        replace(row("g", None, 0), error="no"),
    ]
)


@pytest.mark.parametrize(
    ("cost", "front"),
    [("macs", ["d", "b", "a", "f"]), ("bytes", ["d", "b", "a", "f"]), ("latency", ["d", "e", "c", "a"])],
)
def test_a_front_is_what_nothing_beats(cost: str, front: list[str]) -> None:
    assert [r.key for r in Sweep("", tuple(ROWS)).pareto("net", cost)] == front


def test_a_cut_that_the_original_beats_is_on_no_front() -> None:
    assert with_fronts([row("a", 0.85, 110)])[0].fronts == ()
    assert with_fronts([row("a", 12.0, 110, unit="dB", before=None)])[0].fronts == ("macs", "bytes")


@pytest.mark.parametrize(
    ("wanted", "best"),
    [
        (Wanted(min_accuracy=0.85), "b"),
        (Wanted(min_accuracy=0.7), "d"),
        (Wanted(latency=0.0085), "a"),
        (Wanted(min_accuracy=0.75, latency=0.005), "c"),
        (Wanted(min_accuracy=0.95), None),
        (Wanted(min_snr=3.0), None),
    ],
)
def test_the_cut_that_is_all_that_was_wanted(wanted: Wanted, best: str | None) -> None:
    found = Sweep("", tuple(ROWS), wanted)
    chosen = found.recommended["net"]
    assert (chosen and chosen.key) == best
    if best is None:
        with pytest.raises(CheckFailed, match="no cut of net"):
            found.require()
    else:
        found.require()
        assert f"recommended for {wanted}" in " ".join(str(found).split())
        assert "is recommended: top1" in tradeoff_html(found)


def test_a_sweep_of_failures_fails_as_a_single_run_does() -> None:
    with pytest.raises(ModelError, match="has a result: broken"):
        Sweep("", (replace(ROWS[0], error="broken", exit_code=3),)).require()


# --- the sweep ---------------------------------------------------------------


def results(folder: Path) -> list[dict[str, Any]]:
    """The table without what was timed; every model in it is the one that it names."""
    found = [json.loads(text) for text in (folder / "results.jsonl").read_text("utf-8").splitlines()]
    for told in found:
        told["latency"], told["fronts"] = None, [f for f in told["fronts"] if f != "latency"]
        if told["model"]:
            assert onnxprune.verify(DIGITS if "cnn" in told["network"] else MIXED, folder / told["model"],
                                    folder / told["plan"])  # fmt: skip
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
    monkeypatch.setattr("onnxprune.sweeps.timing.SECONDS", 0.05)
    options = {**PLAIN, "measure": True, "data": None}
    found = onnxprune.sweep(DIGITS, tmp_path, targets="macs=0.5", jobs=1, **options)
    time = found.rows[0].latency
    assert time is not None
    assert 0 < time.low <= time.after <= time.high
    assert found.rows[0].figure == "snr"
    monkeypatch.setattr("onnxprune.sweeps.timing.measure", None)  # and once
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
    missed = run("sweep", DIGITS, "out", *GRID, "--jobs", 1, "--min-accuracy", "100%", "--latency", "1us")
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
    words = ("sweep", DIGITS, MIXED, tmp_path, "--targets", "macs=0.4,0.8", "--methods", "l2", *GRID[4:], "--jobs", 1)
    started = process(*words)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "results").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(number)
    outcome = finished(started)
    assert outcome.code == (130 if number == signal.SIGINT else -9)
    left = [json.loads(p.read_text("utf-8")) for p in (tmp_path / "results").glob("*.json")]
    assert left
    assert all((tmp_path / told["model"]).is_file() and told["error"] is None for told in left)
    again = onnxprune.sweep([DIGITS, MIXED], tmp_path, targets="macs=0.4,0.8", jobs=1, **PLAIN)
    assert again.reused == len(left)
    assert results(tmp_path) == results(alone)


# --- elsewhere ---------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers on this machine: its address, and the workers."""
    pytest.importorskip("distributed", reason="Dask is not installed here")
    told = tmp_path / "scheduler.json"
    where = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:], "--no-dashboard"]
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


# --- the page ----------------------------------------------------------------

HOSTILE = Sweep("", tuple(replace(r, network=EVIL, method=EVIL, target=EVIL, model=EVIL, error=e)
                          for r, e in zip(ROWS, (None, EVIL), strict=False)), Wanted(min_accuracy=0.5))  # fmt: skip


@pytest.mark.parametrize("found", [Sweep("", tuple(ROWS), Wanted(latency=0.01)), HOSTILE], ids=["plain", "hostile"])
def test_the_page_has_words_for_every_picture(found: Sweep) -> None:
    page = tradeoff_html(found)
    heard = Heard(page)
    assert not {"script", "img", "link", "iframe"} & heard.tags
    assert heard.pictures == 3
    assert set(heard.labels) == set(heard.ids)
    assert not set(page) & set("\x1b\r\u202e")


def test_the_page_has_the_numbers() -> None:
    page = tradeoff_html(Sweep("", tuple(ROWS), Wanted(min_accuracy=0.85)))
    for word in (
        "88.00% at 60",
        "original: 90.00% at 100",
        "top1 against latency here",
        "9.00 ms (9.00 ms to 9.00 ms)",
    ):
        assert word in page
    assert page.count("<polyline") == 3


@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_a_phone_and_a_desk(tmp_path: Path, width: int) -> None:
    found = framed(tmp_path, tradeoff_html(Sweep("", tuple(ROWS), Wanted(min_accuracy=0.85))), width)
    assert found["needed"] == found["width"] == width
    assert len(found["pictures"]) == 3
