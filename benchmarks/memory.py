"""Peak memory of each stage of a whole run with verification, as multiples of the model file (Linux).

    python benchmarks/memory.py [NAME ...] [--gib 1] [--limit BYTES]

Each network is pruned in a process of its own.  "peak" is the largest resident memory in a stage, mapped file pages
included, above what the process had after its imports; --gib makes a network of that size, and --limit bounds the
address space of the whole process (RLIMIT_AS), which is more than a small machine would have of memory.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
DEFAULT = ("resnet50", "vgg19")


def resident(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def run(path: Path, method: str, isolate: bool, limit: int) -> dict[str, float]:
    """Prune, and note the peak between any two reports of progress."""
    import onnxprune
    from onnxprune.runtime.engine import engine

    if not isolate:
        engine()
    peaks: dict[str, float] = {}
    stage = "start"
    imported = resident("VmRSS")
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def progress(what: str, done: int, of: int) -> None:
        nonlocal stage
        peaks[stage] = max(peaks.get(stage, 0), resident("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")
        stage = re.sub(r" of .*", "", what)

    progress("start", 0, 0)
    output = path.with_suffix(".pruned.onnx")
    onnxprune.prune(
        path, output, ratio=0.5, compensate="none", method=method, measure=False, isolate=isolate, progress=progress
    )
    progress("end", 0, 0)
    output.unlink()
    return {"imported": imported, **peaks}


def make(path: Path) -> dict[str, float]:
    """Write the network that the path is named after: one of `networks`, or a plain one of so many MiB."""
    import onnx
    from networks import filled, plain

    mebibytes = re.fullmatch(r"plain(\d+)", path.stem)
    onnx.save(plain(int(mebibytes[1])) if mebibytes else filled(path.stem), path)
    return {}


def child(*arguments: object) -> dict[str, float]:
    """What a fresh process finds."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=None)
    parser.add_argument("--gib", type=float, help="a plain network of this many GiB as well")
    parser.add_argument("--method", default="ncc")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        task, path, *rest = args.child
        done = make(Path(path)) if task == "make" else run(Path(path), rest[0], rest[1] == "True", int(rest[2]))
        print(json.dumps(done))
        return
    names = list(DEFAULT if not args.names and not args.gib else args.names)
    names += [f"plain{round(args.gib * 1024)}"] if args.gib else []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / f"{name}.onnx"
            child("make", path)  # in a child too: a process inherits the peak of the one that starts it
            size, found = path.stat().st_size, child("run", path, args.method, args.isolate, args.limit)
            imported = found.pop("imported")
            figures = ", ".join(f"{stage} {(peak - imported) / size:.2f}" for stage, peak in found.items())
            worst = max(found.values())
            peak = f"peak {worst / size:.2f} (added {(worst - imported) / size:.2f})"
            print(f"{name} {size / 2**20:.0f} MiB: {peak}: {figures}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
