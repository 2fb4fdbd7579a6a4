"""The command line."""

from onnxprune.cli.entry import main

__all__ = ["main"]
