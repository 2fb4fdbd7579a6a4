"""What the criteria are given of the weights of a network, and how much of it is kept."""

from pathlib import Path

import onnx
import pytest

from onnxprune.channels.analysis import analyse
from onnxprune.model.network import Network
from onnxprune.pipeline import group_filters
from onnxprune.pipeline.group_filters import Weights

DIGITS = Path(__file__).parents[2] / "models" / "digits_cnn.onnx"


def test_filters_are_kept_up_to_a_size_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_filters, "REMEMBERED", 48 * 48 * 9)  # the second convolution, but not the first one, too
    model = onnx.load(DIGITS)
    deps = analyse(model, input_shapes={"image": (1, 1, 8, 8)})
    weights = Weights(Network.of(model), deps)
    first = {group.name: weights.filters(group) for group in deps.groups}
    kept = [group.name for group in deps.groups if weights.filters(group) is first[group.name]]
    assert kept == ["conv1.weight"]
