"""What a user writes: checked by mypy against the stub, and run, by `test_python_api.py`."""

from pathlib import Path

import numpy as np

import onnxprune


def confident(outputs: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """A figure of one's own: a number for each sample."""
    return outputs["logits"].max(axis=1)


def main(model: Path, images: np.ndarray, labels: np.ndarray, folder: Path) -> onnxprune.Result:
    result = onnxprune.prune(
        model,
        ratio="50%",
        exclude="fc*",
        data=(images, labels),
        metric=["top1", confident],
        compensate="none",
        measure=False,
    )
    result.save(folder / "out.onnx")
    result.plan.save(folder / "plan.json")
    again = onnxprune.apply(model, folder / "plan.json", measure=False, compensate="none")
    assert again.model.graph == result.model.graph
    assert onnxprune.verify(model, folder / "out.onnx", result.plan).passed
    print(onnxprune.inspect(model, heads="dims"))
    print(onnxprune.sensitivity(model, method="l2", include=["conv1.weight"]))
    return result
