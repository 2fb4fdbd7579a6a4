"""The basis in which a width is cut best: an eigen-decomposition of what makes it and what takes it in.

A width x (rows) that is read by y = x·W may be x·A, read by A⁻¹·W, for any invertible A.  With P = E[xxᵀ] and G = WWᵀ
(for queries and keys: the second moment of the keys), what is lost when only r positions stay is least where P½·G½ =
U·S·Vᵀ and A = P^−½·U·S½, A⁻¹ = S^−½·Uᵀ·P½: it is the sum of the squared singular values behind the first r (Eckart and
Young 1936, doi 10.1007/BF02288367).  With G = 1 this is a principal component analysis, as in SliceGPT (Ashkboos et
al., ICLR 2024, arXiv 2401.15024).
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular, svd

FLOOR = 1e-6  # of the mean energy, that every direction has: what no sample moves can still be inverted


@dataclass(frozen=True)
class Basis:
    """A, its inverse, both (blocks, width, width), and the energy of each position, (blocks, width), largest first."""

    matrix: np.ndarray
    inverse: np.ndarray
    energy: np.ndarray


def basis_of(made: np.ndarray, read: np.ndarray) -> Basis:
    """The best basis of each block; `made` and `read` are P and G of the module, (blocks, width, width)."""
    found = [_one(p, g) for p, g in zip(made, read, strict=True)]
    return Basis(*(np.stack(part) for part in zip(*found, strict=True)))


def orthogonal(basis: Basis) -> Basis:
    """Orthonormal columns, of which the first r span what the first r of the basis do, for every r.

    Readers that are solved again lose the same, and errors of what makes the width keep their size.
    """
    q, r = np.linalg.qr(basis.matrix)
    q = q * np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None, :]
    return Basis(q, q.transpose(0, 2, 1), basis.energy)


def _one(made: np.ndarray, read: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    root, other = _root(made), _root(read)
    u, s, _ = svd(root @ other.T)
    largest = u[np.abs(u).argmax(axis=0), np.arange(len(s))]
    u = u * np.where(largest < 0, -1.0, 1.0)  # of the two signs of a singular vector always the same one
    half = np.sqrt(np.maximum(s, FLOOR * s[0]))
    return solve_triangular(root, u) * half, (u.T @ root) / half[:, None], s**2


def _root(moment: np.ndarray) -> np.ndarray:
    """Upper triangular R with RᵀR = the moment, and a little in every direction."""
    size = max(float(np.trace(moment)) / len(moment), 1e-30)
    return cholesky(moment + FLOOR * size * np.eye(len(moment)))
