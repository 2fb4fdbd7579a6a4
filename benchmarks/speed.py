"""Time to choose and cut channels, without loading, saving and proof, beside Torch-Pruning on the same networks.

    pip install torch torchvision torch-pruning
    python benchmarks/speed.py [NAME ...]

Networks of torchvision with random weights, half of the channels of each group, one thread.  Here: analysis, `ncc`, cut
of the exported file; there: tracing and a step of its pruner with FPGM, which compares filters by distance.  "products"
is what the inner products alone take of all filters of each group, the least that any comparison in pairs needs.  Each
side runs in a process of its own; times are CPU-seconds, the least of a few runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

NETWORKS = ("resnet50", "densenet121", "mobilenet_v2", "convnext_tiny", "vgg16", "swin_t")
RUNS = 3
SIZE = 224


def built(name: str):
    """The network, with fixed random weights."""
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.set_num_threads(1)
    return torchvision.models.get_model(name).eval(), torch.zeros(1, 3, SIZE, SIZE)


def export(name: str, path: Path) -> dict[str, float]:
    """Write the network as ONNX."""
    import torch

    model, image = built(name)
    torch.onnx.export(model, (image,), str(path), dynamo=False, opset_version=17)
    return {}


def peer(name: str, path: Path) -> dict[str, float]:
    """Torch-Pruning."""
    import torch_pruning

    best = float("inf")
    for _ in range(RUNS):
        model, image = built(name)
        last = [m for m in model.modules() if getattr(m, "out_features", 0) == 1000]
        begun = time.process_time()
        try:
            pruner = torch_pruning.pruner.BasePruner(
                model, image, torch_pruning.importance.FPGMImportance(), pruning_ratio=0.5, ignored_layers=last
            )
            pruner.step()
        except Exception as error:  # of any kind: it is the peer's
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            return {"total": float("nan")}
        best = min(best, time.process_time() - begun)
    return {"total": best}


def own(name: str, path: Path) -> dict[str, float]:
    """This project: stages of `onnxprune.prune`."""
    from onnxprune.channels import analyse
    from onnxprune.model import load
    from onnxprune.model.network import Network
    from onnxprune.pipeline.calibration import calibrating
    from onnxprune.pipeline.choose import Chooser
    from onnxprune.pipeline.request import Request
    from onnxprune.pipeline.run import Log, Run
    from onnxprune.pipeline.study import Study
    from onnxprune.surgery.plan import make_plan
    from onnxprune.surgery.rewrite import cut

    model, request, laps = load(path), Request.of({}, ratio=0.5, method="ncc"), []
    for _ in range(RUNS):
        clock = [time.process_time()]
        network = Network.of(model.proto)
        deps = analyse(network)
        clock.append(time.process_time())
        study = Study(network, deps, {}, request)
        choice = Chooser.of(Run(request, model, study, Log()), calibrating(study, None)).choose(None)
        clock.append(time.process_time())
        make_plan(deps, choice.kept, source={})
        cut(network, deps, deps.dead(choice.kept))
        clock.append(time.process_time())
        laps.append([b - a for a, b in pairwise(clock)])
    least = min(laps, key=sum)
    names = ("analyse", "choose", "rewrite")
    return {**dict(zip(names, least, strict=True)), "total": sum(least), "products": products(deps, network)}


def products(deps, network) -> float:
    """Seconds of the inner products of all filters of each group with each other."""
    import numpy as np

    from onnxprune.pipeline.group_filters import Weights

    weights, best = Weights(network, deps), float("inf")
    sizes = [(len(g), weights.filters(g).width) for g in deps.groups if len(g) > 1]
    for _ in range(RUNS):
        spent = 0.0
        for rows, columns in sizes:
            filters = np.zeros((rows, columns), np.float32)
            begun = time.process_time()
            filters @ filters.T
            spent += time.process_time() - begun
        best = min(best, spent)
    return best


def child(side: str, name: str, path: Path) -> dict[str, float]:
    """What a fresh process with one thread finds."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, __file__, "--child", side, name, str(path)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env={**os.environ, **threads, "PYTHONPATH": paths}
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, name, path = args.child
        print(json.dumps({"export": export, "peer": peer, "own": own}[side](name, Path(path))))
        return
    print("| network | analyse s | choose s | rewrite s | total s | Torch-Pruning s | ratio | total / products |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names:
            path = Path(folder) / f"{name}.onnx"
            child("export", name, path)
            one = child("own", name, path)
            try:
                two = child("peer", name, path)
            except subprocess.CalledProcessError as error:  # as where it takes more memory than there is
                print(f"{name}: {error}", file=sys.stderr)
                two = {"total": float("nan")}
            row = [f"{one[k]:.2f}" for k in ("analyse", "choose", "rewrite", "total")]
            row += [f"{two['total']:.2f}", f"{one['total'] / two['total']:.2f}"]
            print(f"| {name} | {' | '.join(row)} | {one['total'] / one['products']:.1f} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
