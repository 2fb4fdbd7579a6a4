"""Top-1 of the methods without and with training behind them: half of the MACs removed, no repair.

    python benchmarks/methods_trained.py [--network NAME ...] [--method NAME ...] [--epochs 2]

A row a method and network: top-1 on 2,000 test images of the original, of the cut, and after `--epochs` passes over
2,000 labelled training images.  `msvfp` trains on the way as well; its cut alone is taken without.  Data and networks
lie as `methods.py` says (--data, --models).  Needs the extra `train`.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from methods import HERE, NETWORKS

import onnxprune

METHODS = ("ncc", "cshe", "apssf", "spectral", "msvfp", "l2", "fpgm", "random")
TRIALS = 256  # samples of the losses of msvfp
IMAGES = 2000  # to train on, and as many others to judge by


def some(source: Path, work: Path) -> Path:
    """So many images of a file, evenly spread, in a file of their own."""
    with np.load(source) as data:
        rows = ((np.arange(IMAGES) + 0.5) * len(data["x"]) / IMAGES).astype(int)
        np.savez(path := work / source.name, x=data["x"][rows], y=data["y"][rows])
    return path


def top1(network: Path, method: str, options: dict[str, Any]) -> tuple[float, float]:
    """Of the original, and of what is left of it."""
    own = {"images": TRIALS} if method == "msvfp" else {}
    done = onnxprune.prune(
        network, target="macs=0.5", method=method, allocation="uniform", compensate="none", measure=False,
        method_options=own, threads=1, **options,
    )  # fmt: skip
    row = next(m for m in done.report.metrics if m.name == "top1")
    return 100 * row.before, 100 * row.after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", nargs="+", choices=tuple(NETWORKS), default=["mnist", "fashion", "resnet20"])
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared/data", metavar="DIR")
    parser.add_argument("--models", type=Path, default=HERE.parent / "shared/models", metavar="DIR")
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    print("| network | method | original | cut alone | trained | CPU-s |\n|---|---|---:|---:|---:|---:|")
    for name in given.network:
        network = NETWORKS[name]
        path = HERE / network.path if network.ours else given.models / network.path
        with tempfile.TemporaryDirectory() as work:
            train, test = (some(given.data / f"{of}.npz", Path(work)) for of in (network.calibration, network.test))
            for method in given.method:
                options = {"data": train, "test_data": test, **network.reading}
                whole, cut = top1(path, method, options)
                begun = time.process_time()
                _, trained = top1(path, method, {**options, "finetune": given.epochs})
                spent = time.process_time() - begun
                print(f"| {name} | `{method}` | {whole:.2f} | {cut:.1f} | {trained:.1f} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
