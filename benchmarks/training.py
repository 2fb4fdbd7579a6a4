"""What training wins back: prunes and trains from the command line, and prints a row for each case.

python benchmarks/training.py ../shared/models/resnet56_cifar10_torchscript.onnx --data ../shared/data [--row NAME ...]

Top-1 on all 10,000 test images, CPU-seconds of the whole command, and the end of its report.  The rows are those of the
table in benchmarks/README.md; each takes up to 20 minutes on two idle cores.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SCALE = ("--mean", ".485,.456,.406", "--std", ".229,.224,.225")
ROWS = {  # name: (share of the MACs to keep, images, whether with labels, epochs, minutes)
    "50% removed, 10,000 images": (0.5, 10_000, False, 100, 18),
    "50% removed, 10,000 images with labels": (0.5, 10_000, True, 100, 18),
    "70% removed, 10,000 images": (0.3, 10_000, False, 100, 18),
    "70% removed, 10,000 images with labels": (0.3, 10_000, True, 100, 18),
    "50% removed, 512 images": (0.5, 512, False, 100, 7),
    "70% removed, 512 images": (0.3, 512, False, 100, 7),
    "70% removed, no data": (0.3, 0, False, 100, 18),
}


def samples(folder: Path, images: int, labels: bool, work: Path) -> list[str]:
    """The options that give so many training images, evenly spread, from the file of 10,000."""
    if not images:
        return []
    with np.load(folder / "cifar10_train_10k.npz") as data:
        rows = ((np.arange(images) + 0.5) * len(data["x"]) / images).astype(int)
        arrays = {"x": data["x"][rows]} | ({"y": data["y"][rows]} if labels else {})
    path = work / "train.npz"
    np.savez(path, **arrays)
    return ["--data", str(path)]


def measured(network: Path, folder: Path, name: str, *more: str) -> str:
    """One row: top-1 before and after, and what the command took."""
    keep, images, labels, epochs, minutes = ROWS[name]
    with tempfile.TemporaryDirectory() as work:
        words = [sys.executable, "-m", "onnxprune", str(network), f"{work}/out.onnx", "--target", f"macs={keep}"]
        words += [*samples(folder, images, labels, Path(work)), *SCALE, "--no-measure", "--json"]
        words += ["--test-data", str(folder / "cifar10_test.npz"), "--finetune", str(epochs), "--minutes", str(minutes)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        run = subprocess.run([*words, *more], stdout=subprocess.PIPE, text=True, check=True)
        seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    report = json.loads(run.stdout)
    row = next(m for m in report["metrics"] if m["name"] == "top1")
    how = next(note for note in report["notes"] if note.startswith("trained "))
    return f"| {name} | {100 * row['before']:.2f} | {100 * row['after']:.2f} | {seconds:.0f} | {how} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files of CIFAR-10")
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one; repeatable")
    given, more = parser.parse_known_args()
    print("| case | original | trained | CPU-s | how |\n|---|---|---|---|---|")
    for name in given.row or ROWS:
        print(measured(given.network, given.data, name, *more), flush=True)


if __name__ == "__main__":
    main()
