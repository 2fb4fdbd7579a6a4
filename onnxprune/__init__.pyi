"""Structured pruning of ONNX models: whole channels removed, and the surgery proven exact."""

# Written by tests/stubs.py from the table of options (onnxprune/pipeline/table.py).

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxprune.channels import Dependencies as Dependencies
from onnxprune.channels import analyse as analyse
from onnxprune.errors import CheckFailed as CheckFailed
from onnxprune.errors import FileError as FileError
from onnxprune.errors import ModelError as ModelError
from onnxprune.errors import OnnxPruneError as OnnxPruneError
from onnxprune.errors import UsageError as UsageError
from onnxprune.pipeline.apply import apply as apply
from onnxprune.pipeline.curves import sensitivity as sensitivity
from onnxprune.pipeline.inspection import inspect as inspect
from onnxprune.pipeline.prune import Result as Result
from onnxprune.pipeline.prune import prune as prune
from onnxprune.pipeline.request import Request as Request
from onnxprune.pipeline.sensitivity import Sensitivity as Sensitivity
from onnxprune.pipeline.verify import Verdict as Verdict
from onnxprune.pipeline.verify import verify as verify
from onnxprune.report import Report as Report
from onnxprune.report.inspection import Inspection as Inspection
from onnxprune.surgery import Plan as Plan

__version__: str
