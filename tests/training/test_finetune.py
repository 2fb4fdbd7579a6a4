"""Training from the file: towards the original, never worse, the same bytes, and an end whenever it is wanted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runs import DIGITS, SAMPLE, Runner
from onnx import helper, numpy_helper
from text_graphs import build

import onnxprune
from onnxprune import CheckFailed, FileError, UsageError, finetune, prune, verify
from onnxprune.model.network import Network
from onnxprune.pipeline import tune

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'onnxprune[train]'")

from onnxprune.training import checkpoint  # noqa: E402 - it needs torch
from onnxprune.training.distillation import changed_weights  # noqa: E402
from onnxprune.training.loop import Training  # noqa: E402 - it needs torch

QUICK: dict[str, Any] = {"epochs": 2, "threads": 1, "batch_size": 32}
LEARNING = {**QUICK, "epochs": 4, "batch_size": 16, "lr": 0.05}


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "EPOCH", 512)
    monkeypatch.setattr(tune, "SHORT", 64)


@pytest.fixture(scope="module")
def ruined() -> onnxprune.Result:
    """The digits network without 80 % of its channels, and without a repair."""
    return prune(DIGITS, ratio=0.8, compensate="none", method="l2", measure=False)


def samples(number: int = 96, *, labels: bool = True, first: int = 0) -> list[dict[str, np.ndarray]]:
    """Digits from the first one on, in batches of 32."""
    data = np.load(SAMPLE)
    images = next(data[k] for k in data.files if data[k].ndim == 4)
    truth = next(data[k] for k in data.files if data[k].ndim == 1)
    parts = [{"image": images[k : k + 32], "labels": truth[k : k + 32]} for k in range(first, first + number, 32)]
    return parts if labels else [{"image": p["image"]} for p in parts]


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


# --- what it brings -----------------------------------------------------------


def test_a_ruined_network_learns_from_the_original_and_the_new_plan_proves_it(
    ruined: onnxprune.Result, there: Path
) -> None:
    done = finetune(DIGITS, ruined.model, "better.onnx", plan=ruined.plan, data=SAMPLE, **LEARNING)
    row = done.report.metrics[0]
    assert (row.name, row.before) == ("top1", 1.0)
    assert row.after > done.report.untrained["top1"] + 0.1
    assert verify(DIGITS, "better.onnx", done.plan).passed
    assert done.plan is not None
    assert done.plan.digests != ruined.plan.digests
    with pytest.raises(CheckFailed, match="NOT as planned"):
        verify(DIGITS, "better.onnx", ruined.plan)


def test_only_weights_are_others(ruined: onnxprune.Result) -> None:
    model = finetune(DIGITS, ruined.model, data=SAMPLE, **QUICK).model
    before, after = onnx.ModelProto(), onnx.ModelProto()
    for copy, given in ((before, ruined.model), (after, model)):
        copy.CopyFrom(given)
        del copy.metadata_props[:]
    old, new = weights(before), weights(after)
    assert [n for n in old if not np.array_equal(old[n], new[n])]
    for tensor in after.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(old[tensor.name], tensor.name))
    for tensor in before.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(old[tensor.name], tensor.name))
    assert before == after


def test_training_that_does_not_help_is_not_taken(ruined: onnxprune.Result) -> None:
    done = finetune(DIGITS, ruined.model, data=SAMPLE, **{**QUICK, "lr": 1e6})
    assert all(np.array_equal(a, weights(ruined.model)[name]) for name, a in weights(done.model).items())
    assert any("weights are those before it" in line for line in done.report.warnings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: samples(), "with labels"),
        (lambda: samples(labels=False), "without labels"),
        (lambda: samples(32)[:1], "samples of the data with labels"),
        (lambda: None, "drawn samples"),
    ],
    ids=["labels", "no labels", "few", "no data"],
)
def test_labels_are_used_where_they_are_and_samples_are_drawn_where_there_are_none(
    ruined: onnxprune.Result, given: Callable[[], Any], said: str
) -> None:
    data = given()
    extra = {"test_data": samples(first=96)} if data else {}
    done = finetune(DIGITS, ruined.model, data=data, **extra, **{**QUICK, "epochs": 1})
    assert any(said in note for note in done.report.notes)


# --- the same again, and going on ---------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(ruined: onnxprune.Result) -> None:
    one, two, other = (
        finetune(DIGITS, ruined.model, data=samples(), seed=seed, **QUICK).model.SerializeToString(deterministic=True)
        for seed in (3, 3, 4)
    )
    assert one == two != other


class Stop(Exception):
    """A machine that goes down."""


def stopping(after: int, error: type[BaseException]) -> Callable[[str, int, int], None]:
    """A progress that ends the work at that step of the training."""
    seen = 0

    def progress(what: str, done: int, of: int) -> None:
        nonlocal seen
        seen += what.startswith("epoch")
        if what.startswith("epoch") and seen == after:
            raise error

    return progress


def test_ctrl_c_ends_the_training_and_keeps_the_best_so_far(ruined: onnxprune.Result, there: Path) -> None:
    progress = stopping(100, KeyboardInterrupt)
    done = finetune(
        DIGITS, ruined.model, "out.onnx", plan=ruined.plan, data=SAMPLE, progress=progress, **{**LEARNING, "epochs": 50}
    )
    assert any("interrupted" in line for line in done.report.warnings)
    assert done.report.metrics[0].after > done.report.untrained["top1"]
    assert verify(DIGITS, "out.onnx", done.plan).passed


def test_a_training_that_was_cut_off_goes_on_where_it_was(ruined: onnxprune.Result, there: Path) -> None:
    job: dict[str, Any] = {**QUICK, "epochs": 3, "data": samples()}
    whole = finetune(DIGITS, ruined.model, **job).model
    with pytest.raises(Stop):
        finetune(DIGITS, ruined.model, **job, resume="state", progress=stopping(40, Stop))
    begun = Training._step
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_step", lambda self, *a: taken.append(self.epoch) or begun(self, *a))
        resumed = finetune(DIGITS, ruined.model, **job, resume="state").model
    assert resumed.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    assert min(taken) == 2  # the two epochs before are not gone through again
    assert not list(there.glob(".onnxprune*"))


def test_the_state_of_another_training_is_refused(ruined: onnxprune.Result, there: Path) -> None:
    finetune(DIGITS, ruined.model, data=samples(), resume="state", **QUICK)
    with pytest.raises(UsageError, match="another training"):
        finetune(DIGITS, ruined.model, data=samples(), resume="state", **{**QUICK, "lr": 0.001})
    others = [{**batch, "labels": batch["labels"][::-1]} for batch in samples()]
    with pytest.raises(UsageError, match="another training"):
        finetune(DIGITS, ruined.model, data=others, resume="state", **QUICK)
    Path("state").write_bytes(b"not a state")
    with pytest.raises(UsageError, match="no state of a training"):
        finetune(DIGITS, ruined.model, data=samples(), resume="state", **QUICK)


def test_a_full_disk_is_told_before_the_work_and_later_takes_no_more_than_the_state(
    ruined: onnxprune.Result, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileError, match="cannot write"):
        finetune(DIGITS, ruined.model, data=samples(), resume="nowhere/state", progress=stopping(1, Stop), **QUICK)
    write, written = checkpoint.write, []

    def full(path: str, *state: Any) -> None:
        if len(written) == 2:
            raise FileError("no space left")
        write(path, *state)
        written.append(path)

    monkeypatch.setattr(checkpoint, "write", full)
    done = finetune(DIGITS, ruined.model, data=samples(), resume="state", **QUICK)
    assert any("no space left" in line for line in done.report.warnings)
    assert any("2 epochs" in line for line in done.report.notes)


def test_no_figure_comes_from_samples_that_are_trained_on() -> None:
    options: dict[str, Any] = {"ratio": 0.5, "compensate": "none", "method": "l2", "measure": False, "finetune": 1}
    report = prune(DIGITS, data=samples(), train_data=samples(192), **options).report
    assert "96 samples of train_data are not fitted on: figures come from them" in report.notes
    assert any(note.startswith("trained ") and " on 90 samples" in note for note in report.notes)
    with pytest.raises(UsageError, match="all samples of train_data are those that figures come from"):
        prune(DIGITS, data=samples(), train_data=samples(), **options)


def test_minutes_end_it(ruined: onnxprune.Result) -> None:
    done = finetune(DIGITS, ruined.model, data=samples(), epochs=100_000, minutes=0.02)
    assert not any(" 100000 epochs " in note for note in done.report.notes)
    assert any(" epochs in " in note for note in done.report.notes)


def test_a_network_that_gives_no_numbers_is_not_trained(ruined: onnxprune.Result) -> None:
    images = np.full((32, 1, 8, 8), np.nan, np.float32)
    images[0] = 0
    done = finetune(DIGITS, ruined.model, data=[{"image": images}] * 2, test_data=samples(32), **QUICK)
    assert any("is no number before it" in line for line in done.report.warnings)


# --- what is refused ----------------------------------------------------------


def tampered(change: Callable[[onnx.ModelProto], None]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    before, after = onnx.load(DIGITS), onnx.load(DIGITS)
    change(after)
    return before, after


def _weight(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = (numpy_helper.to_array(tensor) + 1).tobytes()


def _shape(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).ravel(), tensor.name))


def _node(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("more", 1))


FAULTS = {"a weight that was not trained": _weight, "a shape": _shape, "a node": _node}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_anything_else_that_changes_is_found(fault: Callable[[onnx.ModelProto], None]) -> None:
    before, after = tampered(fault)
    trained = [] if fault is _weight else [t.name for t in before.graph.initializer]
    with pytest.raises(CheckFailed, match="training has changed"):
        changed_weights(Network.of(before), Network.of(after), trained)


def test_a_weight_that_was_trained_may_change() -> None:
    before, after = tampered(_weight)
    first = before.graph.initializer[0].name
    assert changed_weights(Network.of(before), Network.of(after), [first]) == (first,)


def test_networks_and_plans_that_do_not_belong_together_are_refused(ruined: onnxprune.Result) -> None:
    other = prune(DIGITS, ratio=0.5, compensate="none", method="l2", measure=False)
    with pytest.raises(UsageError, match="does not belong to the pruned file"):
        finetune(DIGITS, ruined.model, plan=other.plan, **QUICK)
    with pytest.raises(UsageError, match="do not belong together"):
        finetune(DIGITS, build("y = Relu(x)"), **QUICK)


def test_an_output_that_cannot_be_written_is_told_before_the_work(ruined: onnxprune.Result, there: Path) -> None:
    with pytest.raises(FileError, match="no directory"):
        finetune(DIGITS, ruined.model, "nowhere/out.onnx", data=samples(), progress=stopping(1, Stop), **QUICK)


def test_a_device_that_is_not_there_is_named(ruined: onnxprune.Result) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        finetune(DIGITS, ruined.model, data=samples(), device="nonsense", **QUICK)


# --- the command line ---------------------------------------------------------


def test_the_command_trains_a_file(run: Runner, there: Path) -> None:
    assert run(DIGITS, "small.onnx", "--ratio", 0.8, "--compensate", "none", "--plan-out", "plan.json").code == 0
    words = ("--data", SAMPLE, "--epochs", 1, "--threads", 1)
    done = run("finetune", DIGITS, "small.onnx", "better.onnx", "--plan", "plan.json", "--plan-out", "new.json", *words)
    assert done.code == 0, done.err
    assert "held-out samples" in done.out
    assert run("verify", DIGITS, "better.onnx", "--plan", "new.json").code == 0
    assert run("verify", DIGITS, "better.onnx", "--plan", "plan.json").code == 1
    assert run("finetune", DIGITS, "small.onnx", "small.onnx", *words).code == 2


def test_the_samples_to_train_on_are_not_written_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", image=np.zeros((8, 1, 8, 8), np.float32))
    with pytest.raises(UsageError, match="would overwrite"):
        prune(DIGITS, tmp_path / "train.npz", ratio=0.5, finetune=1, train_data=str(tmp_path / "train.npz"))
