"""Convolutions: they write one set of channels and read another, by filters that slide over maps.

Transposed ones spread each element over an area by filters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.operators.activations import bound_fused, fused, zero_behind
from onnxprune.operators.broadcast import added
from onnxprune.operators.facts import Facts, NothingKnown, aligned, expanded, facts, known, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Kind, Labels, fixed, is_fixed, line, repeated
from onnxprune.operators.lazy_torch import Tensor, functional
from onnxprune.operators.op import Op
from onnxprune.operators.patches import linear_conv, linear_conv_transpose, padding
from onnxprune.operators.registry import Alike, Attributes, Taken, Trait, define, has
from onnxprune.operators.roles import NOT_ZERO, ZeroWhereDead
from onnxprune.operators.site import Site
from onnxprune.operators.sums import bias_of, layer, touches_padding
from onnxprune.operators.value_numbers import mix, tolerance
from onnxprune.operators.written import with_activation
from onnxprune.operators.zeros import in_place, made

MOST_SAMPLES = 64  # that are told apart where the batch is of a known size
SLIDES = "slides its kernel over it"
Over = Callable[..., None]  # (op, labels, why): what is stated of channels that a kernel slides over


def convolve(op: Op, x: Axes, w: Axes, follow: tuple[Axes | None, ...], group: int, over: Over = Op.statistics) -> Axes:
    """Couplings of a convolution with weights (out, in / group, ...): by index inside every group, or whole groups.

    over: by default these are a statistic; what states otherwise has a repair.
    """
    op.freeze(*w[2:], why=SLIDES)
    maps = slid(op, x, w, over)
    reads, writes = x[1].reshape(group, -1), w[0].reshape(group, -1)
    op.writes(w[0])
    if reads.shape[1] == 1 < group:  # depthwise: a group is one channel
        op.tie(reads, writes)
        op.follows(w[0])
    elif op.coupling.node in op.coupling.chosen.whole:
        op.freeze(w[1], why="loses whole groups")
        op.tie(reads[:, :1], reads, writes)
        op.follows(w[0])
    else:
        weight, data = op.factors[1], op.factors[0]
        shared = Kind.BALANCES if group > 1 else Kind.PLAIN
        op.contract(np.broadcast_to(w[1], reads.shape), reads, op.weights[weight] or op.zero_inputs[data], shared)
        if group > 1:
            op.balance(reads, weight, 1)
            op.balance(writes, weight)
        op.reads(w[1])
    for b in follow:
        if b is not None:
            op.tie(w[0], *b)
            op.adds(*b)
    counted = (fixed(m.size) if k.size > 1 and not op.thawed else m for k, m in zip(w[2:], maps, strict=True))
    op.macs(math.prod(k.size for k in w[2:]), x[0], w[0], w[1], *counted)
    return (x[0], w[0], *maps)


def slid(op: Op, x: Axes, w: Axes, over: Over) -> Axes:
    """The axes behind the channels after a kernel has slid over them: those that it leaves as they are pass.

    A kernel that slides over channels and keeps their number (ECA, arXiv:1910.03151) mixes neighbours, of which `over`
    is told: where some go, the others have new ones, unless these are kept apart.
    """
    axes: list[Labels] = []
    steps, pads = op.attributes.get("strides") or [1] * len(w), op.attributes.get("pads") or [0] * 2 * len(w)
    for j, (labels, size, taps) in enumerate(zip(x[2:], op.shape_out()[2:], w[2:], strict=True)):
        moved = labels.size != size or steps[j] != 1 or (taps.size == 1 and pads[j])
        if is_fixed(labels) or moved or op.open_in(op.factors[0], j + 2):
            op.freeze(labels, why=SLIDES)
            labels = fixed(size)
        elif taps.size > 1:
            over(op, labels, why=SLIDES)
        axes.append(labels)
    return tuple(axes)


def conv(op: Op, x: Axes, w: Axes, b: Axes | None = None, *, group: int = 1, **_: Any) -> Axes:
    return convolve(op, x, w, (b,), group, in_place)


def zero_conv(op: Op) -> ZeroWhereDead:
    """Channels that a kernel slides over have something of their neighbours."""
    value, w = op.results[0], op.values[1]
    kernel = w.shape if w is not None else ()
    slides = any(n > 1 and not is_fixed(x) for n, x in zip(kernel[2:], value.axes[2:], strict=False))
    return NOT_ZERO if slides else made(2)(op)


def depthwise(taken: Taken, weight: int = 1) -> bool:
    """Whether each group is one channel."""
    shape, group = taken.shapes[weight], taken.attributes.get("group", 1)
    return shape is not None and group > 1 and shape[1] == 1


def repair_groups(edit: Any, group: int = 1, weight: int = 1, **_: Any) -> None:
    """As many groups as the channels that stay fill."""
    if group > 1:
        edit.set_attribute("group", edit.count_in(0, 1) // edit.count_in(weight, 1))


def repair_in_place(edit: Any, group: int = 1, **_: Any) -> None:
    repair_groups(edit, group)
    for axis in range(2, edit.rank_in(0)):
        if edit.size_in(1, axis) > 1:
            edit.in_place(axis)


def filters_of(w: np.ndarray, attributes: Attributes) -> np.ndarray:
    group = int(attributes.get("group", 1))
    return w.reshape(group, len(w) // group, w.shape[1], math.prod(w.shape[2:]))


def transposed_filters_of(w: np.ndarray, attributes: Attributes) -> np.ndarray:
    return filters_of(w, attributes).swapaxes(1, 2)


def bound_conv(site: Site) -> Facts:
    shape, spreads = site.shape(), has(site.node, Trait.SPREADS)
    if site.array(1) is None and not spreads:
        return bound_made_filters(site)
    x, w = reduced(site.data(), range(2, len(shape))), site.weight(1)
    x = expanded(reduced(x, [0]) if len(x.low) > MOST_SAMPLES else x, shape, [1])
    grid = (transposed_filters_of if spreads else filters_of)(w, site.attributes)
    bias = bias_of(site, 2, grid.shape[0] * grid.shape[1])
    if w.ndim != len(shape) or x.shape[1] != grid.shape[0] * grid.shape[2]:
        raise NothingKnown
    hull = touches_padding(site.attributes, w.shape[2:], spreads)
    samples = [Facts(*rows) for rows in zip(*x.columns, strict=True)]
    found = [layer(site, row.map(np.ravel), grid, bias, tolerance(w.dtype), hull) for row in samples]
    if len(found) > 1:  # heads among the samples, say: what each gives is its own
        found = [facts(f.low, f.high, mix(f.identity, np.uint64(n)), f.scale) for n, f in enumerate(found)]
    rows = map(np.stack, zip(*(f.columns for f in found), strict=True))
    return Facts(*rows).map(lambda a: a.reshape(*a.shape, *[1] * (len(shape) - 2)))


def bound_made_filters(site: Site) -> Facts:
    """Filters that the data makes: those of zeros give the bias."""
    rank, bias = len(site.shape()), site.fact(2)[0] if site.has(2) else known(np.zeros(1))
    vanishing = reduced(site.fact(1)[0], range(1, rank)).zero.ravel()
    vanishing, summand = np.broadcast_arrays(vanishing & bias.constant, np.where(bias.constant, bias.low, 0))
    at = line(rank, 1)
    return zero_where(site, vanishing.reshape(at), summand.reshape(at))


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """The axes of space (the last ones) padded, or cut where a number is negative."""
    pads = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return functional.pad(x, pads, value=value) if any(pads) else x


def forward_conv(node: TorchCall, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    before, after = padding(node.attributes, x.shape[2:], w.shape[2:])
    if before != after or min(before, default=0) < 0:
        x, before = padded(x, before, after), [0] * rank
    ones = [1] * rank
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    return getattr(functional, f"conv{rank}d")(x, w, b, strides, before, dilations, node.get("group", 1))


define(
    "Conv", couple=conv, channel=1, zero=zero_conv, repair=repair_in_place, bound=bound_conv, channelwise=depthwise,
    contracts=lambda _, k, rank: [] if k > 1 else list(range(1, rank)),  # samples, filters and biases stay apart
    factors=(0, 1), filters=filters_of, linear=linear_conv, bias=2,
    work=lambda y, x, w: math.prod(y) * math.prod(w[1:]), traits=Trait.LINEAR | Trait.LAYER | Trait.CONVOLVES,
    forward=Forward(forward_conv),
)  # fmt: skip


def fused_conv(
    op: Op, x: Axes, w: Axes, b: Axes | None = None, z: Axes | None = None, *, group: int = 1, **_: Any
) -> Axes:
    """A convolution, an addition and an activation in one; what is added cannot be spread to places of its own."""
    y = convolve(op, x, w, (b,), group, in_place if z is None else Op.statistics)
    if z is not None:
        op.broadcast(y, z)
    return y


def zero_fused_conv(op: Op) -> ZeroWhereDead:
    """Where something is added, that has to be zero as well, on all channels."""
    made_zero = zero_conv(replace(op, names=op.names[:3]))
    added_to = op.values[3] if len(op.names) > 3 and op.names[3] else None
    if added_to is None:
        return made_zero
    alike = tuple(x.size for x in added_to.axes) == tuple(x.size for x in op.results[0].axes)
    return made_zero & op.zero_where_dead(3) if alike else NOT_ZERO


def bound_fused_conv(site: Site) -> Facts:
    found = bound_conv(site)
    if site.has(3):
        y, z = aligned([(found, site.shape_out()), site.fact(3)])
        found = added(site, y, z)
    return bound_fused(site, found)


def forward_fused_conv(
    node: TorchCall, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    y = forward_conv(node, x, w, b)
    return fused(node, y if z is None else y + z)


define(
    "com.microsoft:FusedConv", couple=fused_conv, channel=1, zero=zero_behind(zero_fused_conv),
    repair=repair_in_place, bound=bound_fused_conv,
    shape=Alike("Conv", (0, 1)), traits=Trait.LAYER, forward=Forward(forward_fused_conv),
    written=with_activation("Conv"),
)  # fmt: skip


def conv_transpose(op: Op, x: Axes, w: Axes, b: Axes | None = None, *, group: int = 1, **_: Any) -> Axes:
    """Weights are (in, out / group, ...): the first axis reads."""
    op.freeze(*x[2:], *w[2:], why=SLIDES)
    per_group = w[0].size // group
    op.writes(w[1])
    op.reads(w[0])
    if group > 1 and per_group == 1:  # depthwise, with w[1] outputs for each channel
        out = repeated(x[1], w[1].size, each=True)
        op.freeze(*(w[1:2] if w[1].size > 1 else ()), why="gives every channel the same number of outputs")
        op.tie(x[1], w[0])
        op.writes(w[0])
        op.follows(w[0])
    else:
        grid = x[1].reshape(group, -1)
        op.contract(w[0], x[1], op.weights[1] or op.zero_inputs[0])
        op.tie(grid[:1], grid)
        out = repeated(w[1], group)
    if b is not None:
        op.tie(out, *b)
        op.adds(*b)
    kernel = math.prod(k.size for k in w[2:])
    op.macs(x[0].size * math.prod(a.size for a in x[2:]) * kernel, w[0], w[1])
    return (x[0], out, ...)  # type: ignore[return-value]


def repair_conv_transpose(edit: Any, group: int = 1, **_: Any) -> None:
    if group > 1:
        edit.set_attribute("group", edit.count_out(0, 1) // edit.count_in(1, 1))


def _one_channel_each(taken: Taken) -> bool:
    shape, group = taken.shapes[1], taken.attributes.get("group", 1)
    return shape is not None and group > 1 and shape[0] == group


def forward_conv_transpose(node: TorchCall, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Filters (inputs, outputs per group, *kernel).  What lies beyond the padding is cut off the full result."""
    rank = x.dim() - 2
    ones, zeros = [1] * rank, [0] * rank
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    more = node.get("output_padding", zeros)
    y = getattr(functional, f"conv_transpose{rank}d")(x, w, b, strides, 0, more, node.get("group", 1), dilations)
    wanted, auto = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = node.get("pads", [0] * 2 * rank) if auto != "VALID" else [0] * 2 * rank
        before, after = pads[:rank], pads[rank:]
    else:
        cut = [size - want for size, want in zip(y.shape[2:], wanted[-rank:], strict=True)]
        less, rest = [max(0, n) // 2 for n in cut], [n - max(0, n) // 2 for n in cut]
        before, after = (less, rest) if auto == "SAME_UPPER" else (rest, less)
    return padded(y, [-n for n in before], [-n for n in after])


define(
    "ConvTranspose", couple=conv_transpose, channel=1, zero=made(2), repair=repair_conv_transpose, bound=bound_conv,
    channelwise=_one_channel_each, filters=transposed_filters_of, linear=linear_conv_transpose, bias=2,
    work=lambda y, x, w: math.prod(x) * math.prod(w[1:]),
    traits=Trait.LINEAR | Trait.LAYER | Trait.CONVOLVES | Trait.SPREADS, forward=Forward(forward_conv_transpose),
)  # fmt: skip
