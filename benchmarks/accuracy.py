"""Accuracy without training, a row a network: as the command line does it, without data and with 512 images.

    python benchmarks/accuracy.py --data ../shared/data --models ../shared/models --photos PHOTOS

What is not there is left out.  Classifiers: top-1 in per cent on all test images, after a repair on drawn samples and
on 512 images of the training set without their labels.  Detectors: signal to noise over the outputs in dB (mean, least)
on 32 crops of photos, after a repair on 32 of others.  Each case runs in a process of its own, whose CPU-seconds
(reading, choosing, repair and proof, without the test) and peak memory are given.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxprune
from onnxprune.runtime.compare import differences
from onnxprune.runtime.data import open_data
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs

HERE = Path(__file__).resolve().parent.parent
IMAGES = 512
OTHERS = 32  # given as test data, so that all of the others are repaired on
CROPS = 32
FITTED = ("astronaut", "chelsea", "china", "coffee", "coins", "color", "motorcycle_left", "rocket")
JUDGING = ("bus", "camera", "flower", "zidane")
IMAGENET = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
USUAL = {"mean": "0.4914,0.4822,0.4465", "std": "0.2023,0.1994,0.2010"}  # of CIFAR-10
HALVES = {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"}
RAW = {"layout": "nhwc,raw"}
CIFAR, MNIST = ("cifar10_test.npz", "cifar10_train_10k.npz"), ("mnist_test.npz", "mnist_train.npz")


@dataclass(frozen=True)
class Case:
    """A network and a budget; test and training images where it is a classifier, pixels where it is a detector."""

    file: str
    budgets: tuple[Mapping[str, Any], ...]
    images: tuple[str, str] | tuple[()] = ()
    reading: Mapping[str, str] = field(default_factory=dict)
    pixels: tuple[tuple[float, ...], tuple[float, ...], bool] = ((0,), (1,), False)  # mean, deviation, BGR


def targets(*shares: float) -> tuple[Mapping[str, Any], ...]:
    return tuple({"target": f"macs={s}"} for s in shares)


RESNET = targets(0.7, 0.5, 0.3)
CASES = (
    Case("resnet56_cifar10_torchscript.onnx", RESNET, CIFAR, IMAGENET),
    Case("resnet56_cifar10_batchnorm.onnx", targets(0.5), CIFAR, IMAGENET),
    Case("resnet20_cifar10_torchscript.onnx", ({"ratio": 0.25}, *targets(0.5)), CIFAR, IMAGENET),
    Case("digits_mixed.onnx", ({"ratio": 0.5},), ("digits_sample.npz", "digits_sample.npz")),
    Case("vnn_vit_pgd_2_3_16.onnx", targets(0.6), CIFAR, USUAL),
    Case("mnist_cntk.onnx", targets(0.5), MNIST, {"layout": "nchw,raw"}),
    Case("mlperf_resnet8_cifar10_float.onnx", targets(0.5), CIFAR, RAW),
    Case("mlperf_resnet_large_cifar10_float.onnx", targets(0.5), CIFAR, RAW),
    Case("vnn_cifar10_resnet_4b.onnx", targets(0.5), CIFAR, IMAGENET),
    Case("winml_cifar_imageclassifier.onnx", ({"ratio": 0.25}, *targets(0.5)), CIFAR, HALVES),
    Case("yunet_n_dynamic.onnx", targets(0.7), pixels=((0,), (1,), True)),
    Case("nanodet_m.onnx", targets(0.7), pixels=((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), True)),
    Case("ultraface_rfb_320.onnx", targets(0.7), pixels=((127,), (128,), False)),
    Case("retinaface_mbnet025.onnx", targets(0.7), pixels=((104, 117, 123), (1,), True)),
    Case("fastestdet.onnx", targets(0.7), pixels=((0,), (255,), True)),
)


def found(name: str, *folders: Path) -> Path | None:
    """The file in the first folder that has it."""
    return next((path for folder in folders if (path := folder / name).exists()), None)


def crops(folder: Path, names: tuple[str, ...], size: tuple[int, int], seed: int) -> np.ndarray:
    """So many random crops of the photos, (crops, 3, height, width) in bytes, mirrored at random."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    files = [next(folder.glob(f"{name}.*")) for name in names]
    photos = [Image.open(f).convert("RGB") for f in files]
    out = []
    for k in range(CROPS):
        photo = photos[k % len(photos)]
        share = rng.uniform(0.5, 1)
        width = share * min(photo.width, photo.height * size[1] / size[0])
        height = width * size[0] / size[1]
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
        cut = photo.resize(size[::-1], Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        out.append(np.asarray(cut)[:, :: rng.choice((1, -1))])
    return np.stack(out).transpose(0, 3, 1, 2)


def pruned(model: Path, folder: Path, **options: Any) -> tuple[Path, float]:
    """The written file, and CPU-seconds."""
    begun = time.process_time()
    onnxprune.prune(model, folder / "out.onnx", measure=False, **options)
    return folder / "out.onnx", time.process_time() - begun


def top1(model: Path, test: Path, reading: Mapping[str, str], stride: int) -> float:
    """In per cent, on every so manyth image."""
    session = make_session(onnx.load(model), providers="cpu", optimize=True)
    data = open_data(test, model_inputs(onnx.load(model)), **reading)
    counted = data.counted()
    hits = total = 0
    for batch in counted.chosen(np.arange(0, counted.samples or 0, stride)).batched(250):
        scores = session.run(batch.feeds)[session.outputs[0].name]
        hits += int((scores.reshape(len(scores), -1).argmax(axis=1) == batch.labels).sum())
        total += len(scores)
    return 100 * hits / total


def classified(case: Case, budget: Mapping[str, Any], args: argparse.Namespace, given: bool) -> str:
    """Top-1 of one run."""
    here = HERE / "models"
    model, test, train = (found(n, here, args.models, args.data) for n in (case.file, *case.images))
    assert model is not None
    assert test is not None
    assert train is not None
    with tempfile.TemporaryDirectory() as name:
        folder, options = Path(name), {**budget, **case.reading, "seed": args.seed}
        if given:
            arrays = np.load(train)
            images = arrays[next(k for k in arrays.files if k not in ("y", "labels"))]
            order, key = (
                np.random.default_rng(args.seed).permutation(len(images)),
                model_inputs(onnx.load(model))[0].name,
            )
            for file, some in (("some", order[:IMAGES]), ("others", order[-OTHERS:])):
                np.savez(folder / f"{file}.npz", **{key: images[some]})
            options |= {"data": f"{folder}/some.npz", "test_data": f"{folder}/others.npz"}
        out, seconds = pruned(model, folder, **options)
        accuracy = top1(out, test, case.reading, args.stride)
    return f"{accuracy:.2f} ({seconds:.0f} CPU-s, {peak():.1f} GiB)"


def detected(case: Case, budget: Mapping[str, Any], args: argparse.Namespace) -> str:
    """Signal to noise of one run."""
    model = found(case.file, args.models)
    assert model
    proto = onnx.load(model)
    spec = model_inputs(proto)[0]
    shape = spec.shape or ()
    size = tuple(n if isinstance(n, int) and n > 0 else 320 for n in shape[2:])
    mean, std, bgr = case.pixels
    feeds = []
    for names in (FITTED, JUDGING):
        images = crops(args.photos, names, size, args.seed)[:, :: -1 if bgr else 1]  # type: ignore[arg-type]
        scaled = (images - np.reshape(mean, (1, -1, 1, 1))) / np.reshape(std, (1, -1, 1, 1))
        feeds.append(scaled.astype(np.float32))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, some in (("some", feeds[0]), ("others", feeds[1])):
            np.savez(folder / f"{file}.npz", **{spec.name: some})
        out, seconds = pruned(
            model, folder, **budget, data=f"{folder}/some.npz", test_data=f"{folder}/others.npz", seed=args.seed,
            input_shapes=[f"{spec.name}:1x3x{size[0]}x{size[1]}"] if not spec.closed else [],
        )  # fmt: skip
        before, after = (make_session(onnx.load(m), providers="cpu", optimize=True) for m in (model, out))
        singles = [{spec.name: feeds[1][k : k + 1]} for k in range(CROPS)]
        agreed = differences((before.run(f), after.run(f)) for f in singles)
    each = [d.snr_db for d in agreed]
    return f"{np.mean(each):.1f}, {min(each):.1f} ({seconds:.0f} CPU-s, {peak():.1f} GiB)"


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def row(case: Case, budget: Mapping[str, Any], args: argparse.Namespace) -> str:
    """One line of the table."""
    cells = [case.file.removesuffix(".onnx"), " ".join(f"--{k} {v}" for k, v in budget.items())]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        if case.images:
            cells += [pool.apply(classified, (case, budget, args, given)) for given in args.given]
        else:
            cells += [pool.apply(detected, (case, budget, args))]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared/data", metavar="DIR")
    parser.add_argument("--models", type=Path, default=HERE.parent / "shared/models", metavar="DIR")
    parser.add_argument("--photos", type=Path, default=HERE.parent / "shared/photos", metavar="DIR")
    parser.add_argument("--only", default="*", metavar="GLOB", help="of file names")
    parser.add_argument("--budget", default="*", metavar="GLOB", help="such as '*=0.5'")
    parser.add_argument("--given", type=int, nargs="+", default=[0, 1], help="0: no data, 1: images")
    parser.add_argument("--stride", type=int, default=1, help="every so manyth test image")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| network | budget | no data, or photos | 512 images |\n|---|---|---|---|")
    for case in CASES:
        there = all(found(n, HERE / "models", args.models, args.data) for n in (case.file, *case.images))
        if not there or not fnmatchcase(case.file, args.only) or not (case.images or args.photos.exists()):
            continue
        for budget in case.budgets:
            if fnmatchcase(" ".join(f"{k} {v}" for k, v in budget.items()), args.budget):
                print(row(case, budget, args), flush=True)


if __name__ == "__main__":
    main()
