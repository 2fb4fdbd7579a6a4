"""Time and memory of ranking one layer by each method: `python benchmarks/ranking.py [--layer NAME] [--method NAME]`.

Every figure comes from a fresh process that draws the layer's weights, ranks them once and keeps half of the filters.
CPU seconds are those of all threads together; peak memory includes the interpreter and the weights.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from math import prod

import numpy as np

from onnxprune.criteria import METHODS, Filters, method

LAYERS = {
    "2048x4608": (2048, 512, 3, 3),  # the widest 3×3 layer of common networks
    "4096x25088": (4096, 25088),  # the first fully connected layer of VGG
    "512x4608": (512, 512, 3, 3),
    "64x576": (64, 64, 3, 3),
}


def draw(shape: tuple[int, ...]) -> Filters:
    """Filters of this shape, one in eight a scaled copy of another, with scales."""
    generator = np.random.default_rng(0)
    weights = np.empty(shape, np.float32)
    for row in weights.reshape(shape[0], -1):
        generator.standard_normal(row.size, dtype=np.float32, out=row)
    weights[1::8] = weights[0::8] * np.float32(0.9)
    return Filters((weights,), (generator.random(shape[0]),))


def measure(layer: str, name: str) -> dict[str, float]:
    """Seconds and MiB of one ranking and selection, in this process."""
    filters = draw(LAYERS[layer])
    evidence = np.random.default_rng(1).random(filters.channels) if "images" in METHODS[name].needs else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    kept = method(name).select(filters, filters.channels // 2, evidence)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert len(kept) == filters.channels // 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu": cpu, "wall": wall, "peak": peak / 1024, "extra": (peak - before) / 1024}


def main() -> None:
    """Print one line per layer and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", choices=LAYERS, action="append")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--one", nargs=2, metavar=("LAYER", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    print(f"{'layer':12} {'method':10} {'CPU s':>7} {'wall s':>7} {'peak MiB':>9} {'over the weights':>17}")
    for layer in options.layer or LAYERS:
        size = prod(LAYERS[layer]) * 4 / 2**20
        for name in options.method or METHODS:
            command = [sys.executable, __file__, "--one", layer, name]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            times = f"{found['cpu']:7.2f} {found['wall']:7.2f}"
            print(f"{layer:12} {name:10} {times} {found['peak']:9.0f} {found['extra']:+9.0f} of {size:.0f}", flush=True)


if __name__ == "__main__":
    main()
