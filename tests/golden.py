"""A witness for changes that must change nothing: one line of hashes for each network.

    python tests/golden.py > before.txt         # on the old tree
    python tests/golden.py > after.txt          # on the new one; then compare the two
    python tests/golden.py --fast               # a few of each kind
    python tests/golden.py --match pattern      # those with this in their names

A line holds the name of the network, its groups with their slots, the roles and masked positions of all labels, its
multiply-accumulates, the facts that --lossless knows, and the SHA-256 of the files that `--ratio 0.5`, `--target
macs=0.5` and `--lossless` write.  The hashes depend on the versions of numpy and onnx, so that none are kept here.
"""

import argparse
import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from all_rows import ROWS
from hypothesis import HealthCheck, given, seed, settings
from law import boxes, labelled, lottery, opened
from networks import with_random_weights
from patterns.builder import PATTERNS
from random_networks import networks

import onnxprune
from onnxprune.channels import Dependencies, analyse
from onnxprune.lossless.propagate import Knowledge
from onnxprune.model.network import Network
from onnxprune.surgery import cut, mask

HERE = Path(__file__).parent
LARGEST = 6 << 20  # bytes of a file
RANDOM = 50  # networks
BUDGETS: dict[str, dict[str, Any]] = {
    "ratio": {"ratio": 0.5},
    "target": {"target": "macs=0.5", "method": "ncc"},
    "lossless": {"lossless": True},
}
QUICK = {"compensate": "none", "verify": False, "measure": False}


def digest(*parts: Any) -> str:
    """The first digits of a hash of arrays, bytes and whatever can be printed."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            found.update(part if isinstance(part, bytes) else repr(part).encode())
    return found.hexdigest()[:12]


def written(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def of_analysis(deps: Dependencies) -> dict[str, Any]:
    """What the analysis says: in numbers where they tell something, else in hashes."""
    slots = [(g.name, s.source, s.axis, int(s.role), s.positions.tobytes()) for g in deps.groups for s in g.slots]
    return {
        "groups": f"{len(deps.groups)}/{sum(map(len, deps.groups))}",
        "slots": digest(slots, [g.components.tobytes() for g in deps.groups]),
        "labels": digest(deps.component, deps.roles, deps.zeroed, sorted(deps.unknown.items()), deps.thawed),
        "macs": deps.macs(),
    }


def of_facts(model: onnx.ModelProto, deps: Dependencies) -> str:
    found = Knowledge.of(Network.of(model), deps).facts
    known = {name: f for name, f in found.items() if f is not None}
    return f"{len(known)}/" + digest(*(p for n, f in known.items() for p in (n, f.low, f.high, f.identity, f.scale)))


def of_network(model: onnx.ModelProto, **options: Any) -> dict[str, Any]:
    """The hashes of a whole network."""
    deps = analyse(model, **{k: v for k, v in options.items() if k == "input_shapes"})
    found = of_analysis(deps) | {"facts": of_facts(model, deps)}
    for name, budget in BUDGETS.items():
        try:
            found[name] = digest(written(onnxprune.prune(model, **budget, **QUICK, **options).model))
        except onnxprune.OnnxPruneError as error:
            found[name] = digest(str(error))
    return found


def of_row(case: Any) -> dict[str, Any]:
    """The hashes of one operator among inputs whose axes all have labels."""
    model, data, weights = case.build(0)
    model = opened(model, weights)
    deps, known_zero = labelled(model, data, data if case.zeroed else (), case.heads, case.zeros())
    dead = lottery(deps, np.random.default_rng(0))
    live = digest(*(m for box in boxes(deps, list(deps.values), dead).values() for m in box))
    files = digest(written(cut(model, deps, dead)), written(mask(model, deps, dead)))
    return of_analysis(deps) | {
        "live": live, "known_zero": digest(sorted(known_zero.items())), "files": files, "facts": of_facts(model, deps),
    }  # fmt: skip


def random_models() -> list[onnx.ModelProto]:
    """Random networks, the same ones at each call."""
    found: list[onnx.ModelProto] = []

    @seed(0)
    @settings(max_examples=RANDOM, database=None, suppress_health_check=list(HealthCheck))
    @given(networks(8))
    def collect(model: onnx.ModelProto) -> None:
        found.append(model)

    collect()
    return found[:RANDOM]


def subjects(fast: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names, and what gives the hashes."""
    for k, case in enumerate(ROWS):
        if not fast or k % 4 == 0:
            yield f"row {k} {case}", lambda case=case: of_row(case)
    for name in sorted(PATTERNS)[:: 16 if fast else 1]:
        model, run = PATTERNS[name].model(2), PATTERNS[name].run
        yield f"pattern {name}", lambda model=model, run=run: of_network(model, input_shapes={"x": run})
    for k, model in enumerate(random_models()[: 6 if fast else RANDOM]):
        yield f"random {k}", lambda model=model: of_network(model)
    light = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
    shared = sorted((HERE.parent.parent / "shared" / "models").glob("*.onnx"))
    for path in [*sorted((HERE.parent / "models").glob("*.onnx")), *sorted((HERE / "exports").glob("*.onnx")), *shared]:
        if path.stat().st_size < (LARGEST >> 4 if fast else LARGEST):
            yield path.stem, lambda path=path: of_network(with_random_weights(onnx.load(path)))
    for path in () if fast else light:
        yield path.stem, lambda path=path: of_analysis(analyse(onnx.load(path)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a few of each kind")
    parser.add_argument("--match", default="", metavar="TEXT", help="only names with this in them")
    warnings.simplefilter("ignore")
    told = parser.parse_args()
    for name, hashes in subjects(told.fast):
        if told.match not in name:
            continue
        try:
            line = hashes()
        except Exception as error:  # a witness of what fails, too
            line = {"error": f"{type(error).__name__} {digest(str(error))}"}
        print(name, *(f"{k}={v}" for k, v in line.items()), flush=True)


if __name__ == "__main__":
    main()
