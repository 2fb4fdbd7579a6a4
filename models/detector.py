"""Train a small detector of digits in scenes and export it to ONNX, with the output that YOLOv8 and its kin have.

    python models/detector.py

Needs the extra ``models`` (torch, scikit-learn); the digits come with scikit-learn. Writes ``digits_detector.onnx`` and
``digits_scenes.npz``: ``image``, scenes of digits that no training saw (split as in ``train.py``), and ``labels``,
scenes × 3 × 5: x1, y1, x2, y2 in pixels and the digit of each object; -1 where there are fewer.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import onnx
import torch
from networks import Residual, conv_bn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from train import DIGITS_HELD_OUT, HERE, OPSET, SEED

SIDE, STRIDE, CLASSES, OBJECTS = 32, 4, 10, 3  # pixels of a scene, of a cell; digits; objects in a scene, at most
CELLS = SIDE // STRIDE
STEPS, BATCH, RATE = 600, 32, 5e-3
SCENES = 200  # that are written


# ---- scenes


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's digits (N × 8 × 8, in [0, 1]) and their values, in a training and a held-out part."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32).reshape(-1, 8, 8)
    a, b, c, d = train_test_split(x, y, test_size=DIGITS_HELD_OUT, stratify=y, random_state=SEED)
    return (a, c), (b, d)


def scene(images: np.ndarray, values: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(SIDE, SIDE) one to three digits of 9 to 14 pixels on a noisy ground, and (OBJECTS, 5) what they are."""
    picture = np.full((SIDE, SIDE), random.uniform(0, 0.3), np.float32)
    objects, taken = np.full((OBJECTS, 5), -1, np.float32), np.zeros((SIDE, SIDE), bool)
    for k in range(random.integers(1, OBJECTS + 1)):
        chosen, size = random.integers(len(images)), int(random.integers(9, 15))
        x, y = random.integers(0, SIDE - size + 1, 2)
        box = np.s_[y : y + size, x : x + size]
        if taken[box].any():
            continue
        small = torch.from_numpy(images[chosen])[None, None]
        grown = functional.interpolate(small, (size, size), mode="bilinear")[0, 0].numpy()
        picture[box] = np.maximum(picture[box], grown * random.uniform(0.6, 1))
        taken[box], objects[k] = True, (x, y, x + size, y + size, values[chosen])
    picture += random.normal(0, 0.04, picture.shape).astype(np.float32)
    return np.clip(np.rint(picture * 31) / 31, 0, 1).astype(np.float32), objects


def scenes(part: tuple[np.ndarray, np.ndarray], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 1, SIDE, SIDE) and (count, OBJECTS, 5)."""
    random = np.random.default_rng(seed)
    pictures, objects = zip(*(scene(*part, random) for _ in range(count)), strict=True)
    return np.stack(pictures)[:, None], np.stack(objects)


# ---- the network


class Split(nn.Module):
    """C2f, the block of YOLOv8: half of the channels pass a residual block, and all that there is is joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Sequential(conv_bn(channels, channels, kernel=1), nn.ReLU())
        self.block = Residual(channels // 2, channels // 2)
        self.after = nn.Sequential(conv_bn(3 * channels // 2, channels, kernel=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.before(x).chunk(2, dim=1)
        return self.after(torch.cat([one, two, self.block(two)], dim=1))


class Detector(nn.Module):
    """Two scales, joined by upsampling and Concat; a head for boxes and one for classes.

    ``image`` (N × 1 × SIDE × SIDE) → (N × 14 × 64): centre, width and height in pixels, then a probability for each
    digit, at every cell. Non-maximum suppression is left to the caller, as in most exports.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 16, stride=2), nn.ReLU(), conv_bn(16, 32, stride=2), nn.ReLU(), Split(32))
        self.deep = nn.Sequential(conv_bn(32, 64, stride=2), nn.ReLU(), Split(64))
        self.join = nn.Sequential(conv_bn(32 + 64, 48, kernel=1), nn.ReLU(), Split(48))
        self.boxes = nn.Sequential(conv_bn(48, 32), nn.ReLU(), nn.Conv2d(32, 4, 1))
        self.classes = nn.Sequential(conv_bn(48, 48), nn.ReLU(), nn.Conv2d(48, CLASSES, 1))
        nn.init.constant_(self.classes[-1].bias, -4.0)  # most cells hold nothing
        cells = torch.arange(CELLS) * STRIDE + STRIDE / 2
        centres = torch.stack(torch.meshgrid(cells, cells, indexing="xy")).reshape(1, 2, -1)
        self.register_buffer("centres", centres, persistent=False)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 4, cells) boxes in pixels, and (N, CLASSES, cells) logits."""
        fine = self.stem(x)
        coarse = functional.interpolate(self.deep(fine), scale_factor=2.0, mode="nearest")
        joined = self.join(torch.cat([fine, coarse], dim=1))
        offsets, sizes = self.boxes(joined).flatten(2).chunk(2, dim=1)
        boxes = torch.cat([self.centres + offsets * STRIDE, torch.exp(sizes) * 11.0], dim=1)
        return boxes, self.classes(joined).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        boxes, logits = self.raw(x)
        return torch.cat([boxes, torch.sigmoid(logits)], dim=1)


# ---- training


def loss(network: Detector, pictures: Tensor, objects: Tensor) -> Tensor:
    """The cell of a centre learns the class, it and its neighbours the box; the neighbours' classes do not count."""
    boxes, logits = network.raw(pictures)
    scene_of, which = (objects[..., 4] >= 0).nonzero(as_tuple=True)
    x1, y1, x2, y2, digit = objects[scene_of, which].T
    wanted = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)  # objects × 4
    gap = (network.centres[0].T[None] - wanted[:, None, :2]).abs().amax(-1)  # objects × cells
    own, near = gap.argmin(1), gap <= 1.5 * STRIDE
    truth, counts = torch.zeros_like(logits), torch.ones(len(pictures), logits.shape[2])
    counts.index_put_((scene_of.repeat_interleave(near.sum(1)), near.nonzero()[:, 1]), torch.tensor(0.0))
    counts[scene_of, own] = 1.0
    truth[scene_of, digit.long(), own] = 1.0
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = entropy * (truth - torch.sigmoid(logits)).abs() ** 2  # Lin et al. 2017, arXiv:1708.02002
    kind, cell = near.nonzero(as_tuple=True)
    distance = functional.smooth_l1_loss(boxes[scene_of[kind], :, cell], wanted[kind])
    return 10 * (focal * counts[:, None]).sum() / len(own) + distance


def train(part: tuple[np.ndarray, np.ndarray]) -> Detector:
    """A trained detector in evaluation mode; AdamW and one cycle of the rate."""
    torch.manual_seed(SEED)
    network = Detector().train()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for step in range(STEPS):
        pictures, objects = scenes(part, BATCH, SEED + 1 + step)
        found = loss(network, torch.from_numpy(pictures), torch.from_numpy(objects))
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  step {step + 1}/{STEPS}: loss {found.item():.3f}", flush=True)
    return network.eval()


def export(network: Detector) -> onnx.ModelProto:
    """The network as ONNX with a free batch axis; torch folds BatchNormalization into the convolutions."""
    buffer = io.BytesIO()
    names = {"input_names": ["image"], "output_names": ["output0"]}
    axes = {name: {0: "N"} for name in ("image", "output0")}
    example = (torch.zeros(1, 1, SIDE, SIDE),)
    torch.onnx.export(network, example, buffer, dynamic_axes=axes, opset_version=OPSET, dynamo=False, **names)
    model = onnx.load_from_string(buffer.getvalue())
    model.graph.name = "main_graph"
    for axis, length in enumerate((4 + CLASSES, CELLS**2), 1):  # which torch has lost on the way
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = length
    model.doc_string = f"detector of digits; image: grey levels scaled to [0, 1], N×1×{SIDE}×{SIDE}"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the detector of this folder and export it to ONNX.")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where the files go (default: here)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads; the weights' last bits depend on it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    learnt, held_out = digits()
    model = export(train(learnt))
    (options.out / "digits_detector.onnx").write_bytes(model.SerializeToString(deterministic=True))
    pictures, objects = scenes(held_out, SCENES, SEED)
    np.savez_compressed(options.out / "digits_scenes.npz", image=pictures, labels=objects)


if __name__ == "__main__":
    main()
