"""Products of matrices, and what onnxruntime fuses into them."""

import torch
from torch import Tensor

from onnxprune.operators.products import matrix_axes
from onnxprune.training.operators.activations import fused
from onnxprune.training.operators.table import Node, differentiable


@differentiable("MatMul", layer=True)
def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@differentiable("Gemm", layer=True)
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha · A B + beta · C."""
    a, b = a.T if node.get("transA") else a, b.T if node.get("transB") else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = a @ b if alpha == 1 else alpha * (a @ b)
    return y if c is None else y + (c if beta == 1 else beta * c)


@differentiable("com.microsoft:FusedGemm", layer=True)
def fused_gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    return fused(node, gemm(node, a, b, c))


@differentiable("com.microsoft:FusedMatMul", "com.microsoft:TransposeMatMul", layer=True)
def fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    sides = [
        x.permute(matrix_axes(x.dim(), node.get(f"trans{side}", 0), node.get(f"transBatch{side}", 0)))
        if x.dim() > 1
        else x
        for x, side in ((a, "A"), (b, "B"))
    ]
    return node.get("alpha", 1.0) * torch.matmul(*sides)


@differentiable("Einsum", layer=True)
def einsum(node: Node, *x: Tensor) -> Tensor:
    return torch.einsum(node.get("equation").replace(" ", ""), *x)


@differentiable("Det")
def det(node: Node, x: Tensor) -> Tensor:
    return torch.linalg.det(x)


@differentiable("com.microsoft:CDist")
def cdist(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Distances between the rows of two matrices."""
    squared = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
    return squared if node.get("metric", "sqeuclidean") == "sqeuclidean" else squared.sqrt()
