"""Exports of small PyTorch networks, in both of its forms: right by the law, and cut as fully as they allow.

The files lie in tests/exports without weights (see make.py there); random ones stand in for them.
"""

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import EXPORTS
from law import agree, run, waste
from networks import random_dead, random_feeds, with_random_weights
from onnx import ModelProto

from onnxprune.channels import analyse
from onnxprune.surgery import cut, mask

LEFT = {  # share of the multiply-accumulates after half of every group has gone, whichever exporter wrote the file
    "attention": 0.30,
    "decoder": 0.53,  # LayerNormalization keeps the stream; heads and MLP go
    "detector": 0.26,
    "encoder": 0.52,  # likewise
    "folded": 0.28,
    "gates": 0.51,  # the mean over channels keeps those of one of two convolutions
    "generator": 0.30,
    "gru": 0.26,
    "halves": 0.37,  # a third is the first and the last layer, of which only one side can go
    "last_state": 0.25,
    "lstm": 0.25,
    "rnn": 0.27,
    "shared_keys": 0.50,  # its stream is an input
    "siamese": 0.29,
    "super_resolution": 0.28,
    "text_reader": 0.27,
    "unet": 0.26,
}


@functools.cache
def loaded(path: Path) -> ModelProto:
    return with_random_weights(onnx.load(path))


def test_both_forms_of_every_network_are_there() -> None:
    assert {p.stem for p in EXPORTS} == {f"{name}_{form}" for name in LEFT for form in ("script", "dynamo")}


@pytest.mark.parametrize("heads", [True, False], ids=["heads", "dims"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("path", EXPORTS, ids=lambda p: p.stem)
def test_exports(path: Path, batch: int, heads: bool) -> None:
    model = loaded(path)
    feeds = random_feeds(model, symbolic=batch)
    deps = analyse(model, input_shapes={name: x.shape for name, x in feeds.items()}, heads=heads)
    assert not deps.unknown
    dead = random_dead(deps, 0.5, seed=batch)
    pruned = cut(model, deps, dead)
    onnx.checker.check_model(pruned, full_check=True)
    assert not waste(model, pruned)
    for value, masked, small in zip(
        model.graph.output, run(mask(model, deps, dead), feeds), run(pruned, feeds), strict=True
    ):
        agree(value.name, masked, small, 1e-4)
        assert np.abs(small).max() > 1e-3
    if heads:
        assert deps.macs(dead) / deps.macs() == pytest.approx(LEFT[path.stem.rpartition("_")[0]], abs=0.01)
