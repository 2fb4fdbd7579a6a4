"""A long run: python tests/fuzz/run.py --kind bits --count 100000 [--from 0] [--seed s]

Inputs are tried in a process of their own, so that one that ends it (a crash, a hang of ten seconds) is a finding with
a number like any other; `--one NUMBER` tries a single input again, here, and `--keep FILE` writes it.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

BATCH = 2000  # inputs per process


def worker(kind: str, seed: str, first: int, count: int) -> None:
    """Try some inputs; the number of each goes out before it, and what came of it after it."""
    from fuzz.command import Finding, one

    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            print(json.dumps([number, None]), flush=True)
            try:
                outcome = one(kind, f"{seed}/{number}", Path(folder))
            except Finding as error:
                outcome = f"FINDING {error}"
            print(json.dumps([number, outcome]), flush=True)


def watch(kind: str, seed: str, first: int, count: int) -> tuple[int, collections.Counter[str], dict[str, list[int]]]:
    """A worker for a batch, and after a death another one for the rest."""
    outcomes: collections.Counter[str] = collections.Counter()
    findings: dict[str, list[int]] = {}
    number, end = first, first + count
    while number < end:
        command = [sys.executable, __file__, "--kind", kind, "--seed", seed, "--worker", str(number), str(end - number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            lines, errors = child.communicate()
        at, done = number, True
        for line in lines.splitlines():
            at, outcome = json.loads(line)
            done = outcome is not None
            if done and outcome.startswith("FINDING"):
                findings.setdefault(outcome[8:], []).append(at)
            if outcome == "CheckFailed":  # nothing was written; yet a cut that does not hold should not be planned
                findings.setdefault("the proof failed", []).append(at)
            if done:
                outcomes[outcome.split()[0]] += 1
        if not done:
            last = next((x for x in errors.splitlines() if "onnxprune" in x), "").strip()
            findings.setdefault(f"process ended with {child.returncode} {last}", []).append(at)
            outcomes["DEATH"] += 1
        elif not lines:
            raise SystemExit(errors)
        number = at + 1
    return count, outcomes, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="bits", choices=("bits", "structure", "random", "random-damaged", "run"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--one", type=int)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.kind, options.seed, *options.worker)
        return
    if options.one is not None:
        from fuzz.command import make, one

        if options.keep:
            options.keep.write_bytes(make(options.kind, Random(f"{options.kind}/{options.seed}/{options.one}")))
        print(one(options.kind, f"{options.seed}/{options.one}"))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    total: collections.Counter[str] = collections.Counter()
    begun = time.monotonic()
    for start in range(options.first, options.first + options.count, BATCH):
        size = min(BATCH, options.first + options.count - start)
        _, outcomes, findings = watch(options.kind, options.seed, start, size)
        total += outcomes
        print(
            f"{options.kind} {sum(total.values())} inputs, {time.monotonic() - begun:.0f} s: {dict(total)}", flush=True
        )
        for what, numbers in findings.items():
            print(f"  {len(numbers)}x {what}  (--one {numbers[0]})", flush=True)


if __name__ == "__main__":
    main()
