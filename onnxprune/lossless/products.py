"""Products of any two values, and attention: where all terms of a sum are zero, the sum is."""

import math

import numpy as np

from onnxprune.channels.ops.attention import _sizes as sizes_of_parts
from onnxprune.channels.ops.linear import einsum_terms
from onnxprune.lossless.facts import LARGEST, Facts, expanded, facts, reduced
from onnxprune.lossless.likeness import Ids, bits, mix
from onnxprune.lossless.site import Site, rule
from onnxprune.model.contrib import matrix_axes

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def zeros(site: Site, silent: np.ndarray, summand: np.ndarray | float = 0.0, names: Ids | None = None) -> Facts:
    """Facts of an output that is `summand` where a sum of products is silent; arrays of the output's rank."""
    low = np.where(silent, summand, -np.inf)
    place = np.arange(low.size, dtype=np.uint64).reshape(low.shape)
    return facts(low, np.where(silent, summand, np.inf), mix(site.token, place) if names is None else names)


def summed(site: Site, terms: list[str], result: str, inputs: tuple[int, ...] = (0, 1)) -> Facts | None:
    """Facts of an Einsum: zero where all its terms are, and alike where they are in the same order."""
    pairs = [site.fact(k) for k in inputs]
    if any(p is None or len(t) != len(p[1]) or p[0].low.size > LARGEST for t, p in zip(terms, pairs, strict=True)):
        return None
    given = [p for p in pairs if p is not None]
    sizes = {
        letter: max(f.shape[t.index(letter)] for t, (f, _) in zip(terms, given, strict=True) if letter in t)
        for letter in sorted(set("".join(terms)))
    }
    written = [
        expanded(f, shape, [k for k, letter in enumerate(t) if sizes[letter] > 1])
        for t, (f, shape) in zip(terms, given, strict=True)
    ]
    parts = [f for f in written if f is not None]
    if len(parts) < len(given):
        return None
    loud = [(~(f.constant & (f.low == 0))).astype(np.float32) for f in parts]
    full = [np.broadcast_to(a, [sizes[letter] for letter in t]) for t, a in zip(terms, loud, strict=True)]
    silent = np.einsum(f"{','.join(terms)}->{result}", *full, optimize=True) == 0
    return zeros(site, silent, names=_names(site, terms, result, parts, sizes))


def _names(site: Site, terms: list[str], result: str, parts: list[Facts], sizes: dict[str, int]) -> Ids | None:
    """A name for each sum of products by those of its factors; None where there are too many of them."""
    letters = result + "".join(sorted(set(sizes) - set(result)))
    if math.prod(sizes.values()) > LARGEST:
        return None
    names = mix(site.kind)
    for term, part in zip(terms, parts, strict=True):
        order = sorted(range(len(term)), key=lambda k: letters.index(term[k]))
        shape = [part.shape[term.index(c)] if c in term else 1 for c in letters]
        own = mix(part.identity, bits(part.scale)).transpose(order).reshape(shape)
        names = mix(names, own)
    for k in range(len(result), len(letters)):
        place = np.arange(names.shape[k], dtype=np.uint64).reshape([-1 if j == k else 1 for j in range(names.ndim)])
        names = np.bitwise_xor.reduce(mix(names, place), axis=k, keepdims=True)
    whole = np.broadcast_to(names, [sizes[c] for c in result] + [1] * (len(letters) - len(result)))
    return whole.reshape([sizes[c] for c in result])


def _matrix_terms(a: int, b: int) -> tuple[list[str], str] | None:
    """MatMul of values of these ranks as an Einsum."""
    if min(a, b) < 2:
        return None
    batch = LETTERS[: max(a, b) - 2]
    return [batch[len(batch) - (a - 2) :] + "xy", batch[len(batch) - (b - 2) :] + "yz"], batch + "xz"


def matrix_product(site: Site) -> Facts | None:
    """MatMul of two values that depend on data, or with more than one matrix of weights."""
    a, b = (site.shapes[k] for k in (0, 1))
    terms = None if a is None or b is None else _matrix_terms(len(a), len(b))
    return None if terms is None else summed(site, *terms)


def turned_product(site: Site) -> Facts | None:
    """A Gemm that takes its first operand in columns, or its weights first."""
    terms = ["yx" if site.attributes.get("transA", 0) else "xy", "zy" if site.attributes.get("transB", 0) else "yz"]
    found = summed(site, terms, "xz")
    bias = site.array(2) if site.has(2) else np.zeros(1)
    if found is None or bias is None:
        return None
    summand = site.attributes.get("beta", 1.0) * bias.astype(np.float64)
    silent, summand = np.broadcast_arrays(found.constant, summand.reshape((1,) * (2 - summand.ndim) + summand.shape))
    return zeros(site, silent, summand)


@rule("com.microsoft:FusedMatMul", "com.microsoft:TransposeMatMul", passes=False)
def fused_product(site: Site) -> Facts | None:
    a, b = (site.shapes[k] for k in (0, 1))
    terms = None if a is None or b is None else _matrix_terms(len(a), len(b))
    if a is None or b is None or terms is None:
        return None
    told = site.attributes
    orders = [
        matrix_axes(len(s), told.get(f"trans{n}", 0), told.get(f"transBatch{n}", 0)) for s, n in ((a, "A"), (b, "B"))
    ]
    written = []
    for term, order in zip(terms[0], orders, strict=True):
        letters = [""] * len(term)
        for letter, k in zip(term, order, strict=True):
            letters[k] = letter
        written.append("".join(letters))
    return summed(site, written, terms[1])


@rule("Einsum", passes=False)
def einsum(site: Site) -> Facts | None:
    if any(shape is None for shape in site.shapes):
        return None
    parts, result = einsum_terms(site.attributes["equation"], [len(shape or ()) for shape in site.shapes])
    if any(len(set(t)) < len(t) for t in parts):
        return None
    return summed(site, parts, result, tuple(range(len(parts))))


def _alone(site: Site, k: int, axis: int) -> np.ndarray | None:
    """Positions on one axis of input k at which it is zero always, bool."""
    found, shape = site.inputs[k], site.shapes[k]
    if found is None or shape is None:
        return None
    axis %= len(shape)
    whole = expanded(reduced(found, [d for d in range(len(shape)) if d != axis]), shape, [axis])
    return None if whole is None else (whole.constant & (whole.low == 0)).ravel()


@rule("com.microsoft:MultiHeadAttention", "com.microsoft:GroupQueryAttention", "Attention", passes=False)
def attention(site: Site) -> list[Facts | None] | None:
    """Means of values: a feature that is zero in all of them is zero in their means."""
    out, shape = site.outputs[0], site.shapes[2] if len(site.shapes) > 2 else None
    early = {"MultiHeadAttention": (6, 7), "GroupQueryAttention": (3, 4), "Attention": (4, 5)}[site.node.op_type]
    bias = site.array(3) if site.node.op_type == "MultiHeadAttention" and site.has(3) else np.zeros(1)
    if bias is None or out is None or shape is None or any(site.has(k) for k in early):
        return None
    axis = 1 if len(out) == 4 else -1
    silent = _alone(site, 2, axis)
    if silent is None:
        return None
    silent = silent & (bias[-silent.size :] == 0)
    heads = site.attributes.get("kv_num_heads", 0) or (len(silent) if axis == 1 else 1)
    times = out[axis] // len(silent)  # query heads that share one of these
    silent = np.repeat(silent.reshape(heads, -1), times, 0).ravel()
    return [zeros(site, silent.reshape([-1 if k == axis % len(out) else 1 for k in range(len(out))]))]


@rule("RotaryEmbedding", "com.microsoft:RotaryEmbedding", passes=False)
def rotary(site: Site) -> Facts | None:
    """A turn within each head, which leaves a head of zeros as it is."""
    shape, tables = site.outputs[0], [site.shapes[k] for k in (1, 2) if k < len(site.shapes)]
    if shape is None or len(shape) not in (3, 4) or any(t is None for t in tables):
        return None
    axis = 1 if len(shape) == 4 else 2
    silent = _alone(site, 0, axis)
    if silent is None:
        return None
    if axis == 2:
        width = shape[2] // heads if (heads := site.attributes.get("num_heads", 0)) else 2 * (tables[-1] or (0,))[-1]
        silent = np.repeat(silent.reshape(-1, width).all(1), width)
    return zeros(site, silent.reshape([-1 if k == axis else 1 for k in range(len(shape))]))


@rule("com.microsoft:Attention", passes=False)
def fused_attention(site: Site) -> list[Facts | None] | None:
    """Features of values whose weights and bias are zero."""
    w, out = site.array(1), site.outputs[0]
    bias = site.array(2) if site.has(2) else np.zeros(1)
    if w is None or bias is None or out is None or site.has(4):
        return None
    busy = w.any(axis=0) | (bias != 0)
    values = busy[sum(sizes_of_parts(busy.size, site.attributes.get("qkv_hidden_sizes"))[:2]) :]
    return [zeros(site, ~values.reshape(*[1] * (len(out) - 1), -1))]


@rule("ConvInteger", "MatMulInteger", passes=False)
def integer_layer(site: Site) -> Facts | None:
    """Filters that hold their zero point alone."""
    w, shape = site.array(1), site.outputs[0]
    point = site.array(3) if site.has(3) else np.zeros((), np.int8)
    if w is None or point is None or shape is None or w.ndim < 2:
        return None
    axis = 0 if site.node.op_type == "ConvInteger" else w.ndim - 1
    at = [-1 if k == axis else 1 for k in range(w.ndim)]
    differs = w != (point.reshape(at) if point.size > 1 else point.reshape(()))
    silent = ~differs.any(axis=tuple(k for k in range(w.ndim) if k != axis))
    channel = 1 if axis == 0 else len(shape) - 1
    return zeros(site, silent.reshape([-1 if k == channel else 1 for k in range(len(shape))]))


@rule("Softmax", "LogSoftmax")
def softmax(site: Site) -> Facts | None:
    """Equal elements of equal rows come out equal."""
    found, shape = site.inputs[0], site.shapes[0]
    if found is None or not shape or (site.opset < 13 and site.attributes.get("axis", 1) not in (-1, len(shape) - 1)):
        return None
    rows = reduced(found, [site.attributes.get("axis", -1) % len(shape)])
    names = mix(rows.identity, bits(rows.scale), found.identity, bits(found.scale), site.kind)
    low, high = (-np.inf, 0.0) if site.node.op_type == "LogSoftmax" else (0.0, 1.0)
    return facts(np.full(names.shape, low), np.full(names.shape, high), names)


@rule("GatherND")
def gather_nd(site: Site) -> Facts | None:
    """What is zero in all that may be picked is so in what is picked."""
    given, indices = site.fact(0), site.shapes[1]
    if given is None or not indices or site.attributes.get("batch_dims", 0):
        return None
    whole = reduced(given[0], range(indices[-1]))
    silent = (whole.low == 0) & (whole.high == 0)
    return zeros(site, silent.reshape(*[1] * (len(indices) - 1), *silent.shape[indices[-1] :]))
