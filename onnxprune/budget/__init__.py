"""How many channels each group keeps: costs in, counts out."""

from onnxprune.budget.allocate import Allocation, Budget, allocate
from onnxprune.budget.cost import Costs

__all__ = ["Allocation", "Budget", "Costs", "allocate"]
