"""Which channels of a group are alike and which matter: arrays in, indices out; no graph in sight."""

from onnxprune.criteria.filters import Filters
from onnxprune.criteria.methods import METHODS, Method, method
from onnxprune.criteria.ranking import Ranking

__all__ = ["METHODS", "Filters", "Method", "Ranking", "method"]
