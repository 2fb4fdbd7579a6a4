"""Sweeps: what is tried, what a result is kept under, which cuts are worth a look, and the page that shows them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import framed, needs_browser
from cli_runs import DIGITS, SAMPLE
from reports import EVIL, Heard

import onnxprune
from onnxprune.errors import CheckFailed, FileError, ModelError, UsageError
from onnxprune.pipeline.declare import read_values
from onnxprune.report.tradeoff import Row, Sweep, Timing, Wanted, with_fronts
from onnxprune.report.tradeoff_page import tradeoff_html
from onnxprune.sweeps.grid import find_sources, read_names, read_targets
from onnxprune.sweeps.options import Sweeping
from onnxprune.sweeps.store import key_of

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


@pytest.mark.parametrize(("given", "value"), [("5ms", 0.005), (0.01, 0.01), ("500us", 0.0005), ("1 s", 1.0)])
def test_times_have_units(given: Any, value: float) -> None:
    assert read_values(Sweeping, {"latency": given}).latency == pytest.approx(value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ratio": 0.5}, "no option 'ratio'"),
        ({"retrain": len}, "no option 'retrain'"),
        ({"methods": ""}, "needs methods"),
        ({"methods": "none"}, "method wants one of"),
        ({"targets": "macs=7"}, "target wants"),
        ({"latency": "soon"}, "5ms"),
        ({"backend": "threads"}, "backend wants one of loky"),
        ({"scheduler": "tcp://localhost:1"}, "dask or ray"),
        ({"data": iter([])}, "digested"),
        ({"surprise": 1}, "no option 'surprise'"),
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
        return key_of(source, chosen)

    assert key() == key(mine) == key(data=str(other))
    others = [{"target": "macs=0.6"}, {"method": "ncc"}, {"seed": 1}, {"data": None}, {"metric": ["top5"]}]
    others += [{"measure": False}, {"threads": 2}]  # no figures on drawn samples; sums in another order
    assert len({key(), *(key(**options) for options in others)}) == 8
    assert key(data=np.zeros((2, 1, 8, 8))) == key(data=np.zeros((2, 1, 8, 8))) != key(data=np.ones((2, 1, 8, 8)))
    with mine.open("ab") as stream:
        stream.write(b"\x4a\x00")  # another file
    with other.open("ab") as stream:
        stream.write(b"\0")
    assert len({key(), key(mine), key(data=str(other))}) == 3
    before = key()
    monkeypatch.setattr("onnxprune.runtime.doctor.metadata.version", lambda name: "9.9")
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


def test_a_sweep_shows_itself() -> None:
    found = Sweep("out", tuple(ROWS))
    assert repr(found) == "<Sweep of 1 networks: 7 combinations in out>"
    assert found._repr_html_().startswith("<iframe sandbox")


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
