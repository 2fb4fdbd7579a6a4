"""onnx's shape inference, kept at arm's length: native code that takes the attributes of a node at their word.

An axis of 2^63 at a LayerNormalization or one output too many at a Split ends the process that infers (onnx 1.23.2),
and no exception handler notices.  Another process therefore does the inference; it is sent encoded models and answers
with encoded models.  A model that kills it, or keeps it busy for too long, has no inferred shapes.
"""

import atexit
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import numpy as np
import onnx
import onnx.onnx_cpp2py_export

from onnxprune.model import inferrer
from onnxprune.model.sound import is_well_formed
from onnxprune.processes import end, exactly

Type = tuple[int, tuple[int, ...]]  # of the elements of a value, and its shape

CRASHES = 10  # after which a model is left without inference: no network, but an attack
HERE = bool(getattr(sys, "frozen", False)) or not sys.executable  # no Python to start: infer in this process


class Inference:
    """Shape inference for one analysis."""

    def __init__(self) -> None:
        self.crashes = 0
        self.answers: dict[tuple[object, ...], list[onnx.TypeProto | None]] = {}

    def of_model(self, model: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto | None:
        """The model with inferred shapes recorded; None where inference fails as a whole, by exception or by crash."""
        if self.crashes >= CRASHES:
            return None
        try:
            answer = _answer(model.SerializeToString(), data_prop)
        except TimeoutError:
            self.crashes = CRASHES
        except EOFError:
            self.crashes += 1
        except Exception:  # the model cannot be encoded; protobuf implementations each have their own errors
            return None
        else:
            return None if answer is None else onnx.ModelProto.FromString(answer)
        return None

    def of_node(
        self, node: onnx.NodeProto, opset: int, types: Mapping[str, Type], data: Mapping[str, np.ndarray]
    ) -> Mapping[str, onnx.TypeProto]:
        """Types of the outputs of one node of the default domain, as far as they can be inferred.

        What has been asked of a node that differs in names alone is remembered.

        Args:
            node: its inputs are named as in `types`.
            opset: version of the default operator set.
            types: of the inputs, which have one.
            data: values of some inputs.
        """
        place = {name: k for k, name in enumerate(types)}
        taken, given = tuple(place.get(name) for name in node.input), tuple(map(bool, node.output))
        told = tuple(attribute.SerializeToString() for attribute in node.attribute)
        known = tuple((place[name], x.dtype.str, x.shape, x.tobytes()) for name, x in data.items())
        question = (node.domain, node.op_type, opset, told, taken, given, tuple(types.values()), known)
        if question not in self.answers:
            self.answers[question] = self._of_node(node, opset, types, data)
        return {name: t for name, t in zip(node.output, self.answers[question], strict=True) if t is not None}

    def _of_node(
        self, node: onnx.NodeProto, opset: int, types: Mapping[str, Type], data: Mapping[str, np.ndarray]
    ) -> list[onnx.TypeProto | None]:
        if not is_well_formed(node, opset):
            return [None] * len(node.output)  # it stays unknown, and the analysis freezes what it would need it for
        graph = onnx.GraphProto(name="node")
        graph.node.add().CopyFrom(node)
        graph.input.extend(onnx.helper.make_tensor_value_info(n, *t) for n, t in types.items() if n not in data)
        graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in data.items())
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
        found = self.of_model(model)
        inferred = {} if found is None else {v.name: v.type for v in found.graph.value_info}
        return [inferred.get(name) for name in node.output]


class _Child:
    """The process that infers; one for all analyses of this process."""

    def __init__(self) -> None:
        self.owner, self.seconds = os.getpid(), inferrer.SECONDS
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", inferrer.__file__, onnx.onnx_cpp2py_export.__file__, str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
        )

    def ask(self, encoded: bytes, data_prop: bool) -> bytes | None:
        """The answer to one model; None where inference raised.  Raises EOFError and TimeoutError."""
        begun = time.monotonic()
        try:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(struct.pack("<?Q", data_prop, len(encoded)) + encoded)
            self.process.stdin.flush()
            (length,) = struct.unpack("<Q", exactly(self.process.stdout, 8))
            return None if length == inferrer.FAILED else bytes(exactly(self.process.stdout, length))
        except (OSError, EOFError) as error:
            late = time.monotonic() - begun >= self.seconds
            raise (TimeoutError if late else EOFError) from error

    def end(self) -> None:
        """End the process."""
        if self.owner == os.getpid():  # not in a fork of the one that started it
            end(self.process)


_lock = threading.Lock()
_child: _Child | None = None


def _answer(encoded: bytes, data_prop: bool) -> bytes | None:
    global _child
    if HERE:
        return onnx.shape_inference.C.infer_shapes(encoded, False, False, data_prop)
    with _lock:
        if _child is None or _child.owner != os.getpid():
            _child = _Child()
        try:
            return _child.ask(encoded, data_prop)
        except BaseException:  # also of a signal: an answer that nobody waits for must not be taken for the next one
            _end()
            raise


def _end() -> None:
    global _child
    if _child is not None:
        child, _child = _child, None
        child.end()


atexit.register(_end)
