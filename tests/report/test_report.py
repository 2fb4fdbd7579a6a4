"""Reports as text, HTML and JSON: figures as people read them, any width, and names that mean harm."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import DIGITS, Runner
from onnx import helper
from reports import EVIL, EVIL_REPORT, REPORT
from rich.console import Console

import onnxprune
from onnxprune.errors import FileError, UsageError
from onnxprune.pipeline.paths import same
from onnxprune.pipeline.report import timing, trtexec
from onnxprune.report import DriftRow, Figures, FrozenRow, MetricRow, Report, files, words
from onnxprune.report.html import html
from onnxprune.report.jsonable import dumps, jsonable
from onnxprune.report.summary import Span
from onnxprune.report.terminal import plain, rendered

NOTHING = replace(
    REPORT,
    groups=(),
    after=replace(REPORT.before),
    frozen=tuple(FrozenRow(f"/layer{k}", 8, f"reason {k % 12}") for k in range(24)),
)


# --- figures -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (words.count(171_162), "171,162"),
        (words.count(23_456_789), "23.5 M"),
        (words.si(0), "0"),
        (words.si(999), "999"),
        (words.si(999_999), "1000 k"),
        (words.si(3_370_624), "3.37 M"),
        (words.si(4.1e9), "4.10 G"),
        (words.size(171), "171 bytes"),
        (words.size(686_952), "671 KiB"),
        (words.size(3 << 30), "3.00 GiB"),
        (words.duration(12.3e-6), "12.3 µs"),
        (words.duration(0.0123), "12.3 ms"),
        (words.duration(100.4), "100 s"),
        (words.left(200, 50), "25.0%"),
        (words.left(0, 0), ""),
        (words.factor(200, 50), "4.00×"),
        (words.factor(200, 0), ""),
        (words.merit(0.745, "share"), "74.50%"),
        (words.merit(math.inf, "dB"), "inf"),
        (words.merit_change(MetricRow("top1", 0.761, 0.745, "share", 1)), "−1.60 points"),
        (words.merit_change(MetricRow("top1", 0.7, 0.75, "share", 1)), "+5.00 points"),
        (words.merit_change(MetricRow("top1", 0.7, 0.7, "share", 1)), "unchanged"),
        (words.merit_change(MetricRow("snr", math.inf, 3.0, "dB", 1)), ""),
        (words.drift(DriftRow("y", 0.0, 1.0, math.inf)), "y: none, bit for bit the same"),
        (
            words.drift(DriftRow("y", 0.0, 1.0, math.inf), less=True),
            "y: none at all, so that it says nothing of what was removed",
        ),
        (words.drift(DriftRow("y", math.inf, math.nan, -math.inf, "shape changed")), "y: shape changed"),
        (words.plural(1, "layer"), "1 layer"),
        (words.plural(2000, "layer"), "2,000 layers"),
        (words.listed(["a", "b", "c"], 2), "a, b and 1 more"),
        (words.clean("a\x1b[31m\nb\u202e"), "a\\x1b[31m\\nb\\u202e"),
    ],
)
def test_words(made: str, text: str) -> None:
    assert made == text


def test_the_output_that_moved_furthest_is_named() -> None:
    unlike = DriftRow("odd", math.inf, math.nan, -math.inf, "shape changed")
    assert words.worst(REPORT.drift).output == "logits"
    assert words.worst((*REPORT.drift, unlike)).output == "odd"


def test_frozen_layers_are_gathered_by_reason() -> None:
    rows = [
        FrozenRow("a", 1, "r"),
        FrozenRow("b", 1, "its input 1 is unknown"),
        FrozenRow("c", 2, "its input 1 is unknown"),
    ]
    found = words.by_reason(rows)
    assert {reason: [r.layer for r in members] for reason, members in found.items()} == {
        "its input 1 is unknown": ["b", "c"],
        "r": ["a"],
    }


# --- text --------------------------------------------------------------------


@pytest.mark.parametrize("width", [30, 44, 60, 80, 160])
@pytest.mark.parametrize("report", [REPORT, NOTHING], ids=["pruned", "nothing"])
@pytest.mark.parametrize("details", [False, True])
def test_text_fits_any_width_and_cuts_off_no_number(width: int, report: Report, details: bool) -> None:
    text = plain(report, width=width, details=details)
    for line in text.splitlines():
        assert len(line) <= width or line.startswith("  trtexec")
        assert line == line.rstrip()
    assert "23.5 M" in text
    assert report.next_commands[0] in text
    if width >= 44:
        assert "…" not in text


def test_printing_a_report_gives_the_table() -> None:
    text = str(REPORT)
    assert text == plain(REPORT)
    assert "/nets/net.onnx → /nets/small.onnx" in text
    squeezed = " ".join(text.split())
    assert "on 500 samples of the data" in squeezed
    assert "1 of 2 groups cut, 32 of 192 channels removed; 2 layers cannot be cut" in squeezed
    assert "masked original and pruned model are equal up to rounding" in squeezed
    assert "worst of 2 outputs, logits: cosine 0.9100" in squeezed
    assert "say little about accuracy" in squeezed
    assert "warning: one weight is not finite" in squeezed
    assert "data: not used: spare" in squeezed
    assert "excluded" not in squeezed
    assert "excluded by 'conv2*'" in " ".join(plain(REPORT, details=True).split())


def test_nothing_removed_says_why() -> None:
    text = " ".join(plain(NOTHING).split())
    assert "nothing was removed: no layer of this network has channels that can be removed" in text
    assert "a faithful copy was written" in text
    assert "24 layers cannot be cut, and why" in text
    assert "reason 3" in text
    assert "and 4 other reasons (-v shows all)" in text
    assert "other reasons" not in plain(NOTHING, details=True)
    written = " ".join(plain(replace(NOTHING, output=None)).split())
    assert "faithful copy" not in written
    assert "nothing written" in written


def test_not_verified_is_said() -> None:
    assert "not verified" in plain(replace(REPORT, proof=None, proof_error=None))


def test_a_ratio_too_small_is_not_blamed_on_the_network() -> None:
    whole = replace(REPORT, groups=tuple(replace(g, kept=g.channels) for g in REPORT.groups))
    assert "what was asked leaves all channels of the 2 groups that could be cut" in " ".join(plain(whole).split())


def test_colour_on_a_terminal_and_none_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as coloured:
        console.print(rendered(REPORT))
    assert "\x1b[3" in coloured.get()
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as bare:
        console.print(rendered(REPORT))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", bare.get())


# --- names that mean harm ----------------------------------------------------


@pytest.mark.parametrize("details", [False, True])
def test_a_terminal_gets_no_control_characters(details: bool) -> None:
    text = plain(EVIL_REPORT, details=details, width=200)
    assert not set(text) & set("\x1b\r\u202e")
    assert "[red]" in text  # no markup of rich's either
    assert "<script>" in text


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(v) for k, v in attrs if k in ("src", "href")]
        assert not any(k.startswith("on") for k, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("report", [REPORT, NOTHING, EVIL_REPORT], ids=["pruned", "nothing", "evil"])
def test_html_stands_alone_and_escapes_everything(report: Report) -> None:
    page = Page(html(report))
    assert "script" not in page.tags
    assert not page.addresses
    assert page.tags.count("table") == html(report).count("</table>")
    assert not set(html(report)) & set("\x1b\r\u202e")
    assert "http" not in "".join(page.words)


def test_html_says_it_all() -> None:
    said = " ".join(" ".join(Page(html(REPORT)).words).split())
    for word in ("conv1.weight", "/skip/Conv", "excluded by 'conv2*'", "/fc/Gemm", "it is an output of the network"):
        assert word in said
    for word in ("23.5 M", "74.50%", "−1.60 points", "equal up to rounding", "trtexec", "a" * 64, "2.50 s", "12.3 ms"):
        assert word in said
    assert '<rect class="is" width="25.00%"' in html(REPORT)


@pytest.mark.parametrize(("asked", "said"), [(0.5, False), (0.6, True), (None, False)])
def test_html_says_what_was_asked_where_something_else_became_of_it(asked: float | None, said: bool) -> None:
    group = replace(REPORT.groups[0], asked=asked)
    assert ("asked to go" in html(replace(REPORT, groups=(group,)))) == said


def test_hostile_names_in_a_model_end_to_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx.load(DIGITS)
    for node in model.graph.node:
        node.name = f"{EVIL}{node.name}"
    onnx.save(model, "in.onnx")
    run = Runner(capsys)
    outcome = run("in.onnx", "out.onnx", "--ratio", 0.5, "--no-measure", "-v", "--report", "report.html")
    looked = run("inspect", "in.onnx", "-v")
    explained = run("explain", "in.onnx", "fc2.weight")
    missed = run("explain", "in.onnx", "Gemm")
    assert [x.code for x in (outcome, looked, explained, missed)] == [0, 0, 0, 2]
    for shown in (outcome, looked, explained, missed):
        assert not set(shown.out + shown.err) & set("\x1b\r\u202e")
    assert "script" not in Page((tmp_path / "report.html").read_text("utf-8")).tags


# --- JSON and files ----------------------------------------------------------


def test_json_of_anything() -> None:
    given = {"a": np.float32(0.5), "b": np.arange(2), "c": (math.nan, math.inf), "d": Path("x"), 5: None, "e": {1}}
    assert jsonable(given) == {"a": 0.5, "b": [0, 1], "c": [None, None], "d": "x", "5": None, "e": [1]}
    assert json.loads(dumps(REPORT.to_json()))["metrics"][1]["before"] is None
    assert dumps(EVIL_REPORT.to_json()).isascii()


def test_python_and_command_line_give_the_same_report(tmp_path: Path) -> None:
    report = onnxprune.prune(DIGITS, tmp_path / "out.onnx", ratio=0.5, compensate="none", measure=False).report
    found = json.loads(dumps(report.to_json()))
    assert found["groups"][0]["members"] == ["/conv1/Conv"]
    assert found["input_shapes"] == {"image": [1, 1, 8, 8]}
    assert "parameters" in str(report)


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.json"
    target.write_text("before")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(FileError, match="No space left"):
            files.write_report(str(target), REPORT)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert target.read_text() == "before"
    files.write_report(str(target), REPORT)
    assert json.loads(target.read_text())["got"] == REPORT.got


def test_targets_are_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ends with"):
        files.check_target(str(tmp_path / "report.txt"), (".json",), "--report")
    with pytest.raises(FileError, match="no directory"):
        files.check_target(str(tmp_path / "a" / "b.json"), None, "--plan-out")
    with pytest.raises(FileError, match="null"):
        files.check_target("a\0b", None, "--plan-out")
    with pytest.raises(UsageError, match="'-'"):
        files.check_target("-", None, "--plan-out")
    assert same(tmp_path / "x", Path(f"{tmp_path}/./x"))
    assert not same(tmp_path / "x", tmp_path / "y")


TIMINGS: dict[str, tuple[Figures, Span | None, str]] = {
    "slower": (Figures(5, 50, 20, 1.1), (0.8, 0.95), "and slower here"),
    "faster": (Figures(5, 50, 20, 0.9), (1.05, 1.2), ""),
    "noise": (Figures(5, 50, 20, 0.9), (0.9, 1.3), "no difference in latency: 0.90 to 1.30 times faster"),
    "spans that overlap": (Figures(5, 50, 20, 0.9, latency_span=(0.8, 1.0)), None, "no difference in latency;"),
    "spans apart": (Figures(5, 50, 20, 0.5, latency_span=(0.4, 0.6)), None, ""),
    "as many MACs": (Figures(5, 100, 20, 1.1), (0.8, 0.95), ""),
    "not timed": (Figures(5, 50, 20), None, ""),
}


@pytest.mark.parametrize("case", TIMINGS)
def test_a_difference_in_latency_is_told_where_there_is_one(case: str) -> None:
    after, gain, told = TIMINGS[case]
    lines = timing(Figures(10, 100, 40, 1.0, latency_span=(0.9, 1.1)), after, gain)
    assert len(lines) == bool(told)
    assert all(told in line for line in lines)


def test_a_factor_within_noise_is_not_shown() -> None:
    figures = Figures(10, 100, 40, 1.0), Figures(5, 50, 20, 0.9)
    report = replace(REPORT, before=figures[0], after=figures[1], latency_gain=(0.9, 1.3))
    for shown in (plain, html):
        assert "within noise" in shown(report)
        assert "within noise" not in shown(replace(report, latency_gain=(1.05, 1.2)))


@pytest.mark.parametrize(
    ("quantized", "release", "told"),
    [
        (False, 10, ["trtexec --onnx=o.onnx --fp16"]),
        (True, 10, ["trtexec --onnx=o.onnx --fp16 --int8"]),
        (True, 11, ["trtexec --onnx=o.onnx"]),
        (False, None, ["trtexec --onnx=o.onnx --fp16  # TensorRT 10", "trtexec --onnx=o.onnx  # TensorRT 11"]),
    ],
)
def test_hints_for_tensorrt_are_right_for_its_release(quantized: bool, release: int | None, told: list[str]) -> None:
    node = helper.make_node("DequantizeLinear" if quantized else "Relu", ["x", "s"][: 1 + quantized], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    assert trtexec("o.onnx", {}, model, release) == told
