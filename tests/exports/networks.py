"""Small PyTorch networks whose exports the tests prune; see make.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Recurrent(nn.Module):
    def __init__(self, kind: str, both: bool) -> None:
        super().__init__()
        self.first = nn.Linear(10, 24)
        self.layers = getattr(nn, kind)(24, 20, 2, batch_first=True, bidirectional=both)
        self.last = nn.Sequential(nn.Linear(40 if both else 20, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(F.relu(self.first(x)))[0])


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 24)
        self.layer = nn.LSTM(24, 20, batch_first=True, bidirectional=True)
        self.last = nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.layer(self.words(x))
        return self.last(torch.cat([h[-2], h[-1]], 1))


class TextReader(nn.Module):
    """Columns of a feature map as steps."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
        )
        self.layer, self.last = nn.GRU(24 * 8, 20, bidirectional=True), nn.Linear(40, 11)

    def forward(self, x: Tensor) -> Tensor:
        y = self.maps(x)
        n, c, h, w = y.shape
        return self.last(self.layer(y.reshape(n, c * h, w).permute(2, 0, 1))[0])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention, self.last = (
            nn.Linear(12, 32),
            nn.MultiheadAttention(32, 4, batch_first=True),
            nn.Linear(32, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y + self.attention(y, y, y, need_weights=False)[0])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(self.first(x)))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 64, batch_first=True), 1)
        self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.last(self.layers(self.first(x), self.first(memory)))


class SharedKeys(nn.Module):
    """A block with rotary positions, eight query heads, two heads of keys and values, and a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (
            nn.Linear(32, 64, bias=False),
            nn.Linear(32, 16, bias=False),
            nn.Linear(32, 16, bias=False),
        )
        self.o, self.up, self.gate = (
            nn.Linear(64, 32, bias=False),
            nn.Linear(32, 64, bias=False),
            nn.Linear(32, 64, bias=False),
        )
        self.down, self.scale = nn.Linear(64, 32, bias=False), nn.Parameter(torch.rand(32))

    def norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y = self.norm(x)
        q, k, v = (f(y).view(n, t, -1, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        angle = torch.arange(t, dtype=torch.float32)[:, None] * (1.0 / 10 ** torch.arange(4))[None]
        cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
        q, k = (z * cos + torch.cat([-z[..., 4:], z[..., :4]], -1) * sin for z in (q, k))
        k, v = (z[:, :, None].expand(n, 2, 4, t, 8).reshape(n, 8, t, 8) for z in (k, v))
        mixed = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(n, t, -1))
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Unit(nn.Module):
    def __init__(self, cin: int, cout: int, k: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(cin, cout, k, stride, k // 2, bias=False), nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))


class C2f(nn.Module):
    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        c = cout // 2
        self.first, self.last = Unit(cin, cout), Unit(4 * c, cout)
        self.blocks = nn.ModuleList(nn.Sequential(Unit(c, c, 3), Unit(c, c, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """Two scales with C2f blocks, pooling pyramid, and box distributions that an integral reads."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(Unit(3, 16, 3, 2), Unit(16, 32, 3, 2), C2f(32, 32))
        self.high = nn.Sequential(Unit(32, 64, 3, 2), C2f(64, 64))
        self.squeeze, self.pool, self.mix = Unit(64, 32), nn.MaxPool2d(5, 1, 2), Unit(128, 64)
        self.joined = C2f(96, 32)
        self.heads = nn.ModuleList(nn.Sequential(Unit(c, 16, 3), nn.Conv2d(16, 68, 1)) for c in (32, 64))
        self.integral = nn.Conv2d(16, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        pooled = [self.squeeze(self.high(low))]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        high = self.mix(torch.cat(pooled, 1))
        low = self.joined(torch.cat([F.interpolate(high, scale_factor=2.0), low], 1))
        both = torch.cat([head(y).flatten(2) for head, y in zip(self.heads, (low, high), strict=True)], 2)
        box, score = both.split((64, 4), 1)
        n, _, count = box.shape
        box = self.integral(box.view(n, 4, 16, count).transpose(2, 1).softmax(1)).view(n, 4, count)
        return torch.cat([box, score.sigmoid()], 1)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def double(a: int, b: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU()
            )

        self.a, self.b, self.c, self.d, self.e = (
            double(3, 16),
            double(16, 32),
            double(32, 64),
            double(64, 32),
            double(32, 16),
        )
        self.up, self.top, self.last = (
            nn.ConvTranspose2d(64, 32, 2, 2),
            nn.ConvTranspose2d(32, 16, 2, 2),
            nn.Conv2d(16, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([F.interpolate(self.up(c), size=b.shape[2:]), b], 1))
        return self.last(self.e(torch.cat([self.top(d), a], 1)))


class Halves(nn.Module):
    """Shuffle units that take even and odd channels instead of shuffling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 5)
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 1),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1, groups=16),
                nn.Conv2d(16, 16, 1),
                nn.ReLU(),
            )
            for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        for unit in self.units:
            n, c, h, w = y.shape
            z = y.reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
            y = torch.cat([z[0], unit(z[1])], 1)
        return self.last(y.mean((2, 3)))


class Gates(nn.Module):
    """Attention over channels and over places, behind convolutions that these do not hold up."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.place = (
            nn.Conv2d(3, 24, 3, padding=1),
            nn.Conv2d(24, 32, 3, padding=1),
            nn.Conv2d(2, 1, 7, padding=3),
        )
        self.channel = nn.Sequential(nn.Linear(24, 6), nn.ReLU(), nn.Linear(6, 24))
        self.last = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        y = y * torch.sigmoid(self.channel(y.mean((2, 3))) + self.channel(y.amax((2, 3))))[:, :, None, None]
        y = F.relu(self.b(y))
        return self.last(y * torch.sigmoid(self.place(torch.cat([y.mean(1, True), y.amax(1, True)], 1))))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, 16),
        )
        self.last = nn.Linear(16, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last((self.branch(a) - self.branch(b)).abs())


def super_resolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.PixelShuffle(2),
        nn.PReLU(16),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 4, 3, padding=1),
        nn.PixelShuffle(2),
    )


def folded() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.PixelUnshuffle(2),
        nn.Conv2d(64, 24, 3, padding=1),
        nn.GroupNorm(8, 24),
        nn.SiLU(),
        nn.Conv2d(24, 8, 3),
        nn.InstanceNorm2d(8, affine=True),
        nn.LeakyReLU(),
        nn.Conv2d(8, 3, 1),
    )


def generator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 1024),
        nn.Unflatten(1, (64, 4, 4)),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 4, 2, 1),
        nn.Tanh(),
    )
