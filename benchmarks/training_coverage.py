"""How many networks torch trains from their files.

    python benchmarks/training_coverage.py [--steps 20] [--samples 2] FILE_OR_FOLDER ...

Of every network: whether it equals onnxruntime on drawn inputs, whether every weight that a gradient can reach gets
one, whether the loss of a copy with slightly moved weights against the original falls in 20 steps down the gradient
(half of Polyak's step, 1987: loss / |gradient|²), and whether the file comes back with the same graph, equal to torch
when onnxruntime runs it.  Needs the extra `train`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch

from onnxprune.errors import OnnxPruneError
from onnxprune.model import load
from onnxprune.model.graphs import tensors_of
from onnxprune.model.network import Network
from onnxprune.operators.arrays import FLOATS, from_array
from onnxprune.operators.registry import Shape
from onnxprune.runtime.inputs import NORMAL, PIXELS, POSITIVE, random_inputs
from onnxprune.runtime.resolve import resolve_shapes
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.specs import Feed
from onnxprune.training.agree import agreement, quantises
from onnxprune.training.module import TorchModule

COLUMNS = "network|operators|weights|with a gradient|other floats|error|loss|after|s per step".split("|")
MOVED = 0.02  # of the standard deviation of a weight


def row(path: Path, steps: int, samples: int) -> tuple[str, ...]:
    """Figures of one network, in the order of the columns.  Raises OnnxPruneError with why it cannot be trained."""
    model = load(path).proto
    session = make_session(model, providers="cpu")
    shapes = resolve_shapes(session)
    feeds = next(filter(None, (drawn(session, shapes, samples, kind) for kind in (NORMAL, POSITIVE, PIXELS))), None)
    if feeds is None:
        raise OnnxPruneError("its outputs do not vary on drawn inputs")
    network = TorchModule.of(model)
    error = max(agreement(network, model, feeds).values())
    losses, spent = descended(network, feeds, steps)
    got = sum(p.grad is not None for p in network.parameters())
    trained = network.written(Network.of(model)).proto()
    if skeleton(trained, set(network.weights)) != skeleton(model, set(network.weights)):
        raise OnnxPruneError("the graph came back changed")
    agreement(network, trained, feeds, None if quantises(network) else 1e-2)  # weights of half precision are rounded
    if not losses[-1] < losses[0]:
        raise OnnxPruneError(f"the loss rose from {losses[0]:.3g} to {losses[-1]:.3g}")
    operators = len({(n.domain, n.op_type) for n in model.graph.node})
    floats = {key for key, tensor in tensors_of(model).items() if tensor.data_type in FLOATS}
    frozen = len(floats & network.frozen.keys())
    return (
        path.stem, str(operators), str(len(network.weights)), str(got), str(frozen), f"{error:.0e}", f"{losses[0]:.2g}",
        f"{losses[-1]:.2g}", f"{spent:.2f}",
    )  # fmt: skip


def descended(network: TorchModule, feeds: list[Feed], steps: int) -> tuple[list[float], float]:
    """Move the weights and go down the gradient: the loss before each step and in the end, and seconds a step."""
    inputs = [{name: from_array(x) for name, x in feed.items()} for feed in feeds]
    with torch.no_grad():
        wanted = [network(x, network.ends) for x in inputs]
        torch.manual_seed(0)
        for weight in network.parameters():
            weight += MOVED * weight.std(correction=0) * torch.randn_like(weight)

    def loss() -> torch.Tensor:
        total = torch.zeros(())
        for x, right in zip(inputs, wanted, strict=True):
            found = network(x, network.ends)
            for name in network.ends:
                scale = right[name].double().square().mean().clamp(min=1e-20)
                total = total + ((found[name].double() - right[name]).square().mean() / scale).float()
        return total / len(inputs)

    losses, started = list[float](), time.perf_counter()
    for _ in range(steps):
        network.zero_grad()
        value = loss()
        value.backward()
        losses.append(float(value.detach()))
        with torch.no_grad():
            moved = [weight for weight in network.parameters() if weight.grad is not None]
            length = losses[-1] / max(1e-30, sum(float(weight.grad.square().sum()) for weight in moved)) / 2
            for weight in moved:
                weight -= length * weight.grad
    spent = (time.perf_counter() - started) / steps
    with torch.no_grad():
        return [*losses, float(loss())], spent


def drawn(session: Session, shapes: dict[str, Shape], samples: int, kind: str) -> list[Feed] | None:
    """Random inputs of a kind; None where the outputs are no numbers, or always the same."""
    feeds = random_inputs(session.inputs, shapes, count=samples + 1, kind=kind)
    one, other = session.run(feeds[0]), session.run(feeds[-1])
    finite = all(np.isfinite(x).all() for x in one.values())
    return feeds[:samples] if finite and any(not np.array_equal(x, other[name]) for name, x in one.items()) else None


def skeleton(model: onnx.ModelProto, keys: set[str]) -> bytes:
    """The model without the elements of these tensors."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for key, tensor in tensors_of(copy).items():
        if key in keys:
            for field in ("raw_data", "float_data", "int32_data", "double_data"):
                tensor.ClearField(field)
    return copy.SerializeToString(deterministic=True)


def networks(paths: list[Path]) -> Iterator[Path]:
    """Files, and those in folders."""
    for path in paths:
        yield from sorted(path.glob("*.onnx")) if path.is_dir() else [path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2)
    asked = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    done = total = 0
    for path in networks(asked.paths):
        total += 1
        try:
            print(f"| {' | '.join(row(path, asked.steps, asked.samples))} |", flush=True)
            done += 1
        except OnnxPruneError as error:
            print(f"| {path.stem} | {error} |", flush=True)
    print(f"\n{done} of {total} train")


if __name__ == "__main__":
    main()
