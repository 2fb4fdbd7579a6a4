"""What torch computes for each operator: a function per operator, in files by family."""

from onnxprune.training.operators import (
    activations,
    attention,
    control,
    convolution,
    elementwise,
    indexing,
    matrices,
    normalization,
    pooling,
    quantization,
    quantized,
    recurrent,
    reductions,
    resize,
    shapes,
)
from onnxprune.training.operators.table import TABLE, Node, Operator, Scaling, differentiable, without_gradient

__all__ = ["TABLE", "Node", "Operator", "Scaling", "differentiable", "without_gradient"]

_FAMILIES = (  # imported for what they register
    activations, attention, control, convolution, elementwise, indexing, matrices, normalization, pooling, quantization,
    quantized, recurrent, reductions, resize, shapes,
)  # fmt: skip
