"""Dependencies of the package: whether a wheel of onnxruntime is one.

The wheels of onnxruntime (plain, for CUDA, for DirectML) unpack into one folder, so that one put over another breaks
both; and no dependency says "any of these".  An installation from source therefore looks whether there is one, and else
brings the usual one, the extra `gpu`.  What is built for an index, with ONNXPRUNE_RELEASE=1, leaves it to the extras,
and so does what is installed from such a source archive.
"""

import ast
import os
import re
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class RuntimeHook(MetadataHookInterface):
    """Fills in `dependencies`, from those that are always needed and from what is installed."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling, in the environment that the package is built for."""
        brings = not (os.environ.get("ONNXPRUNE_RELEASE") or has_runtime())
        metadata["dependencies"] = [*self.config["always"], *(metadata["optional-dependencies"]["gpu"] * brings)]


def has_runtime() -> bool:
    """Whether any wheel of onnxruntime is installed where this interpreter installs packages."""
    folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    names = (found.metadata["Name"] or "" for found in distributions(path=folders))
    return not wheels().isdisjoint(re.sub(r"[-_.]+", "-", name).lower() for name in names)


def wheels() -> frozenset[str]:
    """The distributions that unpack into the folder `onnxruntime`, from the list that the package has of them."""
    source = Path(__file__).with_name("onnxprune") / "runtime" / "engine.py"
    found = (node for node in ast.parse(source.read_text("utf-8")).body if isinstance(node, ast.Assign))
    return frozenset(next(ast.literal_eval(node.value) for node in found if ast.unparse(node.targets[0]) == "WHEELS"))
