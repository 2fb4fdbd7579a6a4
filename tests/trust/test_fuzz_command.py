"""Random and damaged models through the whole command; `tests/fuzz/run.py` goes on where this ends."""

import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from fuzz import corpus
from fuzz.command import attempt, place
from fuzz.damage import damaged_bytes, damaged_structure
from fuzz.graphs import network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from runtime_models import build, conv_net

import onnxprune.model.read
from onnxprune import ModelError, prune
from onnxprune.model.sound import FRAGILE, without_unsound

draws = st.randoms(note_method_calls=False, use_true_random=False)
some = settings(
    max_examples=60, deadline=60_000, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.onnx"


@given(draws)
@some
def test_random_networks(output: Path, draw: Random) -> None:
    attempt(network(draw).SerializeToString(), output, draw, verify=draw.random() < 0.3)


@given(draws)
@some
def test_random_networks_with_a_damaged_structure(output: Path, draw: Random) -> None:
    attempt(damaged_structure(network(draw), draw).SerializeToString(), output, draw, verify=False)


@given(draws)
@some
def test_operator_tests_with_a_damaged_structure(output: Path, draw: Random) -> None:
    model = onnx.load_model_from_string(draw.choice(corpus.node_tests()))
    attempt(damaged_structure(model, draw).SerializeToString(), output, draw, verify=False)


@pytest.mark.parametrize("path", corpus.files(), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_file_damaged(output: Path, path: Path) -> None:
    """Bits turned, a part cut off, and the structure changed, once for each model on disk."""
    draw, data = Random(f"{path.parent.name}/{path.name}"), corpus.read(path)
    if len(data) > 200_000:
        data = damaged_structure(onnx.load_model_from_string(data), draw).SerializeToString()
    for broken in (damaged_bytes(data, draw), data[: draw.randrange(len(data))]):
        attempt(broken, output, draw, verify=False)


def test_seeds_decide_alone() -> None:
    def drawn(kind: int) -> bytes:
        draw = Random(kind)
        return damaged_structure(network(draw), draw).SerializeToString()

    assert drawn(5) == drawn(5) != drawn(6)


def test_most_random_networks_are_sound() -> None:
    """A fuzzer whose inputs are refused at the door tests the door."""
    outcomes = [_outcome(network(Random(k))) for k in range(60)]
    assert outcomes.count("pruned") >= 8
    assert outcomes.count("refused") <= 15


def _outcome(model: onnx.ModelProto) -> str:
    try:
        return (
            "pruned"
            if prune(model, ratio=0.5, compensate="none", verify=False, measure=False, round_to=1).plan.initializers
            else "whole"
        )
    except ModelError:
        return "refused"


# --- what the fuzzer found ---------------------------------------------------


def behind_custom(op: str, domain: str, **attributes: object) -> onnx.ModelProto:
    """An operator whose input has no known type."""
    nodes = [
        helper.make_node("Own", ["x"], ["u"], domain="my"),
        helper.make_node(op, ["u"], ["y"], domain=domain, **attributes),
    ]
    model = build(nodes, [("x", 1, [2, 3])], [("y", 1, None)])
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(d, v) for d, v in (("", 21), ("my", 1), ("ai.onnx.ml", 5)))
    return model


CRASHERS = {
    "EyeLike": behind_custom("EyeLike", "", dtype=1, k=1),
    "RegexFullMatch": behind_custom("RegexFullMatch", "", pattern="a"),
    "LabelEncoder": behind_custom("LabelEncoder", "ai.onnx.ml", keys_int64s=[1], values_floats=[1.0]),
    "DictVectorizer": behind_custom("DictVectorizer", "ai.onnx.ml"),
    "no input": build(
        [helper.make_node("RegexFullMatch", [""], ["y"], pattern="a")], [("x", 8, [1])], [("y", 9, [1])], opset=21
    ),
}


@pytest.mark.parametrize("name", CRASHERS)
def test_shape_inference_does_not_end_the_process(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(CRASHERS[name].SerializeToString())
    program = (
        "import sys, onnxprune\nprint(onnxprune.prune(sys.argv[1], ratio=.5, verify=False, measure=False).plan.groups)"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}\n{program}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "()"), done.stderr


def test_sound_models_are_not_copied() -> None:
    model = conv_net()
    assert without_unsound(model) is model
    assert without_unsound(CRASHERS["EyeLike"]) is not CRASHERS["EyeLike"]
    assert "EyeLike" in FRAGILE


def test_an_input_of_2_34_integers_does_not_hang(output: Path) -> None:
    nodes = [helper.make_node("Unsqueeze", ["x", "a"], ["u"]), helper.make_node("Sub", ["u", "u"], ["y"])]
    model = build(nodes, [("x", 7, [2**34])], [("y", 7, None)], {"a": np.array([0])})
    assert attempt(model.SerializeToString(), output, Random(0), verify=False) == "unchanged"


def test_a_node_that_makes_no_sense_freezes_what_it_touches(output: Path) -> None:
    model = conv_net()
    model.graph.node[1].attribute.append(helper.make_attribute("nonsense", 1))  # of the first Relu
    result = prune(model, ratio=0.5, compensate="none", verify=False, measure=False)
    whole = prune(conv_net(), ratio=0.5, compensate="none", verify=False, measure=False)
    assert len(result.plan.groups) < len(whole.plan.groups)
    assert {row.layer for row in result.report.frozen} >= {"c1", "c2"}


@pytest.mark.parametrize("field", ["name", "doc_string"])
def test_text_that_is_no_text_is_refused(field: str) -> None:
    model = conv_net()
    setattr(model.graph, field, "unlikely text")
    data = model.SerializeToString().replace(b"unlikely text", b"unlikely\xff\xfetxt")
    with pytest.raises(ModelError, match="UTF-8"):
        prune(data, ratio=0.5, compensate="none")


def test_places_are_told() -> None:
    with pytest.raises(TypeError) as caught:
        onnxprune.model.load(conv_net()).proto.graph.input.extend([1])
    assert place(caught.value).startswith("TypeError at outside")
    with pytest.raises(AttributeError) as caught:
        onnxprune.model.read._complete(None, None, None, "")
    assert place(caught.value).startswith("AttributeError at validate.py")
