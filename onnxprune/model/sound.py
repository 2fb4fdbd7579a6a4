"""Nodes that onnx's own shape inference can be trusted with.

It looks at inputs before it knows that they are there: a RegexFullMatch with an empty input name ends the process
(onnx 1.23.2).  The checker knows of such nodes, one at a time.  A few operators do the same with an input whose type is
not known; those are left to the inference of single nodes, which is told all types.
"""

from collections.abc import Sequence

import onnx

from onnxprune.model.graphs import is_constant, refill

# All operators of onnx 1.23.2, in all versions, were given an input of unknown type, with each attribute in turn.
FRAGILE = frozenset({"EyeLike", "RegexFullMatch", "DictVectorizer", "LabelEncoder", "TreeEnsemble"})


def without_unsound(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or a copy without the nodes that are not as their operators' definitions want them."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {o.domain: o.version for o in model.opset_import}
    if all(_is_sound(node, context) for part in (model.graph, *model.functions) for node in part.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not all(_is_sound(node, context) for function in model.functions for node in function.node):
        del copy.functions[:]
    refill(copy.graph.node, [node for node in copy.graph.node if _is_sound(node, context)])
    return copy


def _is_sound(node: onnx.NodeProto, context: onnx.checker.C.CheckerContext) -> bool:
    if node.op_type in FRAGILE:
        return False
    bodies = [a.g for a in node.attribute[:] if a.type == onnx.AttributeProto.GRAPH]
    if bodies:  # the checker would not find the values that they take from outside
        return all(_is_sound(inner, context) for body in bodies for inner in body.node) and _has_inputs(node, context)
    if is_constant(node) and not node.input:  # its data may be left out here, which the checker minds
        return len(node.attribute) == 1
    try:
        onnx.checker.check_node(node, context)
    except onnx.checker.ValidationError as error:
        return "deprecated" in str(error) and _has_inputs(node, context)
    except ValueError:  # the node cannot be encoded
        return False
    return True


def is_well_formed(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node of the default domain has the inputs and attributes that its operator's definition wants."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = onnx.IR_VERSION, {"": opset}
    try:
        onnx.checker.check_node(node, context)
    except (onnx.checker.ValidationError, ValueError):
        return False
    return True


def _has_inputs(node: onnx.NodeProto, context: onnx.checker.C.CheckerContext) -> bool:
    """Whether the inputs are there that the operator cannot do without."""
    version = context.opset_imports.get(node.domain, context.opset_imports.get("ai.onnx", 1))
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return True
    given: Sequence[str] = node.input
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional  # as both numbers of rounds of a Loop are
    needed = zip(given[: schema.min_input], schema.inputs, strict=False)
    return len(given) >= schema.min_input and all(name or wanted.option == optional for name, wanted in needed)
