"""The table of operators: every column is filled, or it is said why not; and the shortest way to a new row."""

import re

import numpy as np
import onnx
import pytest
from cli_runs import ROOT
from onnx import ModelProto, helper, numpy_helper

import onnxprune
from onnxprune.channels import analyse
from onnxprune.operators.registry import OPERATORS, Trait, never
from onnxprune.runtime.taps import find_taps
from onnxprune.surgery.recovery.solvable import has_weights, is_solvable

MS = "com.microsoft:"
DRAWS = "RandomNormal RandomUniform Multinomial RandomNormalLike RandomUniformLike Bernoulli"
SEQUENCES = "SequenceAt SequenceLength SplitToSequence ConcatFromSequence"
OPTIONALS = "Optional OptionalGetElement"
BODIES = "If Loop Scan"
BY_DATA = "Compress OneHot NonMaxSuppression NonZero Unique"
SIZES = "Shape Size Range"
NO_SHAPE = "DynamicSlice Reverse SequenceLength Optional com.microsoft:CDist"
BITS = "BitwiseNot BitwiseAnd BitwiseOr BitwiseXor BitShift"
DECISIONS = "IsInf IsNaN Not And Or Xor Equal Greater Less GreaterOrEqual LessOrEqual Mod ArgMax ArgMin"
UNKNOWN = {
    "hides what it takes": f"{SEQUENCES} {BODIES}",
    "draws numbers": f"{DRAWS} EyeLike",
}

# Operators that lack a column, and why.
ABSENT: dict[str, dict[str, str]] = {
    "couple": {
        "is known by its shape alone": f"{MS}GroupNorm {MS}BiasSoftmax {MS}QAttention {MS}QLinearReduceMean "
        f"{MS}MatMulBnb4 {MS}MatMulNBits {MS}Trilu {MS}GridSample {MS}BiasSplitGelu {MS}Inverse {MS}ScaledSiLU",
        "is known in training alone": f"Det {MS}CDist MaxUnpool SequenceConstruct SequenceEmpty SequenceErase "
        "SequenceInsert",
    },
    "zero": UNKNOWN | {
        "gives what the data says": BY_DATA,
        "is not 0 at 0": "Exp HardSigmoid Log Sigmoid Softplus Acos Acosh Cos Cosh Reciprocal Affine "
        "ParametricSoftplus ScaledTanh ImageScaler ReduceLogSum ReduceLogSumExp",
        "gives sizes, indices, booleans or bits": f"{SIZES} {DECISIONS} {BITS} TopK",
        "divides by statistics, which are 0 too": "MeanVarianceNormalization LpNormalization Softmax LogSoftmax "
        f"Hardmax {MS}SkipSimplifiedLayerNormalization {MS}SkipLayerNormalization {MS}EmbedLayerNormalization",
        "has zero points of its own": f"{MS}QLinearAdd {MS}QLinearMul {MS}QLinearLeakyRelu {MS}QLinearSigmoid "
        f"{MS}QLinearSoftmax {MS}QLinearWhere {MS}QLinearGlobalAveragePool {MS}QLinearAveragePool {MS}QLinearConcat "
        f"QLinearMatMul {MS}QGemm",
        "nobody sums over it": f"Attention {MS}Attention {MS}MultiHeadAttention {MS}GroupQueryAttention "
        f"RotaryEmbedding {MS}RotaryEmbedding {MS}DynamicQuantizeMatMul {MS}NhwcMaxPool "
        "ReverseSequence Reverse",
    },
    "bound": UNKNOWN | {
        "gives what the data says": f"{BY_DATA} {OPTIONALS}",
        "gives sizes, which are no channels": SIZES,
        "normalises over channels: of one alone nothing is known": "LayerNormalization Hardmax "
        f"{MS}SkipLayerNormalization {MS}SkipSimplifiedLayerNormalization {MS}EmbedLayerNormalization "
        f"{MS}QLinearSoftmax",
        "takes its scale from all that it takes": f"DynamicQuantizeLinear {MS}DynamicQuantizeLSTM",
        "freezes the channels that it takes": "ImageScaler",
        "was experimental, or is rare": "Col2Im Reverse DynamicSlice",
    },
    "channelwise or contracts": UNKNOWN | {
        "gives what the data says": f"{BY_DATA} {OPTIONALS}",
        "gives sizes or bits": f"Range {BITS}",
        "all axes of channels come together": f"LSTM GRU RNN {MS}DynamicQuantizeLSTM Attention {MS}Attention "
        f"{MS}MultiHeadAttention {MS}GroupQueryAttention RotaryEmbedding {MS}RotaryEmbedding "
        f"DynamicQuantizeLinear {MS}QLinearSoftmax {MS}SkipLayerNormalization {MS}SkipSimplifiedLayerNormalization "
        f"{MS}EmbedLayerNormalization Col2Im DeformConv {MS}FusedConv",
        "is rare": f"MatMulInteger QLinearMatMul {MS}MatMulIntegerToFloat {MS}DynamicQuantizeMatMul "
        f"{MS}QGemm Reverse DynamicSlice",
    },
    "forward": {
        "is rare": f"MaxRoiPool RoiAlign Optional OptionalGetElement Reverse {MS}QLinearReduceMean {MS}BiasAdd "
        f"{MS}BiasSoftmax {MS}BiasSplitGelu {MS}GroupNorm {MS}Inverse {MS}ScaledSiLU {MS}NhwcMaxPool "
        f"{MS}SimplifiedLayerNormalization",
        "has packed weights": f"{MS}DynamicQuantizeLSTM {MS}QAttention {MS}MatMulBnb4 {MS}MatMulNBits",
    },
}  # fmt: skip


def lacks(column: str, name: str) -> bool:
    row = OPERATORS[name]
    if column in ("couple", "forward"):
        return getattr(row, column) is None
    if column == "channelwise or contracts":
        return row.couple is not None and not row.channelwise and row.contracts is None
    return row.couple is not None and getattr(row, column) in (None, never)


@pytest.mark.parametrize("column", ABSENT)
def test_every_column_is_filled_or_it_is_said_why_not(column: str) -> None:
    told = [name for names in ABSENT[column].values() for name in names.split()]
    assert len(told) == len(set(told))
    assert {name for name in OPERATORS if lacks(column, name)} == set(told)


def test_every_file_with_rows_fills_the_table() -> None:
    folder = ROOT / "onnxprune" / "operators"
    rows = {file.stem for file in folder.glob("*.py") if re.search(r"^ *define\(", file.read_text(), re.MULTILINE)}
    filled = set(re.findall(r"^    (\w+),$", (folder / "__init__.py").read_text(), re.MULTILINE))
    assert rows == filled


def test_what_onnx_does_not_infer_has_a_shape() -> None:
    for name, row in OPERATORS.items():
        schema = onnx.defs.get_schema(name) if onnx.defs.has(name) else None
        known = schema is not None and (schema.has_type_and_shape_inference_function or schema.has_function)
        fine = known or row.shape is not None or row.traits == Trait.BODIES
        assert fine or name in NO_SHAPE.split(), name


def test_layers_have_all_that_a_repair_needs() -> None:
    layers = {name for name, row in OPERATORS.items() if not callable(row.traits) and row.traits & Trait.LINEAR}
    assert layers == {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    assert all(OPERATORS[n].filters and OPERATORS[n].linear and OPERATORS[n].work for n in layers)


FUSED = "FusedConv FusedGemm FusedMatMul TransposeMatMul MatMulIntegerToFloat DynamicQuantizeMatMul".split()


@pytest.mark.parametrize("name", FUSED)
def test_what_onnxruntime_fuses_multiplies_by_weights_too(name: str) -> None:
    node = helper.make_node(name, ["x", "w"], ["y"], domain="com.microsoft")
    x, y = (helper.make_tensor_value_info(n, 1, None) for n in "xy")
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [weight]))
    assert find_taps(model).layers == ("y",)
    assert has_weights(node)
    assert not is_solvable(node)


# --- a new operator ----------------------------------------------------------------


def network(rng: np.random.Generator) -> ModelProto:
    """Two convolutions, an activation of onnxruntime's between them; half of the filters in front are zero."""
    first, last = (rng.standard_normal(s).astype(np.float32) for s in ((8, 3, 3, 3), (4, 8, 3, 3)))
    first[::2] = 0
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("QuickGelu", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("Conv", ["b", "last"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", (1, 3, 9, 9)), ("y", (1, 4, 5, 5)))]
    tensors = [numpy_helper.from_array(a, n) for n, a in (("first", first), ("last", last))]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def test_the_example_of_contributing_makes_an_operator_known(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(np.random.default_rng(0))
    text = (ROOT / "CONTRIBUTING.md").read_text()
    example = next(code for code in re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE) if "define(" in code)
    monkeypatch.delitem(OPERATORS, "com.microsoft:QuickGelu")
    assert analyse(model).groups == ()
    exec(compile(re.sub("^    ", "", example, flags=re.MULTILINE), "CONTRIBUTING.md", "exec"), {})
    assert [len(g) for g in analyse(model).groups] == [8]
    plain = onnxprune.prune(model, ratio=0.5, round_to=1, compensate="none", measure=False)  # proven in onnxruntime
    exact = onnxprune.prune(model, lossless=True, measure=False)
    assert plain.model.graph.initializer[0].dims[0] == exact.model.graph.initializer[0].dims[0] == 4
