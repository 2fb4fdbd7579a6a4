"""How many channels each group keeps: costs in, counts out."""

from onnxprune.budget.allocate import KINDS, Allocation, Budget, allocate, allocator_of, hand_back, step_of
from onnxprune.budget.cost import Costs
from onnxprune.budget.order import ALLOCATORS

__all__ = [
    "ALLOCATORS",
    "KINDS",
    "Allocation",
    "Budget",
    "Costs",
    "allocate",
    "allocator_of",
    "hand_back",
    "step_of",
]
