"""Train the small networks of this folder and export them to ONNX.

    python models/train.py                                  # all four
    python models/train.py digits_cnn digits_mixed          # these two; scikit-learn's digits alone, nothing to fetch
    python models/train.py mnist_cnn --data DIR --out DIR

Needs the extra ``models`` (torch, scikit-learn). DIR holds ``mnist_train.npz``, ``mnist_test.npz``,
``fashion_mnist_train.npz`` and ``fashion_mnist_test.npz``, each with ``x`` (N×28×28, uint8) and ``y`` (N labels).
The weights after the last epoch are the ones exported: no epoch is chosen by the held-out images.
"""

import argparse
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from networks import digits_cnn, digits_mixed, fold_batchnorm, plain_cnn_28
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
SEED = 0
OPSET = 17
PEAK_RATE = 0.1  # of the one-cycle schedule
DIGITS_HELD_OUT = 500  # of 1,797; a step of 0.2 points in the accuracy
TOLERANCE = 1e-4  # largest difference between torch's and onnxruntime's logits, absolute plus relative


@dataclass(frozen=True)
class Images:
    """Images (N×1×H×W, float32 in [0, 1]) and labels (N, int64), in a training and a held-out part."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True)
class Recipe:
    """How one network is made: its images, layers, schedule and the form of its export."""

    about: str
    images: Callable[[Path], Images]
    network: Callable[[], nn.Sequential]
    epochs: int
    batch: int
    weight_decay: float  # strong in the plain networks, so that filters the task can spare fade
    shift: int  # pixels that a batch is moved by, at most, in each direction
    flip: bool  # mirror half of the images left to right
    fold: bool  # BatchNormalization folded into the Conv before it


# ---- images


def digits_images(_data: Path) -> Images:
    """scikit-learn's 8×8 digits (grey levels 0 to 16, divided by 16), a stratified part of them held out."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    train_x, test_x, train_y, test_y = train_test_split(
        x, y.astype(np.int64), test_size=DIGITS_HELD_OUT, stratify=y, random_state=SEED
    )
    return Images(*map(torch.from_numpy, (train_x, train_y, test_x, test_y)))


def npz_images(prefix: str) -> Callable[[Path], Images]:
    """A reader of ``prefix_train.npz`` and ``prefix_test.npz`` (grey levels 0 to 255, divided by 255)."""

    def read(data: Path) -> Images:
        parts: list[Tensor] = []
        for split in ("train", "test"):
            with np.load(data / f"{prefix}_{split}.npz", allow_pickle=False) as file:
                parts.append(torch.from_numpy(file["x"].astype(np.float32)[:, None] / 255.0))
                parts.append(torch.from_numpy(file["y"].astype(np.int64)))
        return Images(*parts)

    return read


RECIPES = {
    "digits_cnn": Recipe(
        about="plain CNN, scikit-learn's digits",
        images=digits_images,
        network=digits_cnn,
        epochs=60,
        batch=64,
        weight_decay=1.5e-2,
        shift=1,
        flip=False,
        fold=True,
    ),
    "digits_mixed": Recipe(
        about="residual, depthwise, squeeze-excite and Concat, scikit-learn's digits",
        images=digits_images,
        network=digits_mixed,
        epochs=60,
        batch=64,
        weight_decay=5e-4,
        shift=1,
        flip=False,
        fold=False,
    ),
    "mnist_cnn": Recipe(
        about="plain CNN, MNIST",
        images=npz_images("mnist"),
        network=plain_cnn_28,
        epochs=5,
        batch=128,
        weight_decay=1e-2,
        shift=2,
        flip=False,
        fold=True,
    ),
    "fashion_mnist_cnn": Recipe(
        about="plain CNN, Fashion-MNIST",
        images=npz_images("fashion_mnist"),
        network=plain_cnn_28,
        epochs=7,
        batch=128,
        weight_decay=5e-3,
        shift=1,
        flip=True,
        fold=True,
    ),
}


# ---- training


def augment(x: Tensor, recipe: Recipe, random: torch.Generator) -> Tensor:
    """Move a batch (N×1×H×W) by whole pixels, zeros coming in, and mirror half of it where the recipe says so."""
    if recipe.shift:
        down, right = torch.randint(0, 2 * recipe.shift + 1, (2,), generator=random).tolist()
        height, width = x.shape[2:]
        x = functional.pad(x, [recipe.shift] * 4)[:, :, down : down + height, right : right + width]
    if recipe.flip:
        mirrored = torch.rand(len(x), 1, 1, 1, generator=random) < 0.5
        x = torch.where(mirrored, x.flip(3), x)
    return x


def train(recipe: Recipe, images: Images) -> nn.Sequential:
    """A trained network in evaluation mode: SGD with Nesterov momentum, one cycle of the learning rate."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    network = recipe.network().train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=PEAK_RATE, momentum=0.9, weight_decay=recipe.weight_decay, nesterov=True
    )
    steps = len(images.train_x) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, epochs=recipe.epochs, steps_per_epoch=steps)
    for epoch in range(recipe.epochs):
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images.train_x), generator=random)[: steps * recipe.batch]
        for chosen in order.view(steps, recipe.batch):
            logits = network(augment(images.train_x[chosen], recipe, random))
            loss = functional.cross_entropy(logits, images.train_y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        print(f"  epoch {epoch + 1}/{recipe.epochs}: loss {total / steps:.4f}, {seconds:.1f} s", flush=True)
    return network.eval()


# ---- export


def export(network: nn.Sequential, recipe: Recipe, example: Tensor) -> onnx.ModelProto:
    """The network as ONNX, input ``image`` and output ``logits`` with a free batch axis.

    torch's own notes (stack traces, and with them the paths of the machine that exported) are taken out.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the TorchScript exporter is meant
        torch.onnx.export(
            fold_batchnorm(network) if recipe.fold else network,
            (example,),
            buffer,
            input_names=["image"],
            output_names=["logits"],
            training=torch.onnx.TrainingMode.PRESERVE,  # evaluation mode, with BatchNormalization left as it is
            do_constant_folding=False,
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    del model.metadata_props[:]
    model.graph.name = "main_graph"
    model.doc_string = f"{recipe.about}; image: grey levels scaled to [0, 1], N×{'×'.join(map(str, example.shape[1:]))}"
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(path: Path, network: nn.Module, images: Images) -> float:
    """Share of the held-out images that onnxruntime classifies rightly from the file at ``path``.

    Raises SystemExit where its logits differ from torch's by more than TOLERANCE.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    right = 0
    for x, y in zip(images.test_x.split(500), images.test_y.split(500), strict=True):
        logits = session.run(["logits"], {"image": x.numpy()})[0]
        with torch.inference_mode():
            expected = network(x).numpy()
        if not np.allclose(logits, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise SystemExit(f"{path}: onnxruntime's logits differ from torch's by {abs(logits - expected).max():.2g}")
        right += int((logits.argmax(1) == y.numpy()).sum())
    return right / len(images.test_y)


def make(name: str, data: Path, out: Path) -> None:
    """Train, export, measure and print one network's line of the README's table."""
    recipe = RECIPES[name]
    print(f"{name}: {recipe.about}", flush=True)
    images = recipe.images(data)
    network = train(recipe, images)
    model = export(network, recipe, images.test_x[:2])
    path = out / f"{name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    if name == "digits_cnn":
        np.savez_compressed(out / "digits_sample.npz", image=images.test_x.numpy(), labels=images.test_y.numpy())
    parameters = sum(int(np.prod(weight.dims)) for weight in model.graph.initializer)
    share = accuracy(path, network, images)
    print(f"| {path.name} | {recipe.about} | {parameters:,} | {path.stat().st_size / 1024:,.0f} KiB | {share:.2%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train this folder's networks and export them to ONNX.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(RECIPES)} (default: all)")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data", metavar="DIR")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where the files go (default: here)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads; the weights' last bits depend on it")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(RECIPES)):
        parser.error(f"no network named {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    for name in options.names or RECIPES:
        try:
            make(name, options.data, options.out)
        except FileNotFoundError as error:
            parser.error(f"{name}: {error.filename} is missing; name the folder with --data")


if __name__ == "__main__":
    main()
