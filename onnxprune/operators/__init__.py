"""What onnxprune knows of ONNX operators: one row for each, in the file of its family."""

from onnxprune.operators import (  # noqa: F401  (these fill the table)
    activations,
    attention,
    broadcast,
    convolution,
    einsum,
    fused_attention,
    integer_products,
    maps,
    normalization,
    pooling,
    products,
    quantized,
    recurrent,
    reduction,
    reshaping,
    resizing,
    scattering,
    selection,
    sizes,
)
