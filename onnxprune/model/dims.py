"""Sizes that a file names by an expression of other ones, such as `P+T` or `(s0 + 1)//2`: parsed, never executed."""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

LONGEST = 200  # characters of an expression
LARGEST = 1 << 40  # no size that is computed is larger

_OPERATORS: Mapping[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
}
_CALLS: Mapping[str, Callable[..., int]] = {
    "max": max,
    "min": min,
    "mod": operator.mod,
    "floor": lambda n: n,
    "floordiv": operator.floordiv,
    "ceildiv": lambda a, b: -(-a // b),
}


@dataclass(frozen=True)
class Expression:
    """A size that is computed from others."""

    tree: ast.expr
    names: frozenset[str]

    def at(self, sizes: Mapping[str, int]) -> int | None:
        """Its value where the sizes that it names are these; None where it has none, such as a division by zero."""
        try:
            value = _value(self.tree, sizes)
        except (ArithmeticError, KeyError):
            return None
        return value if abs(value) < LARGEST else None

    def solved(self, name: str, value: int, sizes: Mapping[str, int]) -> int | None:
        """The smallest size of one of its names with which it has this value, if the others have those."""
        tried = range(1, 2 * max(value, 1) + 3)
        return next((n for n in tried if self.at({**sizes, name: n}) == value), None)


def expressions(dims: Iterable[str]) -> dict[str, Expression]:
    """Those of the names of a model's open sizes that are computed from others, parsed.

    `batch-size` is a name like any other unless the model has a size called `batch`, or `size`, too.
    """
    texts = list(dict.fromkeys(dims))
    parsed = {text: found for text in texts if (found := _parsed(text)) is not None}
    alone = {text: parsed[text].names if text in parsed else frozenset({text}) for text in texts}
    return {
        text: found
        for text, found in parsed.items()
        if len(found.names) == 1 or any(found.names & names for other, names in alone.items() if other != text)
    }


def _parsed(text: str) -> Expression | None:
    """An expression with operators and at least one name."""
    if len(text) > LONGEST or not re.fullmatch(r"[\w\s+\-*/%(),]*[+\-*/%(][\w\s+\-*/%(),]*", text, re.ASCII):
        return None
    with suppress(SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        tree = ast.parse(text.strip(), mode="eval").body
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}
        found = Expression(tree, frozenset(names))
        with suppress(ArithmeticError):
            _value(tree, dict.fromkeys(names, 1))  # raises ValueError for what is no arithmetic
        return found if names else None
    return None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    """Raises ValueError for what is no arithmetic of sizes, KeyError for a size that is not given."""
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return sizes[name]
        case ast.UnaryOp(op=sign, operand=inner) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(inner, sizes))
        case ast.BinOp(left=a, op=sign, right=b) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(a, sizes), _value(b, sizes))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name.lower() in _CALLS:
            return _CALLS[name.lower()](*(_value(a, sizes) for a in args))
    raise ValueError(ast.dump(node))
