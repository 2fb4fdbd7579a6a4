"""What other tools leave of the networks of `architectures.py`, at half of the channels: the peers of `coverage.py`."""

from pathlib import Path
from typing import Any

import onnx
import torch
from exported import CLASSES, Architecture
from torch import nn

HEADS = (
    "Detect",
    "v10Detect",
    "Segment",
    "RTDETRDecoder",
    "Pose",
    "OBB",
)  # which Torch-Pruning's own examples leave out


def onnxsim(source: Path, out: Path, shapes: dict[str, list[int]]) -> None:
    """Simplify a file, and let onnxsim take half of the channels and of the heads."""
    from onnxsim import apply_attention_head_pruning, apply_structured_pruning, simplify

    model, _ = simplify(onnx.load(source), overwrite_input_shapes=shapes)
    onnx.save(apply_attention_head_pruning(apply_structured_pruning(model, 0.5), 0.5), out)


def torch_pruning(network: Architecture) -> nn.Module:
    """The network after Torch-Pruning's pruner by magnitude has taken half of the channels and of the heads.

    What gives the outputs is left out by hand, and attention is told its heads, as in the examples of that project.

    Raises:
        ValueError: the outputs have other shapes now.
    """
    import torch_pruning as tp

    module, inputs = network.module, tuple(network.inputs.values())
    before = _shapes(module(*inputs))
    ends = [CLASSES, *(n for shape in before for n in shape[1:])]
    left_out = [
        m
        for m in module.modules()
        if type(m).__name__ in HEADS or any(getattr(m, name, 0) in ends for name in ("out_features", "out_channels"))
    ]
    heads: dict[nn.Module, int] = {}  # of more than one: half of a single head is all of it, rounded up
    for m in module.modules():
        if hasattr(m, "num_heads") and hasattr(m, "qkv") and isinstance(m.num_heads, int) and m.num_heads > 1:
            heads[m.qkv] = m.num_heads
        if hasattr(m, "num_attention_heads") and hasattr(m, "query") and m.num_attention_heads > 1:
            heads |= {m.query: m.num_attention_heads, m.key: m.num_attention_heads, m.value: m.num_attention_heads}
    pruner = tp.pruner.BasePruner(
        module,
        inputs if len(inputs) > 1 else inputs[0],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=left_out,
        num_heads=heads,
        prune_num_heads=bool(heads),
        prune_head_dims=not heads,
        head_pruning_ratio=0.5 if heads else 0.0,
    )
    pruner.step()
    for m in module.modules():
        if getattr(m, "qkv", None) in pruner.num_heads:
            m.num_heads = pruner.num_heads[m.qkv]
            m.attn_dim = m.qkv.out_features // 3
        if hasattr(m, "num_attention_heads") and hasattr(m, "query"):
            m.num_attention_heads = pruner.num_heads.get(m.query, m.num_attention_heads)
            m.all_head_size = m.query.out_features
            m.attention_head_size = m.all_head_size // m.num_attention_heads
    if (after := _shapes(module(*inputs))) != before:
        raise ValueError(f"outputs of {after} in place of {before}")
    return module


def _shapes(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]
