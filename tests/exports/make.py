"""Export the networks of this folder, in both of PyTorch's forms, without their weights.

Weights become ConstantOfShape nodes, and the tests put random ones in their place.  Needs torch and onnxscript:
`python tests/exports/make.py` writes tests/exports/*.onnx.
"""

import logging
import warnings
from pathlib import Path

import networks as nets
import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

HERE = Path(__file__).parent
SMALL = 64  # elements; what has fewer may be a size or an index and stays

image, steps, words = (torch.randn(1, 3, 16, 16),), (torch.randn(2, 7, 10),), (torch.randint(0, 50, (2, 7)),)
tokens = torch.randn(2, 7, 12)
NETWORKS: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
    "lstm": (nets.Recurrent("LSTM", True), steps),
    "gru": (nets.Recurrent("GRU", False), steps),
    "rnn": (nets.Recurrent("RNN", True), steps),
    "last_state": (nets.LastState(), words),
    "text_reader": (nets.TextReader(), (torch.randn(1, 1, 16, 24),)),
    "attention": (nets.Attention(), (tokens,)),
    "encoder": (nets.Encoder(), (tokens,)),
    "decoder": (nets.Decoder(), (tokens, torch.randn(2, 5, 12))),
    "shared_keys": (nets.SharedKeys(), (torch.randn(2, 6, 32),)),
    "detector": (nets.Detector(), (torch.randn(1, 3, 32, 32),)),
    "unet": (nets.UNet(), image),
    "super_resolution": (nets.super_resolution(), (torch.randn(1, 1, 8, 8),)),
    "folded": (nets.folded(), image),
    "generator": (nets.generator(), (torch.randn(2, 16),)),
    "halves": (nets.Halves(), (torch.randn(1, 3, 8, 8),)),
    "gates": (nets.Gates(), (torch.randn(1, 3, 12, 12),)),
    "siamese": (nets.Siamese(), (torch.randn(1, 3, 12, 12),) * 2),
}


def export(module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, dynamo: bool) -> None:
    names = [f"in{k}" for k in range(len(inputs))]
    if dynamo:
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=True,
            external_data=False,
            input_names=names,
            output_names=["out"],
            verbose=False,
        )
    else:
        axes = {name: {0: "batch"} for name in names}
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["out"],
            dynamic_axes=axes,
        )


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """ConstantOfShape in place of all large tensors, and nothing of where the file was made."""
    graph = model.graph
    large = [t for t in graph.initializer if np.prod(t.dims) >= SMALL and t.data_type == onnx.TensorProto.FLOAT]
    fills = []
    for tensor in large:
        graph.initializer.remove(tensor)
        shape = numpy_helper.from_array(np.array(tensor.dims, np.int64), f"{tensor.name}.shape")
        graph.initializer.append(shape)
        fills.append(helper.make_node("ConstantOfShape", [shape.name], [tensor.name]))
    nodes = [*fills, *graph.node]
    holder = onnx.GraphProto()
    holder.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(holder.node)
    del graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    return model


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    for name, (module, inputs) in NETWORKS.items():
        module.eval()
        for form, dynamo in (("script", False), ("dynamo", True)):
            path = HERE / f"{name}_{form}.onnx"
            export(module, inputs, path, dynamo)
            onnx.save(without_weights(onnx.load(path)), path)
            print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
