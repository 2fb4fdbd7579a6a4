"""How fully the networks of torchvision are cut, in both forms that PyTorch exports.

    python benchmarks/coverage.py [--folder FOLDER] [--thaw] [NAME ...]

Networks have random weights.  They are exported into the folder where they are not there yet (torch, torchvision and
onnxscript are needed for that), and pruned from there with `--ratio 0.5 --compensate none`.
CPU-seconds are of the whole run, with the proof in onnxruntime.
"""

import argparse
import importlib.util
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

FORMS = {"script": False, "dynamo": True}
CNNS = (
    "alexnet convnext_tiny deeplabv3_mobilenet_v3_large densenet121 efficientnet_b0 fcn_resnet50 googlenet "
    "inception_v3 lraspp_mobilenet_v3_large mnasnet1_0 mobilenet_v2 mobilenet_v3_large regnet_x_400mf regnet_y_400mf "
    "resnet18 resnet50 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_0 vgg16_bn"
).split()
TRANSFORMERS = ("swin_t", "vit_b_16")
SIZES = {
    "inception_v3": 299,
    "deeplabv3_mobilenet_v3_large": 128,
    "fcn_resnet50": 128,
    "lraspp_mobilenet_v3_large": 128,
}
COLUMNS = ("network", "form", "nodes", "MACs left", "parameters left", "masked = pruned", "CPU-s")


def network(name: str) -> Any:
    """A network of torchvision with random weights and statistics."""
    import torch
    from torchvision import models

    class Pixels(torch.nn.Module):
        """The scores of a segmentation network without those of its auxiliary head."""

        def __init__(self, whole: torch.nn.Module) -> None:
            super().__init__()
            self.whole = whole

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.whole(x)["out"]

    torch.manual_seed(0)
    builder, options = models.get_model_builder(name), dict[str, Any](weights=None)
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "transform_input": False, "init_weights": False}
    segments = builder.__module__.startswith("torchvision.models.segmentation")
    model = builder(**options, **({"weights_backbone": None} if segments else {}))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for weight in model.parameters():
        if weight.abs().max() < 1e-3:  # a fresh head of zeros, say, would hide all that stands before it
            torch.nn.init.normal_(weight, std=0.1)
    return (Pixels(model) if segments else model).eval()


def export(name: str, form: str, path: Path) -> None:
    """Write a network with a dynamic batch; where an exporter cannot do that, with one of 1."""
    import torch

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    size = SIZES.get(name, 224)
    x, model = torch.randn(1, 3, size, size), network(name)
    common: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"]}
    if not FORMS[form]:
        axes = {"input": {0: "batch"}, "output": {0: "batch"}}
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=17, dynamic_axes=axes, **common)
        return
    common |= {"dynamo": True, "external_data": False, "verbose": False}
    try:
        torch.onnx.export(model, (x,), path, dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},), **common)
    except torch.onnx.errors.OnnxExporterError:
        torch.onnx.export(model, (x,), path, **common)


def measure(path: Path, out: Path, thaw: bool) -> tuple[str, ...]:
    """One row of the table."""
    import onnx

    import onnxprune

    size = SIZES.get(path.name.split(".")[0], 224)
    before = os.times()
    options = {"thaw": True} if thaw else {}
    report = onnxprune.prune(
        path, out, ratio=0.5, compensate="none", measure=False, input_shapes={"input": (1, 3, size, size)}, **options
    ).report
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    name, form, _ = path.name.split(".")
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    left = report.after.macs / report.before.macs, report.after.params / report.before.params
    return (name, form, str(nodes), f"{left[0]:.3f}", f"{left[1]:.3f}", f"{report.proof_error:.0e}", f"{spent:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--folder", type=Path, help="keep the exports there")
    parser.add_argument("--export-only", action="store_true", help="write the exports and prune nothing")
    parser.add_argument("--thaw", action="store_true", help="norms over channels do not keep them")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for name in asked.names or (*CNNS, *TRANSFORMERS):
            for form in FORMS:
                path = folder / f"{name}.{form}.onnx"
                if not path.exists() and importlib.util.find_spec("torchvision") is None:
                    print(
                        f"skipped: {path.name} is not in the folder, and torchvision, which makes it, is not installed"
                    )
                    continue
                if not path.exists():
                    export(name, form, path)
                if not asked.export_only:
                    print(f"| {' | '.join(measure(path, Path(scratch) / 'out.onnx', asked.thaw))} |", flush=True)


if __name__ == "__main__":
    main()
