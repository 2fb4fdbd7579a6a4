"""What the criteria are given of the weights of a network, and how much of it is kept."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from text_graphs import build

import onnxprune
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


def test_a_scale_for_every_position_is_none_of_channels() -> None:
    model = build("h = Conv(x, w[8,3,1,1])  n = BatchNormalization(h, g, b, m, v)<spatial=0>  y = Conv(n, r[4,8,1,1])")
    numbers = np.random.default_rng(0).uniform(0.5, 1.5, (4, 8, 4, 4)).astype(np.float32)
    model.graph.initializer.extend(map(numpy_helper.from_array, numbers, "gbmv"))
    model.opset_import[0].CopyFrom(helper.make_opsetid("", 8))
    result = onnxprune.prune(model, ratio=0.5, compensate="none", measure=False, round_to=1)
    assert result.plan.initializers["g"].keys() == {0}
    with pytest.raises(onnxprune.UsageError, match="'bn' needs an unfused BatchNormalization"):
        onnxprune.prune(model, ratio=0.5, method="bn", measure=False)
