"""Models to start from: those of the onnx wheel, its node tests, and the trained ones of this repository."""

import warnings
from functools import cache
from pathlib import Path

import onnx.backend.test
import onnx.backend.test.loader as loader

LARGEST = 4 << 20  # bytes; larger models take too long to be damaged over and over
TRAINED = Path(__file__).parents[2] / "models"


@cache
def files() -> tuple[Path, ...]:
    """Models on disk."""
    wheel = Path(onnx.backend.test.__file__).parent / "data"
    found = [*sorted(wheel.glob("**/*.onnx")), *sorted(TRAINED.glob("*.onnx"))]
    return tuple(path for path in found if path.stat().st_size <= LARGEST)


@cache
def node_tests() -> tuple[bytes, ...]:
    """A model for each test of an operator that comes with onnx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = loader.load_model_tests(kind="node")
    models = (case.model or onnx.load(Path(case.model_dir or "") / "model.onnx") for case in cases)
    return tuple(model.SerializeToString() for model in models)


@cache
def read(path: Path) -> bytes:
    """Bytes of a model on disk."""
    return path.read_bytes()
