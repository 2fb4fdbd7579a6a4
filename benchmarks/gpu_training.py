"""Training and inference on a GPU: never run so far, since none was at hand.

python benchmarks/gpu_training.py ../shared/models/resnet56_cifar10_torchscript.onnx ../shared/data [--minutes 2]

Prints steps per second, the top-1 of −50 % and −70 % after `--minutes` of training each, and whether the CUDA provider
of onnxruntime gives what the CPU gives for the pruned network, and how long both take.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.runtime.session import make_session

SCALE = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
BATCH = 256
RUNS = 50


class Counting:
    """A progress that counts steps and how long they take."""

    def __init__(self) -> None:
        self.steps, self.begun, self.last = 0, 0.0, 0.0

    def __call__(self, what: str, done: int, of: int) -> None:
        if what.startswith("epoch"):
            self.last = time.perf_counter()
            self.begun = self.begun or self.last
            self.steps += 1

    @property
    def rate(self) -> float:
        return (self.steps - 1) / max(self.last - self.begun, 1e-9)


def trained(network: Path, data: Path, keep: float, minutes: float, work: Path) -> Path:
    """Prune on the CPU and train on the GPU; prints a row."""
    progress, out = Counting(), work / f"{keep}.onnx"
    result = onnxprune.prune(
        network, out, target=f"macs={keep}", data=data / "cifar10_train_10k.npz", test_data=data / "cifar10_test.npz",
        finetune=1000, minutes=minutes, device="cuda", batch_size=BATCH, measure=False, progress=progress, **SCALE,
    )  # fmt: skip
    top1 = next(m for m in result.report.metrics if m.name == "top1")
    print(
        f"macs={keep}: {100 * top1.before:.2f} → {100 * top1.after:.2f}, {progress.rate:.1f} steps of {BATCH} a second"
    )
    return out


def compared(path: Path) -> None:
    """The CUDA provider against the CPU: the largest difference, and milliseconds a batch."""
    feed = {"input": np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32)).astype(np.float32)}
    outputs, times = {}, {}
    for provider in ("cpu", "cuda"):
        session = make_session(str(path), providers=provider, optimize=True)
        if session.provider != provider:
            raise SystemExit(f"the provider {provider} does not load: `onnxprune doctor` says why")
        session.run(feed)
        begun = time.perf_counter()
        for _ in range(RUNS):
            outputs[provider] = session.run(feed)
        times[provider] = (time.perf_counter() - begun) / RUNS * 1e3
    apart = max(float(np.abs(outputs["cpu"][n] - outputs["cuda"][n]).max()) for n in outputs["cpu"])
    print(f"{path.name}: cuda differs by {apart:.1e}; {times['cpu']:.1f} ms on the CPU, {times['cuda']:.1f} ms on CUDA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for keep in (0.5, 0.3):
            compared(trained(given.network, given.data, keep, given.minutes, Path(work)))


if __name__ == "__main__":
    main()
