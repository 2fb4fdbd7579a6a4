"""`onnxprune/__init__.pyi`, written from the package: what editors and type checkers see of the public functions.

python tests/stubs.py        # after a change to the table of options
"""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import onnxprune

HEAD = '''"""Structured pruning of ONNX models: whole channels removed, and the surgery proven exact."""

# Written by tests/stubs.py from the table of options (onnxprune/pipeline/table.py).

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

'''
STUB = Path(__file__).parents[1] / "onnxprune" / "__init__.pyi"
MODULES = re.compile(r"\b(collections\.abc|typing|onnxprune(\.\w+)*)\.(?=[A-Z])")


def stub() -> str:
    """The text of the stub."""
    imports, functions = [], []
    for name, home in onnxprune._HOMES.items():
        value = getattr(onnxprune, name)
        if hasattr(value, "__signature__"):
            functions.append(written(name, value))
        else:
            imports.append(f"from {_module(home)} import {name} as {name}\n")
    others = {
        "onnxprune.pipeline.finetune": "Trained",
        "onnxprune.pipeline.verify": "Verdict",
        "onnxprune.report.inspection": "Inspection",
    }
    imports += [f"from {home} import {name} as {name}\n" for home, name in others.items()]
    return HEAD + "".join(sorted(imports)) + "\n__version__: str\n" + "".join(functions)


def written(name: str, function: Any) -> str:
    """A function as it stands in a stub: its signature, a parameter a line, and the first line of its docstring."""
    signature = inspect.signature(function)
    lines, star = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            lines, star = [*lines, "*"], True
        default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
        lines.append(f"{parameter.name}: {_type(parameter.annotation)}{default}")
    body = "".join(f"    {line},\n" for line in lines)
    text = (function.__doc__ or "").replace("\n", "\n    ").replace("\n    \n", "\n\n").rstrip()
    return f'\ndef {name}(\n{body}) -> {_type(signature.return_annotation)}:\n    """{text}\n    """\n'


def _module(home: str) -> str:
    return import_module(f"onnxprune.{home}").__name__


def _type(annotation: Any) -> str:
    return MODULES.sub("", inspect.formatannotation(annotation))


def _default(value: Any) -> str:
    return "..." if callable(value) or value == {} else repr(value).replace("'", '"')


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
