"""What must hold before anything else looks into a model: version, sizes, names and the order of nodes."""

import onnx
from onnx import ModelProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.model.encode import chunks, encode
from onnxprune.model.graphs import DEFAULT, opset_of
from onnxprune.model.tensors import (
    BITS,
    TYPED,
    TYPED_FIELDS,
    bodies,
    elements,
    is_external,
    label,
    nbytes,
    nodes,
    plain,
    quoted,
    tensors,
)

# Other domains whose operators come with onnx or with onnxruntime.
KNOWN = {"ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft.dml"} | {
    *("com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc")
}
INT32 = 1 << 31  # what onnx and onnxruntime count versions with
KEPT = 4096  # bytes of a tensor that the checker may see: shapes and other small constants


def check_versions(model: ModelProto) -> None:
    """The model has a graph, an IR version and an operator set, and this onnx knows them.

    Raises:
        ModelError: one is missing, newer than this onnx, or no number of a version.
    """
    if not model.HasField("graph"):
        raise ModelError("there is no graph in it")
    if not model.graph.output:
        raise ModelError("its graph has no outputs, so it computes nothing; export it again")
    if model.ir_version < 1:
        raise ModelError("it has no ir_version, so it is no complete ONNX model; export it again")
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(_newer(f"IR version {model.ir_version}", onnx.IR_VERSION))
    versions = {o.version for o in model.opset_import if o.domain in DEFAULT}
    needs = any(n.domain in DEFAULT for n in model.graph.node)
    if (needs and not versions) or min(versions, default=1) < 1:
        raise ModelError(
            "it declares no operator set (opset) of ONNX: it is older than ONNX 1.0, or cut short; export it again"
        )
    if len(versions) > 1:
        raise ModelError(f"it declares several versions of the default operator set: {sorted(versions)}")
    imports = (*model.opset_import, *(o for f in model.functions for o in f.opset_import))
    if odd := next((o for o in imports if not -INT32 <= o.version < INT32), None):
        raise ModelError(f"it declares version {odd.version} of the operator set {quoted(odd.domain)}; none has it")
    known = onnx.defs.onnx_opset_version()
    if opset_of(model) > known:
        raise ModelError(_newer(f"opset {opset_of(model)}", known))


def _newer(what: str, known: int) -> str:
    return (
        f"it has {what}, and onnx {onnx.__version__} knows up to {known}: upgrade onnx, or export to an older version"
    )


def check_tensors(model: ModelProto) -> None:
    """Every tensor holds as many elements as its dims say; nothing is allocated to find out.

    Raises:
        ModelError: it does not, or its data type is unknown, or its elements are stored twice or in segments.
    """
    for tensor in tensors(model):
        if not is_external(tensor):
            check_tensor(tensor)


def check_tensor(tensor: TensorProto) -> None:
    """One tensor whose elements are within the model; see `check_tensors`."""
    if tensor.data_type not in BITS and tensor.data_type != TensorProto.STRING:
        raise ModelError(
            f"{label(tensor)} has data type {tensor.data_type}, which onnx {onnx.__version__} does not know"
        )
    if tensor.HasField("segment"):
        raise ModelError(f"{label(tensor)} is stored in segments, which nothing supports any more")
    filled = [name for name in TYPED_FIELDS if len(getattr(tensor, name))]
    raw = tensor.HasField("raw_data")
    if len(filled) + (raw and bool(filled)) > 1:
        raise ModelError(f"{label(tensor)} holds its elements twice, as {' and '.join(filled)}{' and raw_data' * raw}")
    if raw and tensor.data_type != TensorProto.STRING:
        have, want, unit = len(tensor.raw_data), nbytes(tensor), "bytes"
    else:
        field, per = TYPED.get(tensor.data_type, ("int32_data", 1))
        have, want, unit = len(getattr(tensor, field)), _entries(tensor, per), "elements"
    if have != want:
        raise ModelError(f"{label(tensor)} of shape {quoted(list(tensor.dims))} holds {have} {unit}, and needs {want}")


def _entries(tensor: TensorProto, per: int) -> int:
    """Entries that a typed field needs; elements of four and two bits share one."""
    bits = BITS.get(tensor.data_type, 8)
    shared = 8 // bits if bits in (2, 4) else 1
    return -(-elements(tensor) * per // shared)


def check_text(model: ModelProto) -> None:
    """All names are text; protobuf hands out bytes for a name that is not UTF-8, which nothing downstream expects.

    Raises:
        ModelError: a name is not UTF-8.
    """
    texts: list[object] = [model.doc_string, model.producer_name, model.producer_version, model.domain]
    texts += [o.domain for o in model.opset_import]
    texts += [text for p in model.metadata_props for text in (p.key, p.value)]
    texts += [text for f in model.functions for text in (f.name, f.domain, *f.input, *f.output, *f.attribute)]
    texts += [text for t in tensors(model) for text in (t.name, t.doc_string)]
    for graph in (model.graph, *(body for node in nodes(model.graph.node) for body in bodies(node))):
        texts += [v.name for part in (graph.input, graph.output, graph.value_info) for v in part]
        texts += [graph.name, graph.doc_string]
        values = (*graph.input, *graph.output, *graph.value_info)
        texts += [text for v in values for text in (v.doc_string, v.type.denotation)]
        texts += [text for v in values for d in v.type.tensor_type.shape.dim for text in (d.dim_param, d.denotation)]
    for node in nodes(model.graph.node, *(f.node for f in model.functions)):
        texts += [node.name, node.op_type, node.domain, node.doc_string, *node.input, *node.output]
        texts += [text for a in node.attribute for text in (a.name, a.ref_attr_name, a.doc_string)]
    for text in texts:
        if not isinstance(text, str):
            raise ModelError(f"a name in it is not valid UTF-8: {quoted(text)}; the file is damaged")


def unknown_operators(model: ModelProto) -> list[str]:
    """Operators of which neither onnx, onnxruntime nor the model itself is known to have a definition, sorted."""
    local = {(f.domain, f.name) for f in model.functions}
    used = {(n.domain, n.op_type) for n in nodes(model.graph.node, *(f.node for f in model.functions))} - local
    unknown = ((d, o) for d, o in used if d not in KNOWN and not onnx.defs.has(o, "" if d in DEFAULT else d))
    return sorted(o if d in DEFAULT else f"{d}:{o}" for d, o in unknown)


def checker_warnings(model: ModelProto) -> list[str]:
    """What `onnx.checker` says; a warning, since it refuses models that runtimes run and accepts some they do not."""
    unknown = unknown_operators(model)
    warnings = [
        f"onnx {onnx.__version__} does not define {quoted(name)}: left as it is, if onnxruntime can run it"
        for name in unknown
    ]
    if any(":" not in name for name in unknown):  # the checker prints to standard output about some of these
        return warnings
    try:
        onnx.checker.check_model(skeleton(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        warnings.append(f"onnx.checker: {plain(reason)}")
    return warnings


def skeleton(model: ModelProto) -> ModelProto:
    """A copy in which every tensor over 4 KiB is empty, so that the checker costs no second copy of the weights.

    The checker compares names, attributes and types with the operators' schemas and looks at no shape.
    """
    copy = ModelProto()
    copy.MergeFromString(b"".join(chunks(encode(model, lambda _: [], KEPT))))
    for tensor in tensors(copy):
        if not tensor.HasField("raw_data") and not any(len(getattr(tensor, name)) for name in TYPED_FIELDS):
            tensor.dims[:] = [0]
    return copy
