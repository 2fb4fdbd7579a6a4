"""Accuracy after a cut without training: one line per target, for real images and for drawn ones.

    python benchmarks/recovery.py MODEL.onnx --test test.npz --calibration train.npz --targets 0.3 0.5 0.7

The files hold `x` (images, height, width, channels; bytes) and `y` (labels); labels of the calibration are not read.
"""

import argparse
import resource
import time

import numpy as np
import onnx

from onnxprune.budget import Budget
from onnxprune.budget.allocate import allocate
from onnxprune.channels import analyse
from onnxprune.pipeline.costs import costs_of
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs
from onnxprune.runtime.synthetic import Scale, synthetic_feeds
from onnxprune.surgery import cut
from onnxprune.surgery.compensate import compensate
from onnxprune.surgery.recovery.loss_curves import Curve, repair_curves

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prepared(images: np.ndarray, size: int = 64) -> list[np.ndarray]:
    """Batches in planes, with the usual mean and deviation."""
    scaled = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    planes = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
    return [planes[k : k + size] for k in range(0, len(planes), size)]


def accuracy(model: onnx.ModelProto, batches: list[np.ndarray], labels: np.ndarray) -> float:
    """Top-1 in per cent."""
    session = make_session(model, providers="cpu", optimize=True)
    name, out = session.inputs[0].name, session.outputs[0].name
    found = np.concatenate([session.run({name: b}, [out])[out].argmax(axis=1) for b in batches])
    return 100 * float(np.mean(found == labels))


def chosen(curves: dict[str, Curve], counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Channels that stay: the last of each order."""
    whole = {n: len(c.order) for n, c in curves.items()}
    return {n: np.sort(c.order[whole[n] - counts[n] :]) for n, c in curves.items() if counts[n] < whole[n]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--test", required=True)
    parser.add_argument("--calibration", help="without it, images are drawn")
    parser.add_argument(
        "--targets", type=float, nargs="+", default=[0.3, 0.5, 0.7], help="shares of the MACs to remove"
    )
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = onnx.load(args.model)
    test = np.load(args.test)
    batches, name = prepared(test["x"], 250), model_inputs(model)[0].name
    shape = (1, *batches[0].shape[1:])
    if args.calibration:
        images = np.load(args.calibration)["x"]
        picked = np.random.default_rng(args.seed).permutation(len(images))[: args.samples]
        feeds = [{name: b} for b in prepared(images[picked])]
    else:
        drawn = Scale(MEAN, STD)
        feeds, _ = synthetic_feeds(
            model_inputs(model), {name: shape}, count=args.samples, batch=64, scale=drawn, seed=args.seed
        )
    print(f"original {accuracy(model, batches, test['y']):.2f} %", flush=True)
    report(model, feeds, args.targets, batches, test["y"])


def report(model: onnx.ModelProto, feeds: list, targets: list[float], batches: list, labels: np.ndarray) -> None:
    """Measure once, then allocate, repair and evaluate for each target."""
    name = model_inputs(model)[0].name
    shapes = {name: (1, *feeds[0][name].shape[1:])}
    deps, begun = analyse(model, input_shapes=shapes), time.perf_counter()
    curves = repair_curves(model, deps, [g.name for g in deps.groups], feeds)
    measured = time.perf_counter() - begun
    for target in targets:
        begun = time.perf_counter()
        losses, costs = {n: c.loss for n, c in curves.items()}, costs_of(deps, model.ByteSize())
        whole = {g: 0.0 for g in costs.groups if g not in losses}  # what has no losses is not cut
        budget = Budget(target=("macs", 1 - target), round_to=1, ratio_for=whole)
        counts = allocate(costs, budget, "sensitivity", losses).kept
        kept = chosen(curves, dict(counts))
        done = compensate("lstsq", model, deps, kept, analyse=lambda m: analyse(m, input_shapes=shapes), feeds=feeds)
        small = cut(done.model, done.deps, done.deps.dead(kept))
        seconds = measured + time.perf_counter() - begun
        gone = 1 - deps.macs(deps.dead(kept)) / deps.macs()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = accuracy(small, batches, labels)
        print(f"MACs −{100 * gone:.1f} %: {found:.2f} %, {seconds:.0f} s, {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
