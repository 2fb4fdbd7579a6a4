"""Whether the surroundings of a run change its bytes: every method, in fresh processes under different conditions.

    python benchmarks/reproducibility.py [--networks NAME ...] [--samples 64]

Prints, for each network and method, how many different outputs there were (1 is what should be) and the first digits
of their sha256.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# (hash seed, threads, name of the file, whether the path is relative to another working directory)
CONDITIONS = (
    ("0", 1, "model", False),
    ("0", 1, "model", False),  # once more
    ("1", 2, "model", False),
    ("2", 16, "model", False),
    ("random", 1, "Anderer Name", False),
    ("random", 16, "model", True),
    ("4294967295", 2, "名前", True),
)


def outputs(source: Path, data: Path, samples: int) -> dict[str, str]:
    """sha256 of the output of every method, in this process; runs with data are verified as well."""
    sys.path.insert(0, str(ROOT))
    import onnxprune
    from onnxprune.criteria.methods import METHODS

    given = {"data": data, "limit": samples}
    options = {
        name: {"method": name, **(given if {"images", "labels"} & set(method.needs) else {})}
        for name, method in METHODS.items()
    }
    options |= {f"{c} after ncc": {"method": "ncc", "compensate": c} for c in ("merge", "ridge", "fold")}
    options |= {"lstsq after ncc": {"method": "ncc", "compensate": "lstsq", **given}}
    options |= {"target macs=0.5": {"target": "macs=0.5"}, "ncc, weights outside": {"save_as_external_data": True}}
    found = {}
    for name, chosen in options.items():
        budget = {} if "target" in chosen else {"ratio": 0.5}
        target = source.parent / "out" / source.name
        target.parent.mkdir()
        onnxprune.prune(source, target, measure=False, verify="data" in chosen, **budget, **chosen)
        digest = hashlib.sha256()
        for path in sorted(target.parent.iterdir(), key=lambda p: p.suffix):  # the data file is named by its content
            digest.update(path.read_bytes())
        found[name] = digest.hexdigest()
        shutil.rmtree(target.parent)
    return found


def child(network: str, samples: int, condition: tuple[str, int, str, bool]) -> dict[str, str]:
    """What a fresh process finds under a condition."""
    seed, threads, name, relative = condition
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        source = Path(folder) / f"{name}.onnx"
        shutil.copy(ROOT / "models" / f"{network}.onnx", source)
        environment = {**os.environ, "PYTHONHASHSEED": seed, **dict.fromkeys(THREADS, str(threads))}
        given = os.path.relpath(source, other) if relative else str(source)
        command = [sys.executable, str(Path(__file__).resolve()), "--child", given, "--samples", str(samples)]
        done = subprocess.run(command, cwd=other, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["digits_cnn", "digits_mixed"])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(outputs(args.child, ROOT / "models" / "digits_sample.npz", args.samples)))
        return
    runs = different = 0
    for network in args.networks:
        found = [child(network, args.samples, condition) for condition in CONDITIONS]
        for name in found[0]:
            digests = [f[name] for f in found]
            runs += len(digests)
            different += len(set(digests)) - 1
            print(f"{network:14} {name:22} {len(set(digests))} of {len(digests)}  {digests[0][:16]}", flush=True)
    print(f"{runs} runs, {different} that differ")


if __name__ == "__main__":
    main()
