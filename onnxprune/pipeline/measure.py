"""What the surgery cost and saved: drift, accuracy, latency, memory."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.labels import is_fixed
from onnxprune.pipeline.request import Request
from onnxprune.report.summary import DriftRow, MetricRow
from onnxprune.runtime.accuracy import evaluate, find_metric
from onnxprune.runtime.compare import compare
from onnxprune.runtime.data import Dataset
from onnxprune.runtime.latency import Latency, measure
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.specs import Feed


def sessions_of(before: onnx.ModelProto, after: onnx.ModelProto, request: Request) -> dict[str, Session]:
    """Both models as users will run them."""
    load = {"providers": request.providers, "threads": request.threads, "optimize": True}
    return {"before": make_session(before, **load), "after": make_session(after, **load)}


def latencies(sessions: dict[str, Session], feed: Feed) -> dict[str, Latency]:
    return measure(sessions, feed)


def drift(sessions: dict[str, Session], feeds: Sequence[Feed]) -> tuple[DriftRow, ...]:
    """How far each output moves on these inputs."""
    found = compare(sessions["before"], sessions["after"], feeds)
    return tuple(DriftRow(d.name, d.relative, d.cosine, d.snr_db) for d in found.outputs)


def metrics(sessions: dict[str, Session], dataset: Dataset, names: Sequence[str]) -> tuple[MetricRow, ...]:
    """Figures of merit before and after; top1 and agreement with labels, agreement alone without."""
    chosen = [find_metric(name) for name in names or (("top1", "agreement") if dataset.has_labels else ("agreement",))]
    found = evaluate(sessions, dataset, chosen, reference="before")
    return tuple(MetricRow(m.name, found["before"][m.name], found["after"][m.name], m.unit, dataset.samples) for m in chosen)


def peak_activations(deps: Dependencies, dead: np.ndarray) -> int:
    """Bytes of the largest set of values that are alive at once, each from its maker to its last user.

    Values whose shape is unknown count nothing; runtimes that work in place need less.
    """
    last = {key: k for k, node in enumerate(deps.nodes) for key in node.inputs if key}
    dying: dict[int, list[int]] = {}
    now = peak = 0
    for k, node in enumerate(deps.nodes):
        for key in node.outputs:
            if key and key not in deps.sources:
                now += (held := _bytes(deps, key, dead))
                dying.setdefault(last.get(key, len(deps.nodes)), []).append(held)
        peak = max(peak, now)
        now -= sum(dying.pop(k, ()))
    return peak


def _bytes(deps: Dependencies, key: str, dead: np.ndarray) -> int:
    value = deps.values.get(key)
    if value is None:
        return 0
    size = 1
    for labels in value.axes:
        size *= labels.size if is_fixed(labels) else int(deps.live(labels, dead).sum())
    dtype = deps.statics.types.get(key, onnx.TensorProto.FLOAT)
    return size * onnx.helper.tensor_dtype_to_np_dtype(dtype).itemsize
