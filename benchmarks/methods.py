"""Accuracy without any training, time and memory of every method, on networks that come with accuracies.

    python benchmarks/methods.py --data ../shared/data --models ../shared/models --write docs/METHODS.md

DIR of --data holds `<set>_test.npz` to judge by and the training images to calibrate with, each with `x` (images,
uint8) and `y` (labels); DIR of --models the networks that are not part of the repository.  What is not there is left
out.
Each network and method has a process of its own, whose peak memory is told.  Finished rows are kept in --results, so
that an interrupted run goes on where it was.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SHARES = (0.8, 0.7, 0.6, 0.5)  # of the MACs that stay
TIMED = 0.6  # the share whose time is told
METHODS = ("ncc", "ncc:floor=0", "cshe", "apssf", "spectral", "msvfp", "l1", "l2", "fpgm", "bn", "random")
ALLOCATIONS = (("ncc", "global"), ("ncc", "sensitivity"), ("l2", "global"), ("l2", "sensitivity"))
REPAIRS = ("merge", "ridge", "lstsq:drawn", "lstsq")  # without a sample, with drawn ones, with real ones
REPAIRED = (("ncc", "uniform"), ("l2", "uniform"), ("obs", "sensitivity"))
CIFAR = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
GREY = {"mean": "0", "std": "1"}


@dataclass(frozen=True)
class Network:
    """A network to measure, the data that judges it, and how images become its input."""

    title: str
    path: str  # in the repository, or in the folder of --models
    ours: bool
    test: str
    calibration: str
    reading: dict[str, str]


NETWORKS = {
    "mnist": Network("MNIST CNN", "models/mnist_cnn.onnx", True, "mnist_test", "mnist_train", GREY),
    "fashion": Network(
        "Fashion-MNIST CNN", "models/fashion_mnist_cnn.onnx", True, "fashion_mnist_test", "fashion_mnist_train", GREY
    ),
    "resnet20": Network(
        "ResNet-20, CIFAR-10", "resnet20_cifar10_batchnorm.onnx", False, "cifar10_test", "cifar10_train_10k", CIFAR
    ),
    "resnet56": Network(
        "ResNet-56, CIFAR-10", "resnet56_cifar10_batchnorm.onnx", False, "cifar10_test", "cifar10_train_10k", CIFAR
    ),
}


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(args: argparse.Namespace) -> dict:
    """One method on one network: accuracy at each share, seconds and memory of choosing the channels."""
    from onnxprune.model import load
    from onnxprune.pipeline.calibration import calibrating
    from onnxprune.pipeline.choose import Chooser
    from onnxprune.pipeline.repair import repaired
    from onnxprune.pipeline.request import Request
    from onnxprune.pipeline.run import Log, Run
    from onnxprune.pipeline.split import Split
    from onnxprune.pipeline.study import Study
    from onnxprune.runtime.data import open_data
    from onnxprune.runtime.specs import model_inputs
    from onnxprune.surgery.rewrite import cut

    network, method, allocation, repair = NETWORKS[args.networks[0]], *args.child
    compensation, _, drawn = repair.partition(":")
    model = load(path_of(network, args))
    source = str(Path(args.data) / f"{network.calibration}.npz")
    method, _, option = method.partition(":")
    options = {"images": args.trial_images} if method == "msvfp" else dict([option.split("=")] if option else [])
    request = Request.of(
        {},
        target=f"macs={TIMED}",
        method=method,
        allocation=allocation,
        compensate=compensation,
        method_options=options,
        data=None if drawn else source,
        **network.reading,
    )
    calibration = None if drawn else open_data(source, model_inputs(model.proto), **network.reading)
    study = Study.of(model.network, {}, request)
    deps, samples = study.deps, calibrating(study, calibration)
    run = Run(request, model, study, Log(), Split(calibration))
    before, found, chosen, seconds, memory = peak(), {}, {}, 0.0, 0
    for share in sorted(SHARES, key=lambda s: s != TIMED):
        begun = time.perf_counter()
        if not chosen:
            chooser = Chooser.of(run, samples)
        chosen[share] = kept = chooser.choose(("macs", share)).kept
        done = repaired(study, kept, samples)
        pruned = cut(done.model, done.deps, done.deps.dead(kept))
        if share == TIMED:
            seconds, memory = time.perf_counter() - begun, peak() - before
        found[f"{share:g}"] = [accuracy(pruned, network, args), deps.macs(deps.dead(kept)) / deps.macs()]
    return {"accuracy": found, "seconds": seconds, "memory": memory, "images": args.images, "trials": args.trial_images}


def accuracy(model, network: Network, args: argparse.Namespace) -> float:  # type: ignore[no-untyped-def]
    """Share of test images that the network gets right."""
    from onnxprune.runtime.accuracy import evaluate
    from onnxprune.runtime.data import open_data
    from onnxprune.runtime.session import make_session
    from onnxprune.runtime.specs import model_inputs

    source = str(Path(args.data) / f"{network.test}.npz")
    data = open_data(source, model_inputs(model), **network.reading, limit=args.images)
    return evaluate({"it": make_session(model, optimize=True)}, data, ["top1"])["it"]["top1"]


def path_of(network: Network, args: argparse.Namespace) -> Path:
    return HERE / network.path if network.ours else Path(args.models) / network.path


def whole(args: argparse.Namespace) -> dict:
    """The network as it is."""
    from onnxprune.model import load

    network = NETWORKS[args.networks[0]]
    return {"accuracy": accuracy(load(path_of(network, args)).proto, network, args), "images": args.images}


# --- all of them -------------------------------------------------------------


def child(args: argparse.Namespace, name: str, *what: str) -> dict:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--networks", name, "--data", args.data, "--models", args.models]
    command += ["--images", str(args.images), "--trial-images", str(args.trial_images), "--child", *what]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(HERE)})
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        print(f"{name} {' '.join(what)}: {reason}", file=sys.stderr)
        return {"problem": reason.partition(": ")[2]}
    return json.loads(done.stdout.splitlines()[-1])


def rows() -> list[tuple[str, str, str]]:
    """Method, allocation and compensation of each row."""
    plain = [(m, "uniform", "none") for m in METHODS]
    repaired = [(*what, repair) for repair in REPAIRS for what in REPAIRED if usable(*what, repair)]
    return plain + repaired + [(m, a, "none") for m, a in ALLOCATIONS]


def usable(method: str, allocation: str, repair: str) -> bool:
    """The order `obs` is that of the least squares, so it is measured with them alone."""
    return method != "obs" or repair.startswith("lstsq")


def run(args: argparse.Namespace) -> dict:
    """All rows of all networks that are there, with those that were measured before."""
    results = json.loads(Path(args.results).read_text()) if Path(args.results).exists() else {}
    for name in args.networks:
        network = NETWORKS[name]
        if not path_of(network, args).exists() or not (Path(args.data) / f"{network.test}.npz").exists():
            print(f"{network.title}: the network or its test images are not there", file=sys.stderr)
            continue
        for what in [("whole",), *rows()]:
            key = " ".join((name, *what))
            if key not in results:
                results[key] = child(args, name, *what)
                print(key, results[key], file=sys.stderr, flush=True)
                Path(args.results).write_text(json.dumps(results, indent=1))
    return results


def table(results: dict, name: str) -> str:
    """The rows of one network as Markdown."""
    whole_net = results[f"{name} whole"]
    trials = {f.get("trials", 128) for key, f in results.items() if key.startswith(f"{name} msvfp") and "seconds" in f}
    judged = f"Original: {whole_net['accuracy']:.2%} on {whole_net['images']:,} test images."
    told = "".join(f" `msvfp` measured its losses on {n} training images." for n in sorted(trials))
    head = f"### {NETWORKS[name].title}\n\n{judged}{told}\n\n"
    columns = " | ".join(f"−{1 - share:.0%} MACs" for share in SHARES)
    lines = [f"| method | {columns} | seconds | MiB |", "|---|" + "---:|" * (len(SHARES) + 2)]
    for method, allocation, compensation in rows():
        found = results.get(f"{name} {method} {allocation} {compensation}", {})
        if "seconds" not in found:
            continue
        name_, _, option = method.partition(":")
        title = f"`{name_}`" + (f", `{option}`" if option else "")
        title += f", allocation `{allocation}`" if allocation != "uniform" else ""
        title += f", then `{compensation.partition(':')[0]}`" if compensation != "none" else ""
        title += {"lstsq": " on 512 images", "lstsq:drawn": " on drawn images"}.get(compensation, "")
        figures = " | ".join(f"{100 * found['accuracy'][f'{share:g}'][0]:.1f}" for share in SHARES)
        lines.append(f"| {title} | {figures} | {found['seconds']:.1f} | {found['memory'] / 2**20:.0f} |")
    return head + "\n".join(lines) + "\n"


def write(page: Path, text: str) -> None:
    """Put the tables between the marks of a page."""
    begin, end = "<!-- tables: begin -->", "<!-- tables: end -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS))
    parser.add_argument("--data", default=str(HERE.parent / "shared/data"), metavar="DIR")
    parser.add_argument("--models", default=str(HERE.parent / "shared/models"), metavar="DIR")
    parser.add_argument("--images", type=int, default=10000, help="test images to judge by")
    parser.add_argument("--trial-images", type=int, default=512, help="samples of the losses of msvfp")
    parser.add_argument("--results", default="methods.json", help="rows that are done")
    parser.add_argument("--write", metavar="PAGE.md", help="a page to put the tables into")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(whole(args) if args.child == ["whole"] else measure(args)))
        return
    results = run(args)
    text = "\n".join(table(results, name) for name in args.networks if f"{name} whole" in results)
    if args.write:
        write(Path(args.write), text)
    print(text)


if __name__ == "__main__":
    main()
