"""A node of a network, as the analysis visits it."""

from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class Node:
    """A node in the order of the analysis, with the keys of what it takes and gives."""

    proto: onnx.NodeProto
    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """How messages call the node: its name, else its first output."""
        return self.proto.name or next(filter(None, self.outputs), self.proto.op_type)

    def __str__(self) -> str:
        return f"{self.label} ({self.proto.op_type})"
