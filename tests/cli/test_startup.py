"""What is told at once loads none of the libraries that take a second; and what it says of them is true."""

import subprocess
import sys

import pytest

import onnxprune
from onnxprune.budget import ALLOCATORS
from onnxprune.criteria.methods import METHODS
from onnxprune.pipeline import names
from onnxprune.pipeline.budgets import COSTS
from onnxprune.pipeline.targets import UNITS
from onnxprune.runtime.accuracy import METRICS
from onnxprune.surgery.compensate import COMPENSATIONS

HEAVY = "numpy scipy onnx onnxruntime joblib torch"


def loaded(code: str) -> str:
    """The heavy libraries that a fresh Python has loaded behind some code."""
    ending = f"print(*[name for name in '{HEAVY}'.split() if name in sys.modules], file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", f"import sys; {code}; {ending}"], capture_output=True, text=True)
    return run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["apply", "-h"],
        ["sweep", "-h"],
        ["inspct"],
        ["finetune", "-h"],
        ["none.onnx", "out.onnx", "--ratio", "0.5"],
    ],
)
def test_answers_that_need_no_model_come_at_once(arguments: list[str]) -> None:
    assert loaded(f"from onnxprune.cli import main; main({arguments})") == ""


def test_the_package_loads_what_is_used() -> None:
    assert loaded("import onnxprune") == ""
    assert "onnx" in loaded("from onnxprune import prune").split()


def test_the_table_of_operators_knows_what_torch_computes_without_loading_it() -> None:
    assert "torch" not in loaded("from onnxprune.operators.registry import OPERATORS; OPERATORS['Conv']").split()


def test_every_public_name_is_there() -> None:
    assert all(hasattr(onnxprune, name) for name in onnxprune.__all__)
    assert set(onnxprune.__all__) <= set(dir(onnxprune))
    with pytest.raises(AttributeError, match="no attribute 'prnue'"):
        _ = onnxprune.prnue


def test_the_choices_are_those_that_there_are() -> None:
    assert tuple(METHODS) == names.METHODS
    assert tuple(ALLOCATORS) == names.ALLOCATIONS
    assert tuple(COMPENSATIONS) == names.COMPENSATIONS
    assert list(UNITS) == list(COSTS)
    assert tuple(name for name, metric in METRICS.items() if metric.unit == "share") == names.SHARES
