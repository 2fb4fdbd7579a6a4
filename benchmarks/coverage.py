"""How fully the networks of public libraries are cut, in both forms that PyTorch exports, and beside other tools.

    python benchmarks/coverage.py --folder FOLDER [--form FORM] [--no-peers] [NAME ...]

A NAME is `timm:mixnet_s`, or a library with all networks of it that are listed in `architectures.py`.  A network is
exported into the folder where it is not there yet, with random weights, small images and open sizes, and pruned by

    onnxprune IN OUT --ratio 0.5 --round-to 1 --compensate none

and again with `--thaw` where that leaves more than 0.3.  *floor* is what full coupling leaves, counted without
onnxprune (`floor.py`), where that counts the same multiply-accumulates.  *off* is the largest difference between the
pruned model and the masked original, relative to how far the output moves from one random input to another, at batches
and sides that the command did not see; the oracle of the tests shows it, which shares no code with the product.  Beside
it stand Torch-Pruning and onnxsim, their multiply-accumulates counted alike.  Each step may take two minutes of one
core; what is in the folder is not done again.  Wants torch, onnxscript, and whichever of the libraries and tools are
named.
"""

import argparse
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

FORMS = ("script", "dynamo")
LIMIT = 120  # CPU-seconds of a step
COMMAND = ["--ratio", "0.5", "--round-to", "1", "--compensate", "none", "--no-measure"]
SEEN = 1e-4  # how far outputs have to move, relative to their size, if a difference is to be seen
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AssertionError)  # of exporters
COLUMNS = "network|form|nodes|MACs left|with --thaw|floor|Torch-Pruning|onnxsim|proven|off|at sizes|CPU-s".split("|")
sys.path.append(str(Path(__file__).parent.parent / "tests"))


def folder_of(name: str, folder: Path) -> Path:
    return folder / name.replace(":", "_").replace("@", "_")


# --- steps, each in a process of its own -------------------------------------


def export(name: str, folder: Path, form: str) -> dict[str, Any]:
    """Write a network in one form; where an exporter cannot leave sides open, with an open batch, or nothing open."""
    from architectures import architecture
    from exported import Architecture

    found = architecture(name)
    (folder / "shapes.json").write_text(json.dumps({k: list(x.shape) for k, x in found.inputs.items()}))
    batch = {k: {0: "batch"} for k in found.inputs}
    for axes in (found.open, batch, {}):
        try:
            write(Architecture(found.module, found.inputs, axes), folder / f"{form}.onnx", form)
            return {"open": sorted({dim for given in axes.values() for dim in given.values()})}
        except FAILURES as error:
            last = error
    raise last


def write(network: Any, path: Path, form: str) -> None:
    import torch

    module, inputs = network.module, tuple(network.inputs.values())
    if form == "script":
        options = {"dynamic_axes": network.open, "opset_version": 17, "input_names": list(network.inputs)}
        torch.onnx.export(module, inputs, path, dynamo=False, **options)
        return
    dims = {
        d: torch.export.Dim(d.replace(" ", "_"), min=1, max=4096)
        for given in network.open.values()
        for d in given.values()
    }
    shapes = tuple({axis: dims[d] for axis, d in network.open.get(k, {}).items()} for k in network.inputs)
    if len(inputs) == 1 or type(module).__name__ == "Outputs":  # whose parameter is `*x`
        shapes = (shapes,) if type(module).__name__ == "Outputs" else shapes
    options = {"dynamic_shapes": shapes, "input_names": list(network.inputs), "external_data": False, "verbose": False}
    torch.onnx.export(module, inputs, path, dynamo=True, **options)


def prune(name: str, folder: Path, form: str, *more: str) -> dict[str, Any]:
    """What the command line makes of a file."""
    from onnxprune.cli.entry import run

    word = f"{form}{''.join(more)}"
    out, plan, page = (folder / f"{word}.{end}" for end in ("pruned.onnx", "plan.json", "report.json"))
    shapes = json.loads((folder / "shapes.json").read_text())
    given = [a for k, s in shapes.items() for a in ("--input-shapes", f"{k}:{'x'.join(map(str, s))}")]
    files = [folder / f"{form}.onnx", out, "--plan-out", plan, "--report", page]
    sys.argv = ["onnxprune", *map(str, files), *COMMAND, *given, *more]
    before = os.times()
    code = run(None)
    spent = round(sum(os.times()[:4]) - sum(before[:4]), 1)
    if code:
        return {"exit": code, "seconds": spent}
    report = json.loads(page.read_text())
    left = {key: round(report["after"][key] / max(1, report["before"][key]), 4) for key in ("macs", "params")}
    told = {key: report["proof"][key] for key in ("result", "verified")} | {"frozen": report["frozen"]}
    return {"exit": 0, "seconds": spent, "macs before": report["before"]["macs"]} | left | told


def judge(name: str, folder: Path, form: str) -> dict[str, Any]:
    """The pruned file against the masked original at other sizes, by the oracle of the tests."""
    import numpy as np
    import onnx
    from other_sizes import data_inputs, feeds, masked, others, run, shapes

    original, pruned = (onnx.load(folder / f"{form}{end}.onnx") for end in ("", ".pruned"))
    lengths, at = json.loads((folder / "shapes.json").read_text()), dict[str, int]()
    for value in data_inputs(original):
        dims = value.type.tensor_type.shape.dim
        at |= {d.dim_param: n for d, n in zip(dims, lengths[value.name], strict=True) if d.dim_param}
    nodes = len(original.graph.node)
    original = masked(original, json.loads((folder / f"{form}.plan.json").read_text()), pruned)
    worst, moved, seen = 0.0, 0.0, []
    for seed, size in enumerate(others(original, at) if at else [at]):
        for kind in ("normal", "positive"):
            feed, another = (feeds(original, size, kind, seed + n) for n in (100, 200))
            for a, b, c in zip(run(original, feed), run(pruned, feed), run(original, another), strict=True):
                if a.shape != b.shape:
                    raise ValueError(f"{b.shape} in place of {a.shape} at {size}")
                if a.dtype.kind == "f" and np.isfinite(a).all():
                    far, large = (float(np.abs(x).max(initial=0)) for x in (a - c, a))
                    worst = max(worst, float(np.abs(a - b).max(initial=0)) / max(1e-9, far, SEEN * large))
                    moved = max(moved, far / max(1e-9, large))
        seen.append("×".join(str(n) for shape in shapes(original, size).values() for n in shape))
    if moved < SEEN:
        raise ValueError("its outputs hardly depend on its inputs")
    return {"off": worst, "sizes": seen, "nodes": nodes}


def peer(name: str, folder: Path, form: str) -> dict[str, Any]:
    """The share of the multiply-accumulates that another tool leaves; `form` is its name, or `onnxsim-` and a form."""
    import onnx
    from architectures import architecture
    from exported import Architecture
    from peers import onnxsim, torch_pruning

    from onnxprune.channels import analyse

    shapes = {k: tuple(s) for k, s in json.loads((folder / "shapes.json").read_text()).items()}
    out, there = folder / f"{form}.onnx", "script" if (folder / "script.onnx").exists() else "dynamo"
    start = form.rpartition("-")[2] if form.startswith("onnxsim") else there
    if form.startswith("onnxsim"):
        onnxsim(folder / f"{start}.onnx", out, {k: list(s) for k, s in shapes.items()})
    else:
        found = architecture(name)
        write(Architecture(torch_pruning(found), found.inputs, {}), out, there)
    macs = [analyse(onnx.load(path), input_shapes=shapes).macs() for path in (folder / f"{start}.onnx", out)]
    return {"macs": round(macs[1] / macs[0], 4)}


def least(name: str, folder: Path, form: str) -> dict[str, Any]:
    """The share of the multiply-accumulates that full coupling leaves, of a network whose operators it knows."""
    import onnx
    from floor import Floor

    floor = Floor(onnx.load(folder / f"{form}.onnx"), json.loads((folder / "shapes.json").read_text()))
    if (before := json.loads((folder / f"prune-{form}.json").read_text())["macs before"]) != floor.total:
        raise ValueError(f"counts {floor.total} in place of {before}")
    return {"macs": round(floor.least / floor.total, 4)}


STEPS = {"export": export, "prune": prune, "judge": judge, "least": least, "peer": peer}


def step(kind: str, name: str, folder: Path, form: str, *more: str) -> dict[str, Any]:
    """The outcome of a step, kept in the folder."""
    kept = folder / f"{kind}-{form}{''.join(more)}.json"
    if not kept.exists():
        log = kept.with_suffix(".log")
        if not (child := os.fork()):  # with all libraries loaded
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
            for end, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
                os.dup2(os.open(log if end else os.devnull, mode | os.O_CREAT | (os.O_APPEND if end else 0)), end)
            try:
                kept.write_text(json.dumps(STEPS[kind](name, folder, form, *more), ensure_ascii=False, indent=1))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not kept.exists():
            told = (
                log.read_text()[-1500:]
                if not status
                else f"longer than {LIMIT} s"
                if os.WTERMSIG(status) == signal.SIGXCPU
                else f"signal {os.WTERMSIG(status)}"
            )
            kept.write_text(json.dumps({"error": told}, ensure_ascii=False, indent=1))
    return dict(json.loads(kept.read_text()))


# --- the table ---------------------------------------------------------------


def row(name: str, form: str, folder: Path, peers: bool) -> list[str]:
    """One row of the table; what was not to be had is a dash."""

    def left(found: dict[str, Any]) -> str:
        return f"{found['macs']:.3f}" if "macs" in found else "–"

    if "error" in (step("export", name, folder, form)):
        return [name, form, "not exported", *["–"] * 9]
    cut = step("prune", name, folder, form)
    thawed = step("prune", name, folder, form, "--thaw") if cut.get("macs", 1) > 0.3 else {}
    if "macs" not in cut:
        told = f"exit {cut['exit']}" if "exit" in cut else cut["error"].splitlines()[-1][:60]
        return [name, form, "–", told, left(thawed), *["–"] * 7]
    judged = step("judge", name, folder, form)
    others = [step("peer", name, folder, tool) for tool in ("torch-pruning", f"onnxsim-{form}")] if peers else [{}, {}]
    proven = "yes" if cut.get("verified") else "no"
    off = (
        [f"{judged['off']:.0e}", judged["sizes"][-1]]
        if "off" in judged
        else ["–", judged["error"].splitlines()[-1][:60]]
    )
    told = [left(cut), left(thawed), left(step("least", name, folder, form)), *map(left, others)]
    return [name, form, str(judged.get("nodes", "–")), *told, proven, *off, str(cut.get("seconds", "–"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--folder", type=Path, required=True, help="keep exports and outcomes there")
    parser.add_argument("--form", choices=FORMS, help="one of the two forms alone")
    parser.add_argument("--no-peers", action="store_true", help="onnxprune alone")
    asked = parser.parse_args()
    from architectures import NAMES

    names = [
        f"{library}:{n}"
        for library in NAMES
        for n in NAMES[library].split()
        if not asked.names or library in asked.names
    ]
    names += [n for n in asked.names if ":" in n]
    for module in {n.partition(":")[0] for n in names} | {
        "onnxprune.cli.entry",
        "onnxruntime",
        "torch.onnx",
        *(() if asked.no_peers else ("torch_pruning", "onnxsim")),
    }:
        importlib.import_module(module)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in names:
        for form in [asked.form] if asked.form else FORMS:
            folder = folder_of(name, asked.folder)
            folder.mkdir(parents=True, exist_ok=True)
            print(f"| {' | '.join(row(name, form, folder, not asked.no_peers))} |", flush=True)


if __name__ == "__main__":
    main()
