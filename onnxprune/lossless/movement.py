"""Operators that move elements, pool them, or reduce them."""

from collections.abc import Sequence

import numpy as np
from onnx import numpy_helper

from onnxprune.channels.ops.select import slices
from onnxprune.lossless.facts import Facts, aligned, blocks, expanded, facts, known, padded, reduced, reshaped, stacked
from onnxprune.lossless.likeness import Ids, bits, mix, name_of
from onnxprune.lossless.products import zeros
from onnxprune.lossless.site import Site, rule


def _spread(site: Site, axis: int) -> Facts | None:
    """Facts of input 0 with positions of their own on an axis; none where the model leaves its length open."""
    found, shape = site.inputs[0], site.shapes[0]
    return None if found is None or shape is None or site.open_in(axis) else expanded(found, shape, [axis])


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(site: Site) -> Facts | None:
    found, before, after = site.inputs[0], site.shapes[0], site.outputs[0]
    if found is None or before is None or after is None or 0 in before:
        return None
    for old, new in blocks(before, after):  # which position goes where hangs on the open lengths
        if any(map(site.open_in, old)) or any(map(site.open_out, new)):
            found = reduced(found, old)
    out = reshaped(found, before, after)
    return None if out is None else out.named(len(after))


@rule("Transpose")
def transpose(site: Site) -> Facts | None:
    found = site.inputs[0]
    perm = None if found is None else list(site.attributes.get("perm", range(len(found.shape))[::-1]))
    return None if found is None else found.map(lambda a: a.transpose(perm)).named(site.kind)


@rule("Concat")
def concat(site: Site) -> Facts | None:
    pairs = [site.fact(k) for k in range(len(site.node.input))]
    if None in pairs:
        return None
    given = [p for p in pairs if p is not None]
    return stacked(given, site.attributes.get("axis", 1) % len(given[0][1]))


@rule("Split")
def split(site: Site) -> list[Facts | None] | None:
    shape = site.shapes[0]
    if shape is None or None in site.outputs:
        return None
    axis = site.attributes.get("axis", 0) % len(shape)
    found = _spread(site, axis)
    if found is None:
        return None
    ends = np.cumsum([s[axis] for s in site.outputs if s is not None])
    pieces = [np.split(a, ends[:-1], axis) for a in (found.low, found.high, found.identity, found.scale)]
    return [Facts(*piece) for piece in zip(*pieces, strict=True)]


@rule("Slice")
def slice_(site: Site) -> Facts | None:
    found, shape = site.inputs[0], site.shapes[0]
    told = [site.some_numbers(k, name) for k, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, ""))]
    if found is None or shape is None or told[0] is None or told[1] is None:
        return None
    if any(site.has(k) and (told[k - 1] is None or None in (told[k - 1] or ())) for k in (3, 4)):
        return None
    picks = slices(lambda k, _=None: told[k - 1], [range(n) for n in shape], {})
    for axis, positions in picks:
        if found.shape[axis] > 1:
            if positions is None:
                return None
            found = found.map(lambda a, k=axis, p=positions: a.take(p, k))
    return found.named(*(_name(site, k, t) for k, t in enumerate(told, 1) if t is not None), site.kind)


def _name(site: Site, k: int, numbers: Sequence[int | None]) -> Ids:
    """A name for the numbers of input k: two of the same one are the same at every size of the input."""
    if None in numbers:
        return name_of(site.node.input[k])
    return mix(*bits(np.asarray(numbers, np.float64)), name_of("numbers"))


@rule("Gather")
def gather(site: Site) -> Facts | None:
    found, shape, picks = site.inputs[0], site.shapes[0], site.array(1)
    picks = site.sizes(1) if picks is None and site.has(1) else picks
    if picks is None:
        return _looked_up(site)
    if found is None or shape is None or picks.size > 1 << 16:
        return None
    axis = site.attributes.get("axis", 0) % len(shape)
    whole = _spread(site, axis)
    return None if whole is None else whole.map(lambda a: a.take(picks.astype(np.int64), axis))


def _looked_up(site: Site) -> Facts | None:
    """Rows of a table that the data picks: a column of one number is a constant."""
    table, picks, axis = site.array(0), site.shapes[1], site.attributes.get("axis", 0)
    if table is None or picks is None or axis % table.ndim or table.dtype.kind != "f":
        return None
    low, high = (fn(axis=0).astype(np.float64) for fn in (table.min, table.max))
    place = mix(site.token, np.arange(low.size, dtype=np.uint64)).reshape(low.shape)
    return padded(facts(low, high, place), len(picks) + low.ndim)


@rule("Expand", "Tile")
def repeat(site: Site) -> Facts | None:
    """Positions that are repeated are copies of each other."""
    pair, after = site.fact(0), site.outputs[0]
    if pair is None or after is None:
        return None
    found, before = pair
    aligned = (1,) * (len(after) - len(before)) + before
    wider = padded(found, len(after))
    times = [b // a if wider.shape[k] > 1 else 1 for k, (a, b) in enumerate(zip(aligned, after, strict=True))]
    if any(wider.shape[k] > 1 and site.open_out(k) for k in range(len(after))):
        return None
    wider = wider.map(lambda a: np.tile(a, times))
    sizes = [name_of(site.node.output[0] if site.open_out(k) else str(n)) for k, n in enumerate(after)]
    return Facts(wider.low, wider.high, mix(wider.identity, site.kind, *sizes), wider.scale)


@rule("ConstantOfShape")
def fill(site: Site) -> Facts | None:
    shape = site.outputs[0]
    if shape is None:
        return None
    value = numpy_helper.to_array(site.attributes["value"]) if "value" in site.attributes else np.zeros(1)
    return known(value.astype(np.float64).reshape((1,) * len(shape)))


@rule("Pad")
def pad(site: Site) -> Facts | None:
    """Constants that other numbers are put around are no constants; an edge or a mirror of them is."""
    found, shape = site.inputs[0], site.shapes[0]
    amounts = site.some_numbers(1, "pads") or site.attributes.get("paddings")
    if found is None or shape is None or amounts is None or site.has(3) or len(amounts) != 2 * len(shape):
        return None
    rank = len(shape)
    name = _name(site, 1, amounts)
    if any(None in amounts[k::rank] and found.shape[k] > 1 for k in range(rank)):
        return None
    widths = [tuple(1 if n is None else int(n) for n in amounts[k::rank]) for k in range(rank)]  # by any amount
    varied = [k for k, w in enumerate(widths) if max(w) and found.shape[k] > 1]
    flat = site.attributes.get("mode", b"constant") in (b"constant", "constant")
    if any(min(w) < 0 for w in widths) or (varied and not flat):
        return None
    low, high = found.low, found.high
    if flat:
        given = site.array(2) if site.has(2) else site.attributes.get("value", 0.0)
        if given is None:
            return None
        fill = float(np.ravel(given)[0]) if np.size(given) else 0.0
        if any(max(w) for k, w in enumerate(widths) if k not in varied):
            low, high = np.minimum(low, fill), np.maximum(high, fill)
        if varied:
            around = [w if k in varied else (0, 0) for k, w in enumerate(widths)]
            low, high = (np.pad(a, around, constant_values=fill) for a in (low, high))
            found = found.map(lambda a: np.pad(a, around, constant_values=1))
        if fill:
            return facts(low, high, mix(found.identity, bits(found.scale), bits(fill), name, site.kind))
    return facts(low, high, mix(found.identity, name, site.kind), found.scale)


@rule("DepthToSpace")
def depth_to_space(site: Site) -> Facts | None:
    """A channel of the outcome holds one of each block of channels."""
    found, shape = site.inputs[0], site.shapes[0]
    if found is None or shape is None or any(n > 1 for n in found.shape[2:]):
        return None
    square = site.attributes["blocksize"] ** 2
    whole = expanded(found, shape, [1])
    if whole is None:
        return None
    rows = [1, square, -1] if site.attributes.get("mode", b"DCR") in (b"DCR", "DCR") else [1, -1, square]
    flat = reduced(whole, [0]).map(lambda a: a.reshape(rows))
    inner = reduced(flat, [1 if rows[1] == square else 2])
    return inner.map(lambda a: a.reshape(1, -1, *[1] * (len(shape) - 2))).named(site.kind)


@rule("SpaceToDepth")
def space_to_depth(site: Site) -> Facts | None:
    found, shape = site.inputs[0], site.shapes[0]
    if found is None or shape is None or any(n > 1 for n in found.shape[2:]):
        return None
    whole = expanded(found, shape, [1])
    if whole is None:
        return None
    tiled = whole.map(lambda a: np.concatenate([a] * site.attributes["blocksize"] ** 2, 1))
    place = np.arange(tiled.shape[1], dtype=np.uint64).reshape(1, -1, *[1] * (len(shape) - 2)) // np.uint64(shape[1])
    return tiled.named(place, site.kind)


@rule("Resize", "Upsample")
def resize(site: Site) -> Facts | None:
    """Between its neighbours, where no axis of channels is resized; cubic ones overshoot."""
    found, before, after = site.inputs[0], site.shapes[0], site.outputs[0]
    if found is None or before is None or after is None:
        return None
    changed = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    if site.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return None
    found = reduced(found, [k for k in changed if k > 1]) if not {0, 1} & set(changed) else None
    if found is None or any(n > 1 for n in found.shape[2:]):
        return None
    soft = site.attributes.get("mode", b"nearest") in (b"nearest", b"linear", b"bilinear") or found.constant
    low, high = np.where(soft, found.low, -np.inf), np.where(soft, found.high, np.inf)
    return facts(low, high, mix(found.identity, site.kind, site.token), found.scale)


@rule("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
def pool(site: Site) -> list[Facts | None] | None:
    if site.inputs[0] is None or len(site.inputs[0].shape) < 3:
        return None
    found = reduced(site.inputs[0], range(2, len(site.inputs[0].shape)))
    low, high = found.low, found.high
    counts = site.attributes.get("count_include_pad", 0) and site.node.op_type == "AveragePool"
    if counts and (any(site.attributes.get("pads", ())) or site.attributes.get("auto_pad", b"NOTSET") != b"NOTSET"):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    out = facts(low, high, mix(found.identity, site.kind), found.scale)
    return [out, *[site.nothing(k) for k in range(1, len(site.outputs))]]


@rule("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", passes=False)
def reduce(site: Site) -> Facts | None:
    """Over other axes than those of channels; how many elements a sum has may depend on the input."""
    found, axes = site.inputs[0], site.numbers(1, "axes")
    if found is None or (axes is None and site.has(1)):
        return None
    rank = len(found.shape)
    given = range(rank) if axes is None else [k % rank for k in axes]
    if axes is None and site.attributes.get("noop_with_empty_axes", 0):
        return None
    gone = sorted(set(given))
    flat = reduced(found, gone)
    low, high = flat.low, flat.high
    if site.node.op_type == "ReduceSum":
        low, high = np.where(low >= 0, low * 0, -np.inf), np.where(high <= 0, high * 0, np.inf)
    elif site.node.op_type in ("ReduceL1", "ReduceL2"):
        low, high = np.zeros(low.shape), np.where((low == 0) & (high == 0), 0, np.inf)
    out = facts(low, high, mix(flat.identity, site.kind, *gone), flat.scale)
    return out if site.attributes.get("keepdims", 1) else out.map(lambda a: np.squeeze(a, tuple(gone)))


@rule("GatherElements")
def gather_elements(site: Site) -> Facts | None:
    """Elements along one axis that the indices name; positions of the others stay apart."""
    found, shape, picks = site.inputs[0], site.shapes[0], site.fact(1)
    if found is None or shape is None or picks is None:
        return None
    axis = site.attributes.get("axis", 0) % len(shape)
    both = aligned([(reduced(found, [axis]), (*shape[:axis], 1, *shape[axis + 1 :])), picks])
    if both is None:
        return None
    x, where = both
    names = mix(x.identity, where.identity, bits(where.scale), site.kind)
    return facts(x.low, x.high, names, x.scale)


@rule("ScatterElements", "Scatter")
def scatter_elements(site: Site) -> Facts | None:
    """Zeros among zeros stay zeros."""
    given, shape = [site.fact(0), site.fact(2)], site.shapes[0]
    if shape is None or given[0] is None or given[1] is None:
        return None
    axis = site.attributes.get("axis", 0) % len(shape)
    x, updates = (reduced(f[0], [k for k, n in enumerate(f[1]) if k == axis or n != shape[k]]) for f in given if f)
    return zeros(site, (x.low == 0) & (x.high == 0) & (updates.low == 0) & (updates.high == 0))


@rule("GridSample")
def grid_sample(site: Site) -> Facts | None:
    """Means of neighbours, and of zeros outside of a map."""
    found, grid, shape = site.inputs[0], site.fact(1), site.shapes[0]
    if (
        found is None
        or grid is None
        or shape is None
        or site.attributes.get("mode", b"linear") in (b"cubic", b"bicubic")
    ):
        return None
    flat = reduced(found, range(2, len(shape)))
    where = expanded(reduced(grid[0], range(1, len(shape))), grid[1], [0] if flat.shape[0] > 1 else [])
    if where is None:
        return None
    names = mix(flat.identity, where.identity, bits(where.scale), site.kind)
    return facts(np.minimum(flat.low, 0), np.maximum(flat.high, 0), names, flat.scale)


@rule("Crop")
def crop(site: Site) -> Facts | None:
    """Of early Windows exports: a part of every map."""
    found = site.inputs[0]
    return None if found is None else reduced(found, range(2, len(found.shape))).named(site.kind)
