"""Which channels of a network live and die together: labels, operator rules, groups, reasons."""

from onnxprune.channels.analysis import analyse
from onnxprune.channels.dependencies import Dependencies, Group, Slot

__all__ = ["Dependencies", "Group", "Slot", "analyse"]
