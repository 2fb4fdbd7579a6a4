"""The shape of the package: files and functions that can be read at once, and no file that needs itself."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "onnxprune").rglob("*.py"))
NAMES = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES}


def imported(tree: ast.Module) -> Iterator[str]:
    """Files of the package that one of them imports: at its top, inside functions, and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in NAMES:
            yield from (
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in NAMES else node.module for a in node.names
            )
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in NAMES)


def test_files_and_functions_are_short() -> None:
    long = [f.name for f in FILES if len(f.read_text().splitlines()) > 300]
    for file in FILES:
        functions = (n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef))
        long += [f"{file.name}: {n.name}" for n in functions if n.end_lineno - n.lineno >= 40]
    assert not long


def test_no_file_needs_itself() -> None:
    needs = {name: set(imported(ast.parse(file.read_text()))) - {name} for name, file in NAMES.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise AssertionError(" needs ".join(error.args[1])) from None


def test_no_file_name_stands_twice() -> None:
    names = [f.name for f in FILES if not f.name.startswith("__")]
    assert {name for name in names if names.count(name) > 1} == set()
