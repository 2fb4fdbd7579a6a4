"""What a repair sees of a node in the pruned model, and what it may change."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Node
from onnxprune.channels.index_grids import grid_of
from onnxprune.errors import ModelError
from onnxprune.operators.registry import Trait, has
from onnxprune.surgery.draft import Draft
from onnxprune.surgery.grids import made_grid
from onnxprune.surgery.retrace import retraced, wanted_from, went_through_division

LARGEST_SIZE = 1 << 31  # larger integers are no sizes: "to the end" is such a one


@dataclass
class Edit:
    """One node of the pruned model."""

    draft: Draft
    index: int
    source: Node
    node: onnx.NodeProto  # of the pruned model; may be changed
    uses: Mapping[int, tuple[np.ndarray, ...]]  # live positions of inputs that are tensors of the file

    # --- what may be asked ---------------------------------------------------

    def _box(self, keys: tuple[str, ...], k: int) -> tuple[np.ndarray, ...]:
        box = self.uses.get(k) if keys is self.source.inputs else None
        box = self.draft.box(keys[k]) if box is None else box
        if box is None:
            raise ModelError(f"internal: {self.source} was left with channels that no shape can hold; please report it")
        return box

    def live_in(self, k: int, axis: int) -> np.ndarray:
        return self._box(self.source.inputs, k)[axis]

    def live_out(self, k: int, axis: int) -> np.ndarray:
        return self._box(self.source.outputs, k)[axis]

    def count_in(self, k: int, axis: int) -> int:
        return int(self.live_in(k, axis).sum())

    def count_out(self, k: int, axis: int) -> int:
        return int(self.live_out(k, axis).sum())

    def size_in(self, k: int, axis: int) -> int:
        return self.live_in(k, axis).size

    def rank_in(self, k: int) -> int:
        return len(self._box(self.source.inputs, k))

    def shape_in(self, k: int) -> tuple[int, ...]:
        return tuple(int(m.sum()) for m in self._box(self.source.inputs, k))

    def shape_out(self, k: int) -> tuple[int, ...]:
        return tuple(int(m.sum()) for m in self._box(self.source.outputs, k))

    def sizes_in(self, k: int) -> tuple[int, ...]:
        """The shape of input k, also where it is computed from sizes that follow the cut."""
        known = self.draft.known(self.source.inputs[k])
        return self.shape_in(k) if known is None else known.shape

    def share_in(self, k: int, axes: Iterable[int]) -> float:
        """Which share of the positions of these axes of input k stays; 1 where it is a statistic over what stays."""
        if self.index in self.draft.deps.thawed:
            return 1.0
        return math.prod(float(self.live_in(k, axis).mean()) for axis in {a % self.rank_in(k) for a in axes})

    def renumber(self, k: int, axis: int) -> np.ndarray:
        """New position of every old one of an axis (dead ones get that of the last live one before)."""
        return np.cumsum(self.live_in(k, axis)) - 1

    def ints(self, k: int, attribute: str | None = None) -> list[int] | None:
        """Integers as the pruned model has them, from an attribute or an input; None where left out or unknown."""
        array = self.attribute(attribute) if attribute else None
        if array is None and k < len(self.source.inputs) and self.source.inputs[k]:
            array = self.draft.known(self.source.inputs[k])
        return None if array is None else [int(v) for v in np.atleast_1d(array)]

    def tensor(self, k: int) -> np.ndarray | None:
        """The constant in input k, in its own rank; None where it hangs on the sizes of the model's inputs."""
        return self.draft.deps.arithmetic.constant(self.source.inputs[k])

    def now(self, k: int, attribute: Any = None) -> list[int] | None:
        """Like `ints`, for attributes given by value."""
        return [int(v) for v in np.atleast_1d(attribute)] if attribute is not None else self.ints(k)

    def original(self, k: int, attribute: Any = None) -> list[int] | None:
        """Integers as the original model has them."""
        if attribute is None:
            key = self.source.inputs[k] if k < len(self.source.inputs) else ""
            attribute = self.draft.deps.statics.constants.get(key)
        return None if attribute is None else [int(v) for v in np.atleast_1d(attribute)]

    def attribute(self, name: str) -> Any:
        """Value of an attribute; None where left out."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        return None if found is None else helper.get_attribute_value(found)

    # --- what may be changed -------------------------------------------------

    def set_attribute(self, name: str, value: int | float | list[int]) -> None:
        self.drop_attribute(name)
        self.node.attribute.append(helper.make_attribute(name, value))

    def drop_attribute(self, name: str) -> None:
        for a in [a for a in self.node.attribute if a.name == name]:
            self.node.attribute.remove(a)

    def set_ints(self, k: int, attribute: str | None, changes: Mapping[int, int]) -> None:
        """Let some of the integers of an attribute or of input k be these; what is computed is corrected behind."""
        if not changes:
            return
        if attribute and (given := self.attribute(attribute)) is not None:
            if any(given[j] != v for j, v in changes.items()):
                self.set_attribute(attribute, [changes.get(j, int(v)) for j, v in enumerate(given)])
            return
        key = self.source.inputs[k]
        known, unsteady = self.draft.known(key), self.draft.unsteady(key).ravel()
        assert known is not None
        changes = {j: v for j, v in changes.items() if known.flat[j] != v or unsteady[j]}
        if not changes:
            return
        if self.draft.deps.statics.fixed_constant(key) is not None:
            new = [changes.get(j, int(v)) for j, v in enumerate(known.flat)]
            self.set_tensor(k, np.array(new, known.dtype).reshape(known.shape))
        else:
            self._correct(k, known, changes)

    def set_tensor(self, k: int, array: np.ndarray) -> None:
        """Give input k a constant of its own, in the type of the old one."""
        old = self.tensor(k)
        array = np.asarray(array, np.int64 if old is None else old.dtype)
        stem = f"{self.source.label}.{k}"
        self.node.input[k] = self.draft.add_initializer(self.source.path, stem, array)

    def add_ints(self, k: int, attribute: str, values: list[int]) -> None:
        """Give integers where the node had none: an input where the operator set takes one, else an attribute."""
        if self.draft.opset >= 13:
            while len(self.node.input) <= k:
                self.node.input.append("")
            stem = f"{self.source.label}.{attribute}"
            self.node.input[k] = self.draft.add_initializer(self.source.path, stem, np.array(values, np.int64))
        else:
            self.set_attribute(attribute, values)

    def _correct(self, k: int, told: np.ndarray, changes: Mapping[int, int]) -> None:
        """Correct some entries of integers that are computed at run time, and leave the others computed.

        What has to be 4 and would come out as 8 is multiplied by 4 / 8: a symbolic size may be a factor of it.
        """
        draft, label, path = self.draft, self.source.label, self.source.path
        key, name = self.source.inputs[k], None
        unsteady = draft.unsteady(key).ravel()[list(changes)].any()
        if unsteady or went_through_division(draft, key):
            name = retraced(draft, self.index, self.source, k)
        if unsteady and name is None:
            raise ModelError(f"{label} takes sizes that other graphs compute from channels that go")
        if name is not None:
            was = draft.deps.statics.constants[key]
            self.node.input[k], told, changes = name, was, wanted_from(was, told, changes)
        elif (joined := self._joined_anew(k, told.dtype, changes)) is not None:
            draft.before[self.index].append(joined)
            self.node.input[k] = joined.output[0]
            return
        times, over, plus = np.ones_like(told), np.ones_like(told), np.zeros_like(told)
        for j, v in changes.items():
            factor = 0 < told.flat[j] < LARGEST_SIZE
            times.flat[j], over.flat[j], plus.flat[j] = (v, told.flat[j], 0) if factor else (0, 1, v)
        for op, operand in (("Mul", times), ("Div", over), ("Add", plus)):
            if np.any(operand != (op != "Add")):
                stem = f"{label}.{k}.{op.lower()}"
                name, out = draft.add_initializer(path, stem, operand), draft.fresh_name(f"{stem}.out")
                draft.before[self.index].append(helper.make_node(op, [self.node.input[k], name], [out]))
                self.node.input[k] = out

    def _joined_anew(self, k: int, dtype: np.dtype, changes: Mapping[int, int]) -> onnx.NodeProto | None:
        """The Concat that makes input k, its constant parts rewritten; None where the wrong entries lie elsewhere."""
        deps = self.draft.deps
        maker = deps.maker(self.source.inputs[k])
        if maker is None or not has(maker.proto, Trait.JOINS) or maker.path != self.source.path:
            return None
        inputs, start, left = list(maker.proto.input), 0, dict(changes)
        for j, key in enumerate(maker.inputs):
            part = self.draft.known(key)
            if part is None or part.ndim != 1:
                return None
            inside = {i - start: v for i, v in changes.items() if start <= i < start + part.size}
            if inside and deps.statics.fixed_constant(key) is not None:
                new = np.array([inside.get(i, int(v)) for i, v in enumerate(part)], dtype)
                inputs[j] = self.draft.add_initializer(self.source.path, f"{self.source.label}.{k}.{j}", new)
                left = {i: v for i, v in left.items() if i - start not in inside}
            start += part.size
        if left:
            return None
        output = self.draft.fresh_name(f"{self.source.label}.{k}.joined")
        return helper.make_node("Concat", inputs, [output], axis=0)

    def then_gather(self, axis: int, indices: np.ndarray) -> None:
        """Pick positions of an axis of the output, in a node of their own behind this one."""
        self._then("Gather", "picks", np.asarray(indices, np.int64), axis=axis)

    def then_scale(self, factor: float) -> None:
        """Multiply the output, in a node of its own behind this one."""
        self._then("Mul", "share", np.asarray(factor, self._dtype(self.source.outputs[0])))

    def scale_input(self, k: int, factor: float) -> None:
        """Multiply input k, in a node of its own before this one."""
        self._first(k, "Mul", "scaled", np.asarray(factor, self._dtype(self.source.inputs[k])))

    def gather_input(self, k: int, axis: int, indices: np.ndarray) -> None:
        """Pick positions of an axis of input k, in a node of their own before this one."""
        self._first(k, "Gather", "picks", np.asarray(indices, np.int64), axis=axis)

    def in_place(self, axis: int) -> None:
        """Let the node see what stays of an axis of input 0 where it was, zeros between, and give what stays."""
        live = self.live_in(0, axis)
        if live.all() or self.index in self.draft.deps.thawed:
            return
        room = np.zeros(2 * self.rank_in(0), np.int64)
        room[self.rank_in(0) + axis] = 1
        if self.draft.opset >= 11:
            self._first(0, "Pad", "room", room)
        else:
            self._first(0, "Pad", "room", None, pads=room.tolist())
        self.gather_input(0, axis, np.where(live, self.renumber(0, axis), live.sum()))
        self.then_gather(axis, np.flatnonzero(live))

    def follow_grid(self, data: int, indices: int, picked: Callable[[int], np.ndarray]) -> None:
        """Let a grid of indices (n1, n2, ..., k) name what is left of the first k axes of the data.

        Args:
            data, indices: inputs.
            picked: live positions (positions,) among those that the grid names on an axis.
        """
        keys, at = self.source.inputs, self.draft.deps.arithmetic
        lines = at.grid(keys[data], keys[indices])
        cut = [axis for axis in range(len(lines or ())) if not (self.live_in(data, axis).all() and picked(axis).all())]
        if lines is None or not (cut or keys[indices] in self.draft.restated):
            return
        now = [
            None if line.positions is None or line.whole else self.renumber(data, axis)[line.positions[picked(axis)]]
            for axis, line in enumerate(lines)
        ]
        if self.tensor(indices) is not None:
            self.set_tensor(indices, grid_of([line for line in now if line is not None]))
            return
        told = [line.source.removeprefix(self.source.path) for line in lines]
        nodes = made_grid(self.draft, self.source, self.node.input[data], now, told)
        self.draft.before[self.index].extend(nodes)
        self.node.input[indices] = nodes[-1].output[0]

    def _first(self, k: int, op_type: str, what: str, operand: np.ndarray | None, **attributes: Any) -> None:
        draft, stem = self.draft, f"{self.source.label}.{k}.{what}"
        operands = [] if operand is None else [draft.add_initializer(self.source.path, stem, operand)]
        given = [self.node.input[k], *operands]
        self.node.input[k] = draft.fresh_name(f"{stem}.out")
        made = helper.make_node(op_type, given, [self.node.input[k]], **attributes)
        draft.before[self.index].append(made)

    def _then(self, op_type: str, what: str, operand: np.ndarray, **attributes: Any) -> None:
        draft, name = self.draft, self.node.output[0]
        self.node.output[0] = between = draft.fresh_name(f"{name}.all")
        given = [between, draft.add_initializer(self.source.path, f"{self.source.label}.{what}", operand)]
        draft.after[self.index].insert(0, helper.make_node(op_type, given, [name], **attributes))

    def _dtype(self, key: str) -> np.dtype:
        return helper.tensor_dtype_to_np_dtype(self.draft.deps.statics.types[key])
