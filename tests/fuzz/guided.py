"""Fuzzing guided by coverage, with atheris (the extra `fuzz`): python tests/fuzz/guided.py CORPUS -runs=100000

libFuzzer changes the bytes of models, keeps those that reach new lines of onnxprune, and goes on from there: through
the reader, the analysis and the surgery.  CORPUS is a folder, which is filled with the small models of the onnx wheel
if it is empty; all other arguments are libFuzzer's own.
"""

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
LARGEST = 4096  # bytes of a model to start from

with atheris.instrument_imports(include=["onnxprune"], enable_loader_override=False):
    import onnxprune.channels
    import onnxprune.model
    import onnxprune.surgery


def try_one(data: bytes) -> None:
    """Read, analyse, cut; all that may come of it besides is a refusal in one printable line."""
    from networks import random_dead

    try:
        model = onnxprune.model.load(data).proto
        deps = onnxprune.channels.analyse(model)
        dead = random_dead(deps, 0.5, seed=0)
        onnxprune.surgery.cut(model, deps, dead)
        onnxprune.surgery.mask(model, deps, dead)
    except onnxprune.OnnxPruneError as error:
        if not str(error).isprintable():
            raise AssertionError(f"a message that is not one printable line: {error!r}") from error


def fill(folder: Path) -> None:
    """Small models to start from."""
    from fuzz import corpus

    folder.mkdir(exist_ok=True)
    if not any(folder.iterdir()):
        found = [*corpus.node_tests(), *(corpus.read(path) for path in corpus.files())]
        for number, data in enumerate(data for data in found if len(data) <= LARGEST):
            (folder / f"{number}.onnx").write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and not Path(sys.argv[1]).is_file():
        fill(Path(sys.argv[1]))
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
