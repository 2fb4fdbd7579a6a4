"""Running the command line in tests: in this process, or as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxprune.cli import main

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
EXPORTS = sorted((ROOT / "tests" / "exports").glob("*.onnx"))
DIGITS = MODELS / "digits_cnn.onnx"
MIXED = MODELS / "digits_mixed.onnx"
SAMPLE = MODELS / "digits_sample.npz"
CUT = ("--ratio", 0.5, "--compensate", "none")  # the surgery alone, for what is about other things than accuracy
SHARED = ROOT.parent / "shared" / "models"


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Runner:
    """Runs `onnxprune` in this process and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> Outcome:
        self.capsys.readouterr()
        code = main([str(w) for w in words])
        printed = self.capsys.readouterr()
        return Outcome(code, printed.out, printed.err)


def process(*words: object, environment: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """`python -m onnxprune` as a process of its own."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(environment or {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "onnxprune", *map(str, words)], env=settings, text=True, encoding="utf-8", **pipes
    )


def finished(started: subprocess.Popen[str], seconds: float = 60) -> Outcome:
    """Wait for a process."""
    out, err = started.communicate(timeout=seconds)
    return Outcome(started.returncode, out or "", err or "")


def stuck_model(path: Path) -> Path:
    """A network of one convolution, whose channels are the output: nothing in it can be cut."""
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    stuck (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y)
    <float[4, 3, 3, 3] w>
    { y = Conv (x, w) }
    """
    model = onnx.parser.parse_model(text)
    weights = model.graph.initializer[0] if model.graph.initializer else model.graph.initializer.add()
    weights.CopyFrom(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [4, 3, 3, 3], [0.01 * k for k in range(108)]))
    onnx.save(model, path)
    return path


@contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    """Whatever happens inside, the folder holds what it held before: no output, no temporary."""
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    yield
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
