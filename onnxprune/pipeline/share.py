"""Shares as people write them: 0.5 and "50%" are the same, and 50 is a slip."""

from typing import Any

from onnxprune.errors import UsageError


def share(value: Any, what: str, low: float = 0.0, high: float = 1.0) -> float:
    """A share from a number or from a text such as "0.5" or "50%".

    Raises UsageError, with `what` it is a share of, for what is none; what looks like a percentage without its sign is
    met with a question.
    """
    text = str(value).strip()
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{what} is a share, like 0.5 or '50%', not {value!r}") from None
    if not low <= number <= high:
        raise UsageError(f"{what} lies between {low:g} and {high:g}, and {text} does not{meant(number)}")
    return number


def meant(number: float) -> str:
    """The question whether a number above 1 was to be a percentage, to be put at the end of a refusal."""
    return f"; did you mean {number:g}%?" if 1 < number < 100 else ""
