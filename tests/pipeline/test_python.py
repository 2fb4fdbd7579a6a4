"""From Python: data in all forms, functions as metrics, values that show themselves, arguments that are wrong."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import user_script
from cli_runs import DIGITS, SAMPLE
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.errors import FileError, UsageError
from onnxprune.runtime.batches import evenly
from onnxprune.runtime.data import open_data
from onnxprune.runtime.specs import Spec

FLOAT = 1
IMAGE, SIDE = Spec("image", FLOAT, ("N", 1, 8, 8)), Spec("side", FLOAT, ("N", 3))
X = np.random.default_rng(0).random((20, 1, 8, 8)).astype(np.float32)
Y = np.arange(20) % 10


def cut(**options: Any) -> onnxprune.Result:
    return onnxprune.prune(DIGITS, ratio=0.5, compensate="none", measure=False, **options)


@pytest.fixture(scope="module")
def result() -> onnxprune.Result:
    return cut()


# --- data ----------------------------------------------------------------------


class Tensor:
    """What a tensor of torch looks like: numpy may not have it before it is detached and on the CPU."""

    def __init__(self, array: np.ndarray, free: int = 0) -> None:
        self.array, self.free, self.shape = array, free, array.shape

    def detach(self) -> "Tensor":
        return Tensor(self.array, self.free + 1)

    def cpu(self) -> "Tensor":
        return Tensor(self.array, self.free + 1)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        assert self.free == 2, "a tensor that needs a gradient, or lies on a device"
        return self.array


class Loader:
    """What a DataLoader looks like: it can be gone through again, and may shuffle each time."""

    def __init__(self, shuffle: bool = False) -> None:
        self.shuffle, self.random = shuffle, np.random.default_rng(0)

    def __iter__(self) -> Iterator[list[Tensor]]:
        order = self.random.permutation(20) if self.shuffle else np.arange(20)
        for begin in range(0, 20, 8):
            rows = order[begin : begin + 8]
            yield [Tensor(X[rows]), Tensor(Y[rows])]


FORMS: dict[str, Callable[[], Any]] = {
    "array": lambda: X,
    "tensor": lambda: Tensor(X),
    "pair": lambda: (X, Y),
    "dict": lambda: {"image": X, "labels": Y},
    "dict and labels": lambda: ({"image": X}, Y),
    "list of batches": lambda: [X[:8], X[8:]],
    "list of pairs": lambda: [(X[:8], Y[:8]), (X[8:], Y[8:])],
    "list of dicts": lambda: [{"image": X[:8]}, {"image": X[8:]}],
    "list of samples": lambda: list(X),
    "samples with labels": lambda: [(x, int(y)) for x, y in zip(X, Y, strict=True)],
    "iterator": lambda: iter([(X[:8], Y[:8]), (X[8:], Y[8:])]),
    "loader": Loader,
    "function": lambda: lambda: Loader(),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_may_be_in_any_form_that_people_have(form: str) -> None:
    source = FORMS[form]()
    data = open_data(source, [IMAGE], batch=6)
    for _ in range(2):
        batches = list(data)
        np.testing.assert_array_equal(np.concatenate([b.feeds["image"] for b in batches]), X)
        if data.has_labels:
            np.testing.assert_array_equal(np.concatenate([b.labels for b in batches if b.labels is not None]), Y)
    assert data.has_labels is not (form in ("array", "tensor", "list of batches", "list of dicts", "list of samples"))


def test_a_loader_that_shuffles_gives_the_same_samples_every_time() -> None:
    data = open_data(Loader(shuffle=True), [IMAGE], batch=20)
    one, two = (next(iter(data)).feeds["image"] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, X)


def test_inputs_come_in_their_order_and_labels_behind() -> None:
    side = np.ones((20, 3), np.float32)
    batch = next(iter(open_data((X, side, Y), [IMAGE, SIDE], batch=20)))
    np.testing.assert_array_equal(batch.feeds["side"], side)
    np.testing.assert_array_equal(batch.labels, Y)
    assert not open_data((X, side), [IMAGE, SIDE]).has_labels
    with pytest.raises(UsageError, match=r"1 arrays were given where the model takes 'image'.*'side'"):
        open_data(X, [IMAGE, SIDE])


def test_arrays_in_memory_are_spread_like_those_of_a_file() -> None:
    batches = [b.labels for b in open_data((X, np.arange(20)), [IMAGE], limit=4)]
    assert np.concatenate([b for b in batches if b is not None]).tolist() == evenly(20, 4).tolist()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (3, "data of type int is not understood"),
        ([3], "list gives int; arrays, pairs"),
        ([], "gives no data"),
        (X.astype(object), "Python objects"),
        (X[:0], "no samples"),
        ((X, Y, Y), "3 arrays were given"),
    ],
)
def test_what_is_no_data_is_refused(source: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_data(source, [IMAGE])


# --- a metric of one's own -------------------------------------------------------


def test_a_metric_may_be_a_function() -> None:
    with np.load(SAMPLE) as sample:
        data = (sample["image"][::5], sample["labels"][::5])

    def right(outputs: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        return outputs["logits"].argmax(axis=1) == labels

    own, top1 = cut(data=data, metric=[right, "top1"]).report.metrics
    assert (own.name, own.before, own.after, own.samples) == ("right", top1.before, top1.after, 100)
    assert cut(data=data, metric=right).report.metrics[0] == own


# --- a user's script ----------------------------------------------------------------


def test_a_users_script_runs(tmp_path: Path) -> None:
    with np.load(SAMPLE) as sample:
        result = user_script.main(DIGITS, sample["image"][:50], sample["labels"][:50], tmp_path)
    assert [m.name for m in result.report.metrics] == ["top1", "confident"]
    assert {p.name for p in tmp_path.iterdir()} == {"out.onnx", "plan.json"}


def test_a_users_script_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    wrong = tmp_path / "wrong.py"
    lines = ["import onnxprune", "onnxprune.prune('a', ratoi=1)", "onnxprune.prune('a', exclude=3)"]
    wrong.write_text("\n".join([*lines, "onnxprune.inspect('a', ratio=0.5)", "x: int = onnxprune.prune"]))
    stub = Path(onnxprune.__file__).with_suffix(".pyi")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--follow-imports=skip",
        "--no-site-packages",
        "--ignore-missing-imports",
        "--cache-dir=/dev/null",
    ]
    command += ["--config-file=", str(stub), str(wrong), user_script.__file__]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    errors = [line.partition("wrong.py:")[2] for line in found if "error:" in line]
    assert [e.partition(":")[0] for e in errors] == ["2", "3", "4", "5"], found
    assert '"ratoi"' in errors[0]
    assert 'Argument "exclude"' in errors[1]


# --- values that show themselves --------------------------------------------------------


def test_a_result_is_saved(result: onnxprune.Result, tmp_path: Path) -> None:
    assert result.save(tmp_path / "out.onnx") == tmp_path / "out.onnx"
    assert (tmp_path / "out.onnx").read_bytes() == result.model.SerializeToString(deterministic=True)
    with pytest.raises(FileError):
        result.save(tmp_path / "none" / "out.onnx")
    result.save(tmp_path / "two.onnx", save_as_external_data=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_repr_is_short(result: onnxprune.Result) -> None:
    assert repr(result.plan) == "<Plan: 176 of 352 channels in 5 groups stay>"
    assert repr(result.report).startswith(f"<Report of {DIGITS}: 50.0% of the channels")
    assert repr(result) == f"<Result: {result.report!r}, {result.plan!r}>"
    assert repr(onnxprune.inspect(DIGITS)) == f"<Inspection of {DIGITS}: 5 groups that can be cut, 1 frozen>"
    found = onnxprune.verify(DIGITS, result.model, result.plan)
    assert repr(found).startswith("<Verdict: passed; surgery equal")
    assert repr(onnxprune.sensitivity(DIGITS, method="l2")).startswith("<Sensitivity of 5 groups: modelled")


def test_a_notebook_shows_the_report_in_a_frame_of_its_own(result: onnxprune.Result) -> None:
    shown = result._repr_html_()
    assert shown == result.report._repr_html_()
    assert shown.startswith('<iframe sandbox srcdoc="&lt;!doctype html&gt;')
    assert shown.count("<") == 2
    assert onnxprune.inspect(DIGITS)._repr_html_().startswith("<pre>")


# --- wrong arguments -----------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "source": (lambda: onnxprune.inspect(3), "a model is a path"),
    "output": (lambda: onnxprune.prune(DIGITS, 3, ratio=0.5), "output wants a path, not 3"),
    "plan": (lambda: onnxprune.apply(DIGITS, 3), "plan wants a path, not 3"),
    "plan of verify": (lambda: onnxprune.verify(DIGITS, DIGITS, None), "plan wants a path, not None"),
    "progress": (lambda: cut(progress=3), "progress wants a function, not 3"),
    "providers": (lambda: cut(providers="abacus"), "abacus"),
    "mean": (lambda: cut(data=X, mean="x"), "cannot read mean x"),
    "std": (lambda: cut(data=X, std=0), "^std 0 has to be above zero"),
    "layout": (lambda: cut(data=X, layout="x"), "cannot read layout x"),
    "resize": (lambda: cut(data=X, resize=-1), "cannot read resize -1"),
    "rank of a shape": (lambda: cut(input_shapes={"image": (1, 2)}), "does not fit input 'image'"),
    "input of a shape": (lambda: cut(input_shapes={"picture": (1, 1, 8, 8)}), "names no input of the model"),
    "no samples": (lambda: onnxprune.prune(DIGITS, ratio=0.5, method="cshe"), r"needs calibration images \(data\)"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_wrong_argument_is_named_as_python_has_it(case: str) -> None:
    call, said = ARGUMENTS[case]
    with pytest.raises(UsageError, match=said) as found:
        call()
    assert "--" not in str(found.value)


@pytest.mark.parametrize(
    "options",
    [{"ratio": 0.0, "compensate": "none"}, {"lossless": True}, {"ratio": 0.5, "compensate": "none"}],
    ids=["0", "lossless", "half"],
)
def test_a_large_network_whose_weights_stand_in_nodes(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """These cannot be left in a file of weights, and are still there when the outcome is run and asked for."""
    for module in ("pipeline.examine", "runtime.source"):
        monkeypatch.setattr(f"onnxprune.{module}.SPILL_MODEL", 100_000)
    rng, value = np.random.default_rng(0), helper.make_tensor_value_info
    nodes, at = [], "x"
    for k, shape in enumerate([(4, 160), (160, 160), (160, 160), (160, 4)]):
        tensor = numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32))
        nodes += [
            helper.make_node("Constant", [], [f"w{k}"], value=tensor),
            helper.make_node("MatMul", [at, f"w{k}"], [f"m{k}"]),
            helper.make_node("Tanh", [f"m{k}"], [f"t{k}"]),
        ]
        at = f"t{k}"
    graph = helper.make_graph(nodes, "constants", [value("x", FLOAT, ["n", 4])], [value(at, FLOAT, ["n", 4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = onnxprune.prune(model, measure=True, **options)
    assert onnx.load_model_from_string(result.model.SerializeToString()) == result.model
    assert all(node.attribute[0].t.raw_data for node in result.model.graph.node if node.op_type == "Constant")
