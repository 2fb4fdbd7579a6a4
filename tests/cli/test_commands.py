"""The command line: its options, what it prints and writes, and every network that is at hand."""

import json
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import CUT, DIGITS, MIXED, MODELS, SAMPLE, SHARED, Runner, finished, process

import onnxprune
from onnxprune.cli import screen
from onnxprune.cli.about import cli
from onnxprune.cli.flags import flags_of, request_options
from onnxprune.criteria.methods import METHODS
from onnxprune.pipeline.request import Request
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.session import make_session

# --- options -----------------------------------------------------------------


def test_every_option_reaches_the_request() -> None:
    words = (
        "in.onnx out.onnx --target MACS=50% --target size=250KB --ratio-for a=b*=0.25 --ratio-for c=10% "
        "--max-ratio 0.8 --round-to 8 "
        "--method ncc --method-option linkage=complete --allocation global --compensate ridge --exclude x --exclude y "
        "--include z --heads dims --seed 3 --data d.npz --test-data t.npz --metric top1 --metric snr --mean 0.5 "
        "--std 0.25 --resize 256 --layout nhwc --limit 10 "
        "--input-shapes i:1x2 --no-verify --no-measure --strict --providers cpu --threads 2 --dry-run --force "
        "--save-as-external-data --plan-out p --report r.html --json -q -v"
    )
    given = cli.commands["prune"].make_context("prune", words.split()).params
    told = {k: v for k, v in given.items() if k not in ("source", "output")}
    assert Request.of(request_options(told)) == Request.of(
        {},
        target=("macs=0.5", "size=250KB"),
        ratio_for={"a=b*": 0.25, "c": 0.1},
        max_ratio=0.8,
        round_to=8,
        method="ncc",
        method_options={"linkage": "complete"},
        allocation="global",
        compensate="ridge",
        exclude=("x", "y"),
        include=("z",),
        heads="dims",
        seed=3,
        data="d.npz",
        test_data="t.npz",
        metric=("top1", "snr"),
        mean="0.5",
        std="0.25",
        resize="256",
        layout="nhwc",
        limit=10,
        input_shapes=("i:1x2",),
        verify=False,
        measure=False,
        strict=True,
        providers="cpu",
        threads=2,
        dry_run=True,
        force=True,
        save_as_external_data=True,
    )


def test_what_is_not_given_is_left_to_the_request() -> None:
    given = cli.commands["prune"].make_context("prune", ["in.onnx", "out.onnx", "--ratio", "0"]).params
    assert request_options({k: v for k, v in given.items() if k not in ("source", "output")}) == {"ratio": 0.0}


def test_help_has_every_option_under_its_heading_and_fits_80_columns(run: Runner) -> None:
    text = run("--help").out
    for command in cli.commands:
        words = run(command, "--help").out
        for flag in flags_of(command):
            section = words.index(f"\n{flag.section}:\n")
            assert words.index(flag.spelling if flag.switch else f"{flag.spelling} ", section) > section
        assert max(map(len, words.splitlines())) <= 80
        assert "Usage: onnxprune" in words
    assert run("prune", "--help").out == text


# --- the main job ------------------------------------------------------------


def test_report_on_a_terminal_of_80_columns(run: Runner, there: Path) -> None:
    outcome = run(DIGITS, "out.onnx", "--ratio", 0.5, "--data", SAMPLE)
    lines = outcome.out.splitlines()
    assert outcome.code == 0
    assert not outcome.err
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)
    assert "\x1b" not in outcome.out
    words = {line.split("  ")[0]: line for line in lines}
    for name in ("parameters", "MACs", "file size", "peak activations", "latency", "top1", "agreement"):
        assert name in words
    assert "171,162" in words["parameters"]
    assert "42,946" in words["parameters"]
    assert "say little about accuracy" in " ".join(outcome.out.split())
    assert "equal up to rounding" in outcome.out
    assert "image:1x1x8x8; --input-shapes" in " ".join(outcome.out.split())
    assert "trtexec --onnx=out.onnx" in outcome.out
    assert "polygraphy run out.onnx" in outcome.out
    assert "conv1.weight" not in outcome.out
    assert not list(there.glob(".onnxprune*"))


def test_details_list_groups_reasons_and_times(run: Runner, there: Path) -> None:
    text = run(DIGITS, "out.onnx", *CUT, "--exclude", "conv1*", "--no-measure", "-v").out
    for word in (
        "conv1.weight",
        "excluded by 'conv1*'",
        "fc1.weight",
        "/fc2/Gemm",
        "an output of the network",
        "verify",
    ):
        assert word in text


def test_json_stands_alone_on_standard_output(there: Path) -> None:
    outcome = finished(process(DIGITS, "out.onnx", *CUT, "--json", "-v", "--no-measure"))
    assert outcome.code == 0
    assert all(re.match("[0-9]/[0-9] ", line) for line in outcome.err.splitlines())  # how far it is
    report = outcome.json
    assert report["proof"]["verified"] is True
    assert report["after"]["params"] < report["before"]["params"]
    assert report["sha256"]["output"]
    assert Path(report["output"]) == there / "out.onnx"


def test_json_of_a_failure_is_json_too(run: Runner, there: Path) -> None:
    outcome = run("nothing.onnx", "out.onnx", *CUT, "--json")
    assert outcome.json == {"error": {"message": "there is no file 'nothing.onnx'", "exit_code": 4}}
    assert outcome.err == "Error: there is no file 'nothing.onnx'\n"


def test_json_has_no_numbers_that_json_lacks(run: Runner, there: Path) -> None:
    outcome = run(DIGITS, "out.onnx", "--ratio", 0, "--json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    report = json.loads(outcome.out, parse_constant=refuse)
    assert report["drift"][0]["snr"] is None  # infinite: nothing changed


def test_quiet_prints_nothing(run: Runner, there: Path) -> None:
    outcome = run(DIGITS, "out.onnx", *CUT, "-q", "--no-measure")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert (there / "out.onnx").exists()


def test_no_colour_no_bars_in_a_pipe_even_where_colour_is_usual(there: Path) -> None:
    colours = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    outcome = finished(process(DIGITS, "out.onnx", *CUT, environment=colours))
    assert outcome.code == 0
    assert "\x1b" not in outcome.out + outcome.err
    assert not outcome.err


def test_words_that_an_encoding_lacks_are_spelt_otherwise(there: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    outcome = finished(process(DIGITS, "out.onnx", *CUT, "--no-measure", environment=ascii_only))
    assert outcome.code == 0
    assert outcome.out.isascii()
    assert "digits_cnn.onnx -> out.onnx" in outcome.out


def test_dry_run_writes_only_what_is_named(run: Runner, there: Path) -> None:
    outcome = run(DIGITS, *CUT, "--dry-run", "--no-measure", "--plan-out", "plan.json")
    assert outcome.code == 0
    assert "nothing written" in outcome.out
    assert [p.name for p in there.iterdir()] == ["plan.json"]
    assert run(DIGITS, "out.onnx", *CUT, "--dry-run", "--no-measure").code == 0
    assert not (there / "out.onnx").exists()


def test_options_of_the_choice_show_in_the_outcome(run: Runner, there: Path) -> None:
    words = (
        "--ratio",
        "25%",
        "--ratio-for",
        "conv4*=0.75",
        "--exclude",
        "fc1*",
        "--method",
        "l2",
        "--compensate",
        "none",
        "--no-measure",
    )
    report = run(DIGITS, "out.onnx", *words, "--json").json
    kept = {g["name"]: g["kept"] for g in report["groups"]}
    assert kept == {"conv1.weight": 36, "conv2.weight": 36, "conv3.weight": 72, "conv4.weight": 24, "fc1.weight": 64}
    assert report["options"]["method"] == "l2"


def test_notes_of_the_data_are_told(run: Runner, there: Path) -> None:
    data = dict(np.load(SAMPLE))
    np.savez(there / "more.npz", **data, spare=np.zeros((500, 2), np.float32))
    outcome = run(DIGITS, "out.onnx", *CUT, "--no-measure", "--data", "more.npz")
    assert outcome.code == 0
    assert "data: not used: spare" in outcome.out


def test_same_command_same_bytes(there: Path) -> None:
    for name, seed in (("a.onnx", "1"), ("b.onnx", "2")):
        settings = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed}
        words = (MIXED, name, "--target", "macs=0.5", "--no-measure", "-q")
        assert finished(process(*words, environment=settings)).code == 0
    assert (there / "a.onnx").read_bytes() == (there / "b.onnx").read_bytes()


# --- plans and reports -------------------------------------------------------


def test_a_plan_is_repeated_and_verified(run: Runner, there: Path) -> None:
    assert run(DIGITS, "a.onnx", *CUT, "--no-measure", "--plan-out", "plan.json").code == 0
    applied = run("apply", DIGITS, "b.onnx", "--plan", "plan.json", "--no-measure")
    assert applied.code == 0
    assert "remove what the plan removes" in applied.out
    assert (there / "a.onnx").read_bytes() == (there / "b.onnx").read_bytes()
    proof = run("verify", DIGITS, "b.onnx", "--plan", "plan.json", "--json", "--data", SAMPLE).json
    assert proof["verified"] is True
    assert proof["runs"] == 7  # three kinds of input, two other sizes, two batches of the data


def test_a_plan_that_is_repeated_says_what_chose_its_channels(run: Runner, there: Path) -> None:
    assert run(DIGITS, "a.onnx", *CUT, "--method", "l2", "--no-measure", "--plan-out", "plan.json").code == 0
    words = ("apply", DIGITS, "b.onnx", "--plan", "plan.json", "--compensate", "merge", "--no-measure")
    options = run(*words, "--json").json["options"]
    assert (options["ratio"], options["method"], options["compensate"]) == (0.5, "l2", "merge")
    kept = {p.key: p.value for p in onnx.load(there / "b.onnx").metadata_props}
    assert json.loads(kept["onnxprune.options"]) == options


def test_a_plan_lets_anyone_check_the_surgery(run: Runner, there: Path) -> None:
    assert run(MIXED, "out.onnx", *CUT, "--no-measure", "--plan-out", "plan.json").code == 0
    plan = json.loads((there / "plan.json").read_text())
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        for path in (MIXED, there / "out.onnx")
    )
    assert plan["initializers"]
    for name, axes in plan["initializers"].items():
        wanted = before[plan["copies"].get(name, name)]
        for axis, positions in axes.items():
            wanted = np.take(wanted, positions, axis=int(axis))
        np.testing.assert_array_equal(after[name], wanted)


@pytest.mark.parametrize("name", ["report.json", "report.html", "REPORT.HTM"])
def test_report_files(run: Runner, there: Path, name: str) -> None:
    assert run(DIGITS, "out.onnx", *CUT, "--no-measure", "--report", name).code == 0
    text = (there / name).read_text("utf-8")
    if name.endswith("json"):
        assert json.loads(text)["proof"]["verified"] is True
    else:
        assert text.startswith("<!doctype html>")
        assert "conv4.weight" in text


# --- looking -----------------------------------------------------------------


def test_inspect(run: Runner) -> None:
    text = run("inspect", MIXED).out
    assert "11 groups of channels can be cut" in text
    assert "/fc/Gemm" in text
    assert "opset 17" in text
    found = run("inspect", MIXED, "--json").json
    assert sum(g["macs"] for g in found["groups"]) == pytest.approx(1, abs=1e-3)
    stem = found["groups"][0]
    assert stem["members"] == ["/stem/stem.0/conv/Conv", "/residual/body/body.2/conv/Conv"]
    assert stem["channels"] == 32
    assert found["figures"]["params"] == onnxprune.analyse(onnx.load(MIXED)).params()
    assert "/gated/project/conv/Conv" in "".join(run("inspect", MIXED, "-v").out.split())


def test_inspect_names_unknown_operators(run: Runner, there: Path) -> None:
    model = onnx.load(DIGITS)
    model.graph.node[1].domain, model.graph.node[1].op_type = "acme", "Twist"
    model.opset_import.add(domain="acme", version=1)
    onnx.save(model, there / "in.onnx")
    outcome = run("inspect", "in.onnx")
    assert outcome.code == 0
    assert "acme::Twist" in outcome.out
    assert "acme::Twist" in {u["operator"] for u in run("inspect", "in.onnx", "--json").json["unknown"]}


def test_explain_what_couples(run: Runner) -> None:
    words = ("explain", MIXED, "/projected/body/body.2/conv/Conv", "/gated/project/conv/Conv")
    found = run(*words, "--json").json
    assert "are coupled: 64 of their channels" in found["verdict"]
    assert [x["node"] for x in found["chain"]] == ["/gated/Add"]
    assert "/gated/Add (Add)" in run(*words).out


def test_explain_what_reads(run: Runner) -> None:
    found = run("explain", DIGITS, "/conv1/Conv", "/conv2/Conv", "--json").json
    assert "/conv2/Conv (Conv) reads 48 of the channels that /conv1/Conv (Conv) writes" in found["verdict"]


def test_explain_what_freezes(run: Runner) -> None:
    found = run("explain", DIGITS, "fc2.weight", "--json").json
    assert "the 10 channels of /fc2/Gemm (Gemm) cannot be removed" in found["verdict"]
    assert found["chain"][-1]["why"] == "is an output of the network"


def test_explain_what_goes_together(run: Runner) -> None:
    found = run("explain", MIXED, "gated.expand.0.conv.weight", "--json").json
    partners = {p["node"]: [x["node"] for x in p["chain"]] for p in found["partners"]}
    assert partners == {
        "/gated/depthwise/depthwise.0/conv/Conv (Conv)": ["/gated/depthwise/depthwise.0/conv/Conv"],
        "/gated/gate/gate.3/Conv (Conv)": ["/gated/depthwise/depthwise.0/conv/Conv", "/gated/Mul"],
    }


def test_explain_what_is_not_coupled(run: Runner) -> None:
    assert "are not coupled" in run("explain", DIGITS, "/conv1/Conv", "/conv4/Conv").out.replace("\n", " ")


def test_methods(run: Runner) -> None:
    text, details, found = run("methods").out, run("methods", "-v").out, run("methods", "--json").json
    assert set(found) == set(METHODS)
    for name, method in METHODS.items():
        assert f"\n{name} " in text
        assert f"\n{name}\n" in f"\n{details}"
        assert found[name]["source"] == method.source
        assert [o["name"] for o in found[name]["options"]] == [o.name for o in method.options]
        for option in method.options:
            assert f"{option.name}=" in details


def test_doctor(run: Runner) -> None:
    outcome = run("doctor", "--json")
    subjects = {f["subject"]: f["level"] for f in outcome.json}
    assert subjects["onnxprune"] == "ok"
    assert outcome.code == int("problem" in subjects.values())
    assert "onnxruntime" in run("doctor").out


# --- every network at hand ---------------------------------------------------

NETWORKS = sorted(MODELS.glob("*.onnx")) + sorted(SHARED.glob("*.onnx"))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda p: p.stem)
def test_network_ends_well(run: Runner, there: Path, network: Path) -> None:
    outcome = run(network, "out.onnx", *CUT, "--no-measure", "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json
    assert report["proof"]["verified"]
    assert any(g["kept"] < g["channels"] for g in report["groups"]) or report["frozen"]
    before, after = onnx.load(network), onnx.load(there / "out.onnx")
    weights = {t.name for model in (before, after) for t in model.graph.initializer}
    for mine, theirs in ((before.graph.input, after.graph.input), (before.graph.output, after.graph.output)):
        assert [v for v in mine if v.name not in weights] == [v for v in theirs if v.name not in weights]
    session = make_session(there / "out.onnx", providers="cpu")
    shapes = {name: tuple(sizes) for name, sizes in report["input_shapes"].items()}
    session.run(random_inputs(session.inputs, shapes)[0])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared networks are not beside this repository")
def test_networks_that_are_not_supported_are_refused_in_one_line(run: Runner, there: Path) -> None:
    broken = sorted((SHARED / "unsupported").rglob("*.onnx"))
    assert broken
    for network in broken:
        outcome = run(network, "out.onnx", *CUT)
        assert outcome.code == 3, network
        assert outcome.err.startswith("Error: ")
        assert outcome.err.count("\n") == 1
        assert not list(there.iterdir())


# --- progress ----------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals of POSIX")
@pytest.mark.parametrize(("patience", "shown"), [(0.01, True), (30.0, False)])
def test_progress_on_a_terminal_for_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, patience: float, shown: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(screen, "PATIENCE", patience)
    ours, theirs = os.openpty()
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(iter(lambda: _read(ours), b"")))
    reader.start()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        with screen.Screen().progress() as progress:
            progress.begin(5, 8)
            progress("comparing the filters of \x1b[31mconv1", 3, 7)
            time.sleep(0.5)
        terminal.write("end")
    reader.join(10)
    os.close(ours)
    text = b"".join(read).decode()
    assert ("5/8 comparing the filters of \\x1b[31mconv1" in text) is shown
    assert ("43% done" in text) is shown
    assert text.endswith("end")
    if not shown:
        assert text == "end"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_without_a_terminal_a_line_tells_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    for quiet in (False, True):
        with screen.Screen(quiet=quiet).progress() as progress:
            progress.begin(5, 8)
            for k in range(6):
                progress("solving for conv1", k, 6)
                now[0] += 4
    assert capsys.readouterr().err.splitlines() == [
        "5/8 solving for conv1, 50% done, 12 s left",
        "5/8 solving for conv1, 83% done, 4 s left",
    ]
