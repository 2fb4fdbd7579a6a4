"""What a run tells its user."""

from onnxprune.report.summary import DriftRow, Figures, FrozenRow, GroupRow, MetricRow, Report

__all__ = ["DriftRow", "Figures", "FrozenRow", "GroupRow", "MetricRow", "Report"]
