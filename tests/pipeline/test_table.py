"""Options are declared once: the command line, Python's signatures, the stub, plans and errors follow the table."""

import inspect
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cli_runs import DIGITS, Runner
from stubs import STUB, stub

import onnxprune
from onnxprune.cli.flags import FLAGS, flags_of
from onnxprune.errors import UsageError
from onnxprune.pipeline.declare import options_of
from onnxprune.pipeline.request import Request, options_for

OPTIONS = options_of(Request)
PYTHON = {"retrain"}  # what only Python can give
FUNCTIONS = ("prune", "apply", "finetune", "verify", "inspect", "sensitivity")


# --- what follows from the table ----------------------------------------------


def test_every_field_of_a_request_is_declared() -> None:
    assert [f.name for f in fields(Request)] == list(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
def test_a_default_is_a_value_that_the_option_may_have(option: Any) -> None:
    assert option.read(option.default) == option.default


def test_the_command_line_has_every_option_and_python_too() -> None:
    assert {f.name for f in FLAGS} >= OPTIONS.keys() - PYTHON
    for command in FUNCTIONS:
        typed = {f.name for f in flags_of(command)} & OPTIONS.keys()
        assert typed == set(options_for(command)) - PYTHON


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_signature_has_the_options_of_its_command_with_type_and_default(name: str) -> None:
    function = getattr(onnxprune, name)
    parameters = inspect.signature(function).parameters
    for option in options_for(name):
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[option].default == OPTIONS[option].default
        assert parameters[option].annotation is not inspect.Parameter.empty
        assert f"    {option}: " in function.__doc__
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert "--" not in function.__doc__


def test_the_stub_that_editors_read_is_the_one_that_the_table_gives() -> None:
    assert STUB.read_text(encoding="utf-8") == stub(), "write it anew: python tests/stubs.py"


def test_help_shows_the_signature() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import onnxprune; help(onnxprune.prune)"], capture_output=True, text=True
    )
    assert "*, ratio: float | str | None = None, target: str | " in " ".join(run.stdout.split())
    assert "ratio: Share of each group's channels to remove" in run.stdout


def test_texts_name_options_that_there_are() -> None:
    for option in FLAGS:
        for word in option.text.split("{")[1:]:
            assert word.split("}")[0] in OPTIONS


# --- errors in the caller's words ----------------------------------------------

WRONG: dict[str, tuple[Any, str]] = {
    "ratio": (1, "a share of at least 0 and below 1"),
    "target": ("flops=0.5", "macs=, params="),
    "threshold": (-2, "a share of at least -1 and at most 1"),
    "max_drop": ("much", "what looks like 0.01 or 1%"),
    "lossless": (3, "True or False"),
    "allocation": ("fair", "one of auto, uniform"),
    "ratio_for": ({"a": "x"}, "GLOB=R"),
    "max_ratio": (True, "a share"),
    "round_to": (0, "a whole number of at least 1"),
    "method": ("best", "one of auto, ncc"),
    "method_options": ("linkage=average", "NAME=VALUE"),
    "compensate": (None, "one of auto, none"),
    "exclude": (3, "a text, or several"),
    "include": ([None], "a text, or several"),
    "heads": ("half", "one of auto, whole, dims"),
    "thaw": ("yes", "True or False"),
    "seed": (-1, "a whole number of at least 0"),
    "metric": (7, "a name or a function, or several"),
    "min_accuracy": (90, "a share"),
    "min_snr": ("loud", "a number"),
    "retrain": ("train.py", "a function"),
    "layout": (3, "a name"),
    "limit": (0.5, "a whole number of at least 1"),
    "finetune": (0, "a whole number of at least 1"),
    "epochs": (1.5, "a whole number of at least 1"),
    "steps": (0, "a whole number of at least 1"),
    "minutes": (-1, "a number"),
    "lr": ("fast", "a number"),
    "batch_size": (0, "a whole number of at least 1"),
    "device": (0, "a name"),
    "resume": (3, "a name"),
    "input_shapes": ({"image": "1x1x8x8"}, "sizes by name"),
    "verify": ("no", "True or False"),
    "measure": ("no", "True or False"),
    "strict": ("no", "True or False"),
    "providers": (1, "names, separated by commas"),
    "threads": (0, "a whole number of at least 1"),
    "isolate": ("no", "True or False"),
    "max_memory": ("lots", "an amount of memory, like 4GiB"),
    "dry_run": ("no", "True or False"),
    "force": ("no", "True or False"),
    "save_as_external_data": ("no", "True or False"),
}
FREE = {"data", "test_data", "train_data", "mean", "std", "resize"}  # what they may be, the reader of the data says


def test_every_option_has_a_wrong_value_here() -> None:
    assert WRONG.keys() | FREE == OPTIONS.keys()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_by_the_name_that_was_written(name: str) -> None:
    value, wanted = WRONG[name]
    with pytest.raises(UsageError) as found:
        Request.of({}, **{"ratio": 0.5, name: value})
    assert str(found.value).startswith(f"{name} wants {wanted}")


TYPED = [f for f in FLAGS if f.name in WRONG and not f.switch and f.name not in ("exclude", "include", "metric")]
LOOSE = {"layout", "input_shapes", "providers", "device", "resume"}  # any text will do at first


@pytest.mark.parametrize("flag", [f for f in TYPED if f.name not in LOOSE], ids=lambda f: f.name)
def test_and_by_the_word_that_was_typed(flag: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = (DIGITS, "out.onnx") if "prune" in flag.commands else (*flag.commands, DIGITS, DIGITS, "out.onnx")
    outcome = Runner(capsys)(*words, flag.spelling, "?")
    assert outcome.code == 2
    assert outcome.err.startswith(f"Error: {flag.spelling} wants {flag.kind.words[:12]}")
    assert "'?'" in outcome.err


def test_options_at_odds_are_named_as_they_were_typed(capsys: pytest.CaptureFixture[str]) -> None:
    run = Runner(capsys)
    assert "--ratio and --target are two budgets" in run(DIGITS, "o", "--ratio", 0.5, "--target", "macs=0.5").err
    assert "--lossless removes all" in run(DIGITS, "o", "--lossless", "--method", "l1").err
    with pytest.raises(UsageError, match="ratio and target are two budgets"):
        onnxprune.prune(DIGITS, ratio=0.5, target="macs=0.5")
    with pytest.raises(UsageError, match=r"say how much to remove: ratio=0\.5, target='macs=0\.5'"):
        onnxprune.prune(DIGITS)


def test_a_name_that_is_no_option_of_the_command_is_refused() -> None:
    with pytest.raises(UsageError, match="prune has no option 'ratoi'; did you mean ratio"):
        onnxprune.prune(DIGITS, ratoi=0.5)
    with pytest.raises(UsageError, match="inspect has no option 'xyz'; it has heads, input_shapes"):
        onnxprune.inspect(DIGITS, xyz=1)
    with pytest.raises(UsageError, match="inspect has no option 'ratio'"):
        onnxprune.inspect(DIGITS, ratio=0.5)


# --- values as they are used ----------------------------------------------------


def test_one_pattern_is_one_and_not_its_letters() -> None:
    assert Request.of({}, ratio=0.5, exclude="conv1").exclude == ("conv1",)
    assert Request.of({}, ratio=0.5, include=["a", "b"]).include == ("a", "b")
    assert Request.of({}, ratio=0.5, data=Path("d"), metric="top1").metric == ("top1",)


def test_percentages_and_amounts_are_numbers() -> None:
    request = Request.of({}, ratio="50%", ratio_for={"a": "25%"}, max_memory="4GiB", target=None)
    assert (request.ratio, request.ratio_for, request.max_memory) == (0.5, {"a": 0.25}, 4 << 30)


def test_a_plan_tells_what_decides_which_channels_stay() -> None:
    assert Request.of({}, ratio=0.5, exclude="a", threads=2).recorded() == {
        "ratio": 0.5,
        "method": "obs",
        "compensate": "lstsq",
        "allocation": "sensitivity",
        "max_ratio": 1.0,
        "exclude": ["a"],
        "heads": "whole",
        "seed": 0,
    }
    assert Request.of({}, lossless=True).recorded() == {"lossless": True, "max_ratio": 1.0, "heads": "whole", "seed": 0}


def test_what_auto_stands_for_follows_from_the_budget_and_the_repair() -> None:
    """Losses of layers that are solved again say little where none is."""
    rows = {
        (): ("obs", "sensitivity", "lstsq"),
        ("compensate",): ("obs", "uniform", "none"),
        ("compensate", "finetune"): ("obs", "sensitivity", "none"),
        ("ratio",): ("obs", "sensitivity", "lstsq"),
        ("ratio", "compensate"): ("ncc", "uniform", "none"),
        ("ratio", "finetune"): ("obs", "sensitivity", "lstsq"),
        ("ratio", "finetune", "steps"): ("obs", "uniform", "lstsq"),
    }
    values: dict[str, Any] = {"compensate": "none", "finetune": 1, "ratio": 0.5, "steps": 2}
    for given, settled in rows.items():
        budget = {} if "ratio" in given else {"target": "macs=0.5"}
        if "finetune" in given and find_spec("torch") is None:
            continue  # a training wants torch, and says so
        request = Request.of({}, **budget, **{name: values[name] for name in given})
        assert (request.method, request.allocation, request.compensate) == settled, given
