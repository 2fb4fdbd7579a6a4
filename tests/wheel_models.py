"""The models that come with the onnx wheel, and its tests of single operators."""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

DATA = Path(onnx.backend.test.__file__).parent / "data"
LIGHT = sorted(DATA.glob("light/*.onnx"))
HEAVY = {"light_bvlc_alexnet", "light_vgg19", "light_zfnet512"}  # hundreds of megabytes of fully connected layers
NODES = DATA.glob("node/**/*.onnx")  # older wheels hold some of the node tests, which are made in memory here
FILES = sorted(set(DATA.glob("**/*.onnx")) - set(LIGHT) - set(NODES))

# Random numbers, and a shape that onnx and onnxruntime disagree about.
LAWLESS = ("test_dropout", "test_training_dropout", "test_bernoulli", "test_stft")


@dataclass(frozen=True)
class NodeTest:
    name: str
    model: ModelProto
    data: dict[str, np.ndarray]


@functools.cache
def node_tests() -> list[NodeTest]:
    """The wheel's tests of single operators, with their inputs where all of them are tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    models = [(c, c.model or onnx.load(Path(c.model_dir or "") / "model.onnx")) for c in cases]
    return [NodeTest(c.name, model, tensors(model, c)) for c, model in models]


def given(case: TestCase) -> list[np.ndarray]:
    """The inputs of a test of the wheel: in memory, or in files as onnx 1.21 keeps them."""
    if case.data_sets is not None:
        return case.data_sets[0][0]
    folder = Path(case.model_dir or "") / "test_data_set_0"
    files = sorted(folder.glob("input_*.pb"), key=lambda f: int(f.stem.partition("_")[2]))
    return [onnx.numpy_helper.to_array(onnx.load_tensor(f)) for f in files]


def tensors(model: ModelProto, case: TestCase) -> dict[str, np.ndarray]:
    if not all(v.type.HasField("tensor_type") for v in model.graph.input):
        return {}
    return {v.name: np.asarray(x) for v, x in zip(model.graph.input, given(case), strict=True)}
