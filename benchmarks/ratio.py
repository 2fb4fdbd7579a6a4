"""Accuracy of `--ratio` by method, each with the repair that is the default, as a table in Markdown.

    python benchmarks/ratio.py --data ../shared/data --models ../shared/models

What is not there is left out.  Figures are top-1 in per cent: without data, and with 512 images without their labels.
"""

import argparse
from pathlib import Path
from typing import Any

import onnxprune

HERE = Path(__file__).resolve().parent.parent
METHODS = ("ncc", "l2", "obs")
RATIOS = (0.25, 0.5)
CIFAR = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
HALVES = {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"}
RAW = {"layout": "nchw,raw"}
# Title, file, test images, images to calibrate on, and how they are read.
NETWORKS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("digits, plain", "digits_cnn.onnx", "digits_sample.npz", "digits_sample.npz", {}),
    ("digits, mixed", "digits_mixed.onnx", "digits_sample.npz", "digits_sample.npz", {}),
    ("MNIST of CNTK", "mnist_cntk.onnx", "mnist_test.npz", "mnist_train.npz", RAW),
    ("WinML tutorial", "winml_cifar_imageclassifier.onnx", "cifar10_test.npz", "cifar10_train_10k.npz", HALVES),
    ("ResNet-20", "resnet20_cifar10_torchscript.onnx", "cifar10_test.npz", "cifar10_train_10k.npz", CIFAR),
)


def found(name: str, *folders: str) -> Path | None:
    """The file in the first folder that has it."""
    return next((path for folder in folders if (path := Path(folder) / name).exists()), None)


def top1(model: Path, images: int, test: Path, given: Path | None, **options: Any) -> tuple[float, float]:
    """Before and after, in per cent."""
    data = {} if given is None else {"data": f"{given}"}
    report = onnxprune.prune(
        model, measure=False, test_data=f"{test}", limit=images, metric=["top1"], **data, **options
    )
    return 100 * report.report.metrics[0].before, 100 * report.report.metrics[0].after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(HERE.parent / "shared/data"), metavar="DIR")
    parser.add_argument("--models", default=str(HERE.parent / "shared/models"), metavar="DIR")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    args = parser.parse_args()
    print(f"| network | ratio | {' | '.join(f'`{m}`, no data | 512 images' for m in METHODS)} |")
    print("|---|---|" + "---:|---:|" * len(METHODS))
    for title, file, *data, reading in NETWORKS:
        model, test, train = (found(n, str(HERE / "models"), args.models, args.data) for n in (file, *data))
        if model is None or test is None or train is None:
            continue
        for ratio in RATIOS:
            cells = []
            for method in METHODS:
                for given in (None, train):
                    before, after = top1(
                        model, args.images, test, given, ratio=ratio, method=method, allocation="uniform", **reading
                    )
                    cells.append(f"{after:.1f}")
            print(f"| {title}, {before:.1f} | {ratio:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
