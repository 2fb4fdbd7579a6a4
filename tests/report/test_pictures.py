"""Pictures: what they show, that they fit any screen, and what is heard of them."""

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import DARK, LIGHT, framed, needs_browser, shot
from cli_runs import DIGITS, MIXED, ROOT, SAMPLE, Runner
from reports import EVIL, EVIL_REPORT, REPORT, Heard

import onnxprune
from onnxprune.report import Report, pictures, words
from onnxprune.report.files import csv_text
from onnxprune.report.html import html, inspection_html
from onnxprune.report.sensitivities import Curve, Sensitivity
from onnxprune.report.summary import LayerRow, Probe, Search, totals
from onnxprune.report.svg import Axis, bar

LONG = "model/block/batch_normalization/FusedBatchNormV3;model/block/conv2d/BiasAdd/ReadVariableOp/resource" * 3
PROBES = (Probe(0.55, (0.77,), True), Probe(0.32, (0.71,), False), Probe(0.44, (0.76,), True))
FULL = replace(
    REPORT,
    layers=(
        LayerRow("/conv1/Conv", "Conv", ("conv1.weight",), 64, 32, 9_000, 4_500, 640, 320),
        LayerRow(LONG, "Conv", ("conv2.weight",), 232, 232, 90_000, 45_000, 6_400, 3_200),
        LayerRow("/one/Conv", "Conv", (), 1, 1, 90, 45, 6, 3),
    ),
    search=Search("macs", ("top1",), ("top1 >= 0.75",), PROBES, (0.75,), 0.44),
    sensitivity=Sensitivity(
        tuple(Curve(f"g{k}", 8, (1, 4, 7), (0.001 * k, 0.01 * k, 0.1 * k)) for k in range(9)), "squared drift", 64
    ),
)  # fmt: skip
HOSTILE = replace(
    EVIL_REPORT,
    layers=(LayerRow(EVIL, EVIL, (EVIL,), 8, 4, 10, 5, 10, 5),),
    search=Search(EVIL, (EVIL,), (EVIL,), (Probe(0.5, (math.inf,), True),), (math.nan,)),
    sensitivity=Sensitivity((Curve(EVIL, 8, (4,), (0.5,)), Curve(EVIL, 8, (4,), (math.nan,))), EVIL),
)


@pytest.mark.parametrize("report", [REPORT, FULL, HOSTILE], ids=["plain", "full", "hostile"])
def test_every_picture_has_words_and_no_script(report: Report) -> None:
    heard = Heard(html(report))
    assert not {"script", "img", "link", "iframe"} & heard.tags
    assert heard.titles > heard.pictures  # that of the page besides
    assert set(heard.labels) == set(heard.ids)
    assert len(heard.ids) == len(set(heard.ids))
    assert not set(html(report)) & set("\x1b\r\u202e")
    assert not re.findall(r'(?:x|y|[xy][12]|points|width)="[^"]*(?:nan|inf)', html(report))


def test_bars_are_on_one_scale() -> None:
    page = html(FULL)
    assert f"{100 * 64 / 232:.2f}%" in page
    assert f"{100 * 1 / 232:.2f}%" in page
    assert "channels: 64, 32 left" in page
    assert bar(5, 5, 0, "nothing").count('width="0.00%"') == 2
    assert words.bar(100, 50, 200, 20) == "█" * 5 + "░" * 5
    assert words.bar(1, 1, 1000, 10) == "█"


def test_a_search_shows_its_steps_and_what_was_taken() -> None:
    page = html(FULL)
    assert "step 3: 44.0% left, 76.00%, holds, taken" in page
    assert "step 2: 32.0% left, 71.00%, does not hold" in page
    assert "limit 75.00%" in page
    both = Search("macs", ("latency", "size"), ("latency=5ms", "size=250KB"), (Probe(0.5, (0.004, 2e5), True),))
    page = pictures.search(both)
    assert "4.00 ms, holds" in page
    assert "195 KiB, holds" in page
    page = pictures.search(replace(both, figures=("macs", "size")))
    assert "size against MACs" in page
    assert "macs against MACs" not in page, "a cost against itself says nothing"


def test_curves_name_the_groups_that_lose_most() -> None:
    page = html(FULL)
    assert "The 6 groups that lose most" in page
    assert page.count('class="curve other"') == 3
    assert "g8 with 0.8" in page


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (-4.2, -0.1, [-4, -3, -2, -1]), (93.2, 93.4, [93.2, 93.25, 93.3, 93.35, 93.4])],
)
def test_axes_have_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert Axis("x", low, high, str).ticks(5 if low < 0 else 4) == pytest.approx(ticks)


@pytest.mark.parametrize("values", [[], [math.nan], [3.0], [0.0, 0.0], [-1.0, 1.0], [math.inf, 2.0]])
def test_an_axis_holds_whatever_there_is(values: list[float]) -> None:
    axis = Axis.around("x", values, str)
    assert axis.high > axis.low
    assert all(0 <= axis.at(v) <= 100 for v in values if math.isfinite(v))


# --- layers ------------------------------------------------------------------


def test_layers_add_up_to_the_network() -> None:
    report = onnxprune.prune(MIXED, ratio=0.5, compensate="none", measure=False).report
    assert sum(r.macs for r in report.layers) == report.before.macs
    assert sum(r.macs_left for r in report.layers) == report.after.macs
    assert sum(r.params for r in report.layers) == report.before.params
    assert sum(r.params_left for r in report.layers) == report.after.params
    by_name = {g.name: g for g in report.groups}
    for row in report.layers:
        if len(row.groups) == 1:
            assert (row.channels, row.kept) == (by_name[row.groups[0]].channels, by_name[row.groups[0]].kept)
    assert {*totals(report.layers)} == set(by_name)
    assert onnxprune.inspect(MIXED).layers == tuple(
        replace(r, kept=r.channels, macs_left=r.macs, params_left=r.params) for r in report.layers
    )


def test_recurrent_and_quantized_layers_have_their_own_width() -> None:
    exports = ROOT / "tests" / "exports"
    rows = {r.operator: r for r in onnxprune.inspect(exports / "lstm_dynamo.onnx").layers}
    assert rows["LSTM"].channels == 20
    assert rows["MatMul"].params > 0


def test_the_layer_table_is_safe_in_a_spreadsheet(run: Runner, there: Path) -> None:
    outcome = run("inspect", DIGITS, "--report", "layers.csv")
    assert outcome.code == 0
    rows = list(csv.DictReader(io.StringIO((there / "layers.csv").read_text("utf-8"))))
    assert rows[0] == {
        "layer": "/conv1/Conv", "operator": "Conv", "groups": "conv1.weight", "channels": "48", "channels left": "48",
        "MACs": "27648", "MACs left": "27648", "parameters": "480", "parameters left": "480",
    }  # fmt: skip
    text = csv_text([LayerRow("=cmd|' /C calc'!A0", "Conv", (EVIL,), None, None, 1, 1, 1, 1)])
    assert text.splitlines()[1].startswith("'=cmd")
    assert not set(text) & set("\x1b\u202e")


def test_inspect_and_prune_write_pages(run: Runner, there: Path) -> None:
    assert run("inspect", MIXED, "--report", "look.html").code == 0
    page = (there / "look.html").read_text("utf-8")
    assert "11 groups of channels can be cut" in page
    assert "/gated/gate/gate.1/Conv" in page
    shown = run(
        MIXED, "--dry-run", "--max-drop", "2%", "--data", SAMPLE, "--no-measure", "--compensate", "none", "-v",
        "--report", "search.html", "--json",
    )  # fmt: skip
    assert shown.code == 0
    assert shown.json["search"]["figures"] == ["top1"]
    assert len(shown.json["search"]["probes"]) == 7
    assert shown.json["sensitivity"]["curves"]
    assert ", taken" in (there / "search.html").read_text("utf-8")
    assert run("inspect", DIGITS, "--report", DIGITS).code == 2
    assert run("inspect", DIGITS, "--report", "x.txt").code == 2


# --- in a browser ------------------------------------------------------------

PAGES = {
    "full": lambda: html(FULL),
    "hostile": lambda: html(HOSTILE),
    "look": lambda: inspection_html(onnxprune.inspect(MIXED)),
}


@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_a_phone_and_a_desk(tmp_path: Path, page: str, width: int) -> None:
    found = framed(tmp_path, PAGES[page](), width)
    assert found["width"] == width
    assert found["needed"] == width
    assert found["pictures"]
    if width == 360:  # tables are cards here, so that no bar is beyond the edge
        assert max(found["pictures"]) <= width


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_pages_are_light_or_dark_as_the_screen_is(tmp_path: Path, width: int) -> None:
    light, dark = (shot(tmp_path, html(FULL), width, scheme) for scheme in (LIGHT, DARK))
    assert light.shape == dark.shape == (1400, width, 3)
    assert np.median(light) > 240
    assert np.median(dark) < 40
    for picture in (light, dark):  # and something is drawn
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
