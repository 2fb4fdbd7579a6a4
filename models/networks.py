"""The layers of the networks that ``train.py`` trains: two plain CNNs and a mixed one.

Every convolution is followed by BatchNormalization and has no bias of its own; every network gives ten logits.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, padded to keep the size at stride 1, and its BatchNormalization."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs)))


def plain_cnn(widths: tuple[tuple[int, ...], ...], side: int, hidden: int) -> nn.Sequential:
    """Stages of 3×3 convolutions, each stage ended by a 2×2 maximum, then two fully connected layers.

    ``widths`` has one tuple of filter counts for each stage, ``side`` is the image's height and width in pixels.
    """
    layers: dict[str, nn.Module] = {}
    channels, count = 1, 0
    for stage, filters in enumerate(widths, start=1):
        for width in filters:
            count += 1
            layers[f"conv{count}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"bn{count}"] = nn.BatchNorm2d(width)
            layers[f"relu{count}"] = nn.ReLU()
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
        side //= 2
    layers |= {"flatten": nn.Flatten(), "fc1": nn.Linear(channels * side * side, hidden), "relu_fc1": nn.ReLU()}
    layers |= {"dropout": nn.Dropout(0.3), "fc2": nn.Linear(hidden, 10)}
    return nn.Sequential(OrderedDict(layers))


class Residual(nn.Module):
    """ResNet's basic block; a strided 1×1 convolution on the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.body = nn.Sequential(conv_bn(inputs, outputs, stride=stride), nn.ReLU(), conv_bn(outputs, outputs))
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class GatedDepthwise(nn.Module):
    """MobileNetV3's block: expand by 1×1, filter depthwise, weight the channels by a squeeze-excite gate, project."""

    def __init__(self, channels: int, expanded: int, squeezed: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(conv_bn(channels, expanded, kernel=1), nn.ReLU6())
        self.depthwise = nn.Sequential(conv_bn(expanded, expanded, groups=expanded), nn.ReLU6())
        squeeze = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(expanded, squeezed, 1), nn.ReLU()]
        self.gate = nn.Sequential(*squeeze, nn.Conv2d(squeezed, expanded, 1), nn.Sigmoid())
        self.project = conv_bn(expanded, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        return x + self.project(y * self.gate(y))


class Branches(nn.Module):
    """Three branches side by side, joined by a Concat: 1×1; 1×1 then 3×3; average then 1×1."""

    def __init__(self, inputs: int, point: int, wide: int, pooled: int) -> None:
        super().__init__()
        self.point = conv_bn(inputs, point, kernel=1)
        self.wide = nn.Sequential(conv_bn(inputs, wide, kernel=1), nn.ReLU(), conv_bn(wide, wide))
        self.pooled = nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), conv_bn(inputs, pooled, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(torch.cat([self.point(x), self.wide(x), self.pooled(x)], dim=1))


def digits_mixed() -> nn.Sequential:
    """Residual blocks (identity and projection), a gated depthwise block and a Concat, for 8×8 images."""
    layers = OrderedDict(
        stem=nn.Sequential(conv_bn(1, 32), nn.ReLU()),
        residual=Residual(32, 32),
        projected=Residual(32, 64, stride=2),
        gated=GatedDepthwise(64, expanded=128, squeezed=16),
        branches=Branches(64, point=32, wide=48, pooled=16),
        depthwise=nn.Sequential(conv_bn(96, 96, groups=96), nn.ReLU()),
        pointwise=nn.Sequential(conv_bn(96, 128, kernel=1), nn.ReLU()),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(0.2),
        fc=nn.Linear(128, 10),
    )
    return nn.Sequential(layers)


def digits_cnn() -> nn.Sequential:
    """Four convolutions and two fully connected layers, for 8×8 images."""
    return plain_cnn(((48, 48), (96, 96)), side=8, hidden=64)


def plain_cnn_28() -> nn.Sequential:
    """Four convolutions and two fully connected layers, for 28×28 images (the MNISTs)."""
    return plain_cnn(((32,), (64, 64), (128,)), side=28, hidden=128)


def fold_batchnorm(network: nn.Sequential) -> nn.Sequential:
    """A copy in which each convolution has taken in the BatchNormalization that follows it (evaluation mode)."""
    layers = OrderedDict(network.named_children())
    for name, following in pairwise(list(layers)):
        conv, norm = layers.get(name), layers[following]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[name] = fuse_conv_bn_eval(conv, norm)
            del layers[following]
    return nn.Sequential(layers).eval()
