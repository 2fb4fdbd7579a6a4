"""Time and memory of each stage, as ratios to the floor of loading and saving the file, in one run.

    python benchmarks/stages.py [NAME ...]

Each network is pruned in a process of its own; CPU-seconds are those of that process over all threads.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
COLUMNS = ("network", "file", "nodes", "MACs left", "analyse s", "score s", "rewrite s")
COLUMNS += ("these three / floor", "whole run / floor", "peak of stages / file", "peak of whole run / file")
DEFAULT = ("squeezenet", "resnet50", "densenet121", "inception_v2", "vgg19")


def floor(path: Path) -> dict[str, float]:
    """Loading and saving with onnx alone."""
    import onnx

    begun = time.process_time()
    model = onnx.load(path)
    onnx.save(model, path.with_suffix(".floor.onnx"))
    return {"cpu": time.process_time() - begun, "peak": _peak()}


def stages(path: Path, method: str) -> dict[str, float]:
    """The stages of `onnxprune.prune`, one after the other."""
    import numpy as np

    from onnxprune.channels import analyse
    from onnxprune.model import load, save
    from onnxprune.model.network import Network
    from onnxprune.pipeline.calibration import calibrating
    from onnxprune.pipeline.choose import Chooser
    from onnxprune.pipeline.request import Request
    from onnxprune.pipeline.run import Log, Run
    from onnxprune.pipeline.study import Study
    from onnxprune.surgery.plan import make_plan
    from onnxprune.surgery.rewrite import cut

    spent, clock = {"imported": _peak()}, time.process_time()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.process_time()
        spent[name], clock = now - clock, now

    clock = time.process_time()
    request, model = Request.of({}, ratio=0.5, method=method), load(path)
    lap("load")
    network = Network.of(model.proto)
    study = Study(network, analyse(network), {}, request)
    deps = study.deps
    lap("analyse")
    choice = Chooser.of(Run(request, model, study, Log()), calibrating(study, None)).choose(None)
    lap("score")
    make_plan(deps, choice.kept, source={})
    pruned = cut(model.proto, deps, np.asarray(deps.dead(choice.kept)))
    lap("rewrite")
    spent["peak before saving"] = _peak()
    save(pruned, path.with_suffix(".pruned.onnx"))
    lap("save")
    left = deps.macs(deps.dead(choice.kept)) / deps.macs()
    return spent | {"peak": _peak(), "nodes": len(deps.nodes), "macs left": left}


def make(path: Path) -> dict[str, float]:
    """Write the network that the path is named after."""
    import onnx
    from networks import filled

    onnx.save(filled(path.stem), path)
    return {}


def whole(path: Path, method: str) -> dict[str, float]:
    """The whole run with verification."""
    import onnxprune

    begun, imported = time.process_time(), _peak()
    onnxprune.prune(path, path.with_suffix(".whole.onnx"), ratio=0.5, compensate="none", method=method, measure=False)
    return {"cpu": time.process_time() - begun, "imported": imported, "peak": _peak()}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _child(task: str, path: Path, method: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", task, str(path), method]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def report(name: str, method: str, folder: Path) -> None:
    """One network, as a line of a Markdown table."""
    path = folder / f"{name}.onnx"
    _child("make", path, method)  # in a child too: a process inherits the peak of the one that starts it
    size = path.stat().st_size
    base, parts, run = (_child(task, path, method) for task in ("floor", "stages", "whole"))
    inner = sum(parts[k] for k in ("analyse", "score", "rewrite"))
    cells = [name, f"{size / 2**20:.0f} MiB", str(int(parts["nodes"])), f"{parts['macs left']:.2f}"]
    cells += [f"{parts[k]:.3f}" for k in ("analyse", "score", "rewrite")]
    cells += [f"{inner / base['cpu']:.2f}", f"{run['cpu'] / base['cpu']:.2f}"]
    cells += [f"{parts['peak'] / size:.2f}", f"{run['peak'] / size:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=DEFAULT)
    parser.add_argument("--method", default="ncc")
    parser.add_argument("--child", nargs=3, metavar=("TASK", "PATH", "METHOD"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        task, path, method = args.child
        tasks = {"make": make, "floor": floor}
        timed = {"stages": stages, "whole": whole}
        print(json.dumps(tasks[task](Path(path)) if task in tasks else timed[task](Path(path), method)))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names:
            report(name, args.method, Path(folder))


if __name__ == "__main__":
    main()
