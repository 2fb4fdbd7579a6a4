"""The state of a training in a file, written whole or not at all."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from onnxprune.errors import FileError, UsageError
from onnxprune.model.atomic import temporary
from onnxprune.model.tensors import quoted

VERSION = 2


def write(path: str, key: str, state: dict[str, Any]) -> None:
    """Put a state in a file in one step.

    Args:
        key: of the job; only the same job can go on from it.
        state: tensors, numbers and texts, in lists and dicts.

    Raises FileError.
    """
    held = io.BytesIO()
    torch.save({"version": VERSION, "key": key, **state}, held)
    target = Path(path).absolute()
    with temporary(target) as made:
        made.write([held.getvalue()])
        made.publish(target)


def read(path: str, key: str, device: str) -> dict[str, Any] | None:
    """The state of this job; None where there is no file yet.

    Raises:
        FileError: the file cannot be read.
        UsageError: it is no state of a training, or one of another job.
    """
    target = Path(path)
    if not target.exists():
        return None
    try:
        state = torch.load(target, map_location=device, weights_only=True)
    except OSError as error:
        raise FileError(f"cannot read {quoted(path)}: {error.strerror or error}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        state = None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise UsageError(f"{quoted(path)} is no state of a training; name another file to resume from")
    if state.get("key") != key:
        raise UsageError(
            f"{quoted(path)} belongs to another training (other networks, samples, rate, batch or seed); "
            "name another file"
        )
    return state
