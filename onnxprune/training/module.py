"""A network from its file as a module of torch; the bodies of If, Loop and Scan are run by their steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor

from onnxprune.errors import ModelError, OnnxPruneError, UsageError
from onnxprune.model import load
from onnxprune.model.bodies import Scan, follows_bodies
from onnxprune.model.functions import inlined
from onnxprune.model.network import Network
from onnxprune.model.unsequenced import without_sequences
from onnxprune.operators.arrays import Value
from onnxprune.operators.registry import Trait, has
from onnxprune.training.program import UNSUITED, Body, Program, ProgramStep, named
from onnxprune.training.weights import choose, rewritten

Run = Callable[[list[ProgramStep], dict[str, Value]], None]  # computes steps; values by key grow


def control(step: ProgramStep, values: dict[str, Value], run: Run) -> tuple[Value, ...]:
    """Outputs of a node that holds graphs."""
    if has(step.proto, Trait.BRANCHES):
        wanted = "then_branch" if bool(values[step.reads[0]].all()) else "else_branch"
        return _body(next(b for b in step.bodies if b.name == wanted), (), values, run)
    if has(step.proto, Trait.LOOPS):
        return _loop(step, values, run)
    if has(step.proto, Trait.SCANS):
        return _scan(step, values, run)
    raise ModelError(f"the bodies of {step} cannot be run by torch")


def _body(body: Body, given: tuple[Value, ...], values: dict[str, Value], run: Run) -> tuple[Value, ...]:
    values.update(zip(body.inputs, given, strict=False))
    run(body.steps, values)
    return tuple(values[key] for key in body.outputs)


def _loop(step: ProgramStep, values: dict[str, Value], run: Run) -> tuple[Value, ...]:
    """At most M rounds, while the condition holds; what the body gives beyond the carried values is stacked."""
    body, carried = step.bodies[0], tuple(values[key] for key in step.reads[2:])
    most = int(values[step.reads[0]]) if step.reads[0] else None
    going = bool(values[step.reads[1]].all()) if len(step.reads) > 1 and step.reads[1] else True
    stacks: list[list[Tensor]] = [[] for _ in body.outputs[1 + len(carried) :]]
    done = 0
    while going and (most is None or done < most):
        out = _body(body, (torch.tensor(done), torch.tensor(going), *carried), values, run)
        going, carried, done = bool(out[0].all()), out[1 : 1 + len(carried)], done + 1
        for stack, value in zip(stacks, out[1 + len(carried) :], strict=True):
            stack.append(value)
    return (*carried, *(torch.stack(stack) if stack else torch.empty(0) for stack in stacks))


def _scan(step: ProgramStep, values: dict[str, Value], run: Run) -> tuple[Value, ...]:
    """One round per position of the scanned axes (opset 9; directions, axes)."""
    node, body = step.node, step.bodies[0]
    if not follows_bodies(step.proto, node.opset):
        raise ModelError(f"{step} is a Scan of opset 8, which cannot be trained; convert the model to opset 9 or later")
    scan = Scan.of(node.attributes, len(step.reads), len(body.outputs))
    state: tuple[Any, ...] = tuple(values[key] for key in step.reads[: scan.carried])
    parts = [values[key].unbind(axis) for key, (axis, _) in zip(step.reads[scan.carried :], scan.sliced, strict=True)]
    parts = [part[::-1] if back else part for part, (_, back) in zip(parts, scan.sliced, strict=True)]
    stacks: list[list[Tensor]] = [[] for _ in scan.stacked]
    for given in zip(*parts, strict=True):
        out = _body(body, (*state, *given), values, run)
        state = out[: scan.carried]
        for stack, value in zip(stacks, out[scan.carried :], strict=True):
            stack.append(value)
    made = zip(stacks, scan.stacked, strict=True)
    return (*state, *(torch.stack(stack[::-1] if back else stack, axis) for stack, (axis, back) in made))


class TorchModule(torch.nn.Module):
    """A graph of ONNX that torch runs and differentiates, step by step as it stands in the file.

    Its parameters are the float weights of the file that a gradient reaches, wherever they stand; one that is used in
    several places is one parameter.  Half precision and quantised weights are parameters in float32.  Everything else
    is a constant.  Memory: each value is given up when its last reader has run, unless a gradient needs it.

    Attributes:
        ends: names of the values that a loss can be taken of: the outputs, and where one has no gradient, such as a
            class, what it is made from.
        frozen: key of a tensor that is not trained, or name of a node that is computed without a gradient → why.
        disturb: what is done to all real numbers that a step gives, to see what comes of it; None for nothing.
    """

    def __init__(self, program: Program, device: str | torch.device = "cpu") -> None:
        super().__init__()
        self.weights, self.frozen, self.ends = choose(program)
        self.disturb: Callable[[Tensor], Tensor] | None = None
        program.fold(self.weights)
        self.steps, self.inputs, self.outputs = program.steps, tuple(program.inputs), program.outputs
        made = [torch.nn.Parameter(w.real(program.constants[key])) for key, w in self.weights.items()]
        self.parameter_list = torch.nn.ParameterList(made)
        self.constants = {key: value for key, value in program.constants.items() if key not in self.weights}
        self.to(device)

    @classmethod
    def of(
        cls, model: onnx.ModelProto | Network | str | os.PathLike[str], device: str | torch.device = "cpu"
    ) -> TorchModule:
        """The network of a file or a message, which is checked, or one that was read.

        Args:
            model: never changed.
            device: where it is computed, such as "cpu" or "cuda".

        Raises:
            ModelError: it is no valid model, or an operator behind its weights has no row in the table; named.
            FileError: the file cannot be read.
        """
        network = model if isinstance(model, Network) else load(model).network
        return cls(Program(without_sequences(inlined(network)).proto()), device)

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self._device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchModule:
        """What `to` and `float` do, for constants too; whole numbers stay with the CPU, which reads shapes there."""
        super()._apply(fn, recurse)
        self.constants = {
            key: fn(value) if isinstance(value, Tensor) and value.is_floating_point() else value
            for key, value in self.constants.items()
        }
        self._device = fn(torch.zeros(())).device
        return self

    def parameters_by_key(self) -> dict[str, torch.nn.Parameter]:
        """Every weight that a gradient reaches, by its key: its name, behind the path of a body that it stands in."""
        return dict(zip(self.weights, self.parameter_list, strict=True))

    def forward(self, inputs: Mapping[str, Tensor], watch: Sequence[str] = ()) -> dict[str, Tensor]:
        """Outputs of the graph by name, and the values that `watch` names.

        Args:
            inputs: by name.
            watch: names of inner values.

        Raises:
            UsageError: an input is missing or unknown, or nothing in the network is called like a name in `watch`.
            ModelError: torch cannot compute a node on these inputs; named.
        """
        self._check(inputs, watch)
        kept = {*self.outputs, *watch}
        values: dict[str, Value] = dict(self.constants)
        for weight, parameter in zip(self.weights.values(), self.parameter_list, strict=True):
            values[weight.key] = weight.value(parameter)
        values |= {name: _carried(value.to(self._device)) for name, value in inputs.items()}
        self._run(self.steps, values, kept)
        return {name: values[name] for name in dict.fromkeys((*self.outputs, *watch))}

    def written(self, network: Network) -> Network:
        """A network with the trained weights, and nothing else changed.

        Args:
            network: with the same tensors as the one that this was made of.

        Raises ModelError where a trained tensor is not there, or has another shape or type.
        """
        values = {w.key: (w, p.detach()) for w, p in zip(self.weights.values(), self.parameter_list, strict=True)}
        return rewritten(network, values)

    def _check(self, inputs: Mapping[str, Tensor], watch: Sequence[str]) -> None:
        if missing := [name for name in self.inputs if name not in inputs]:
            raise UsageError(f"the network needs an input {missing[0]!r}")
        if more := [name for name in inputs if name not in self.inputs and name not in self.constants]:
            raise UsageError(f"the network has no input {more[0]!r}; it has {', '.join(map(repr, self.inputs))}")
        if watch:
            there = {*inputs, *self.constants, *self.weights}.union(*(step.writes for step in self.steps))
            if unknown := [name for name in watch if name not in there]:
                raise UsageError(f"the network computes no value {unknown[0]!r}")

    def _run(self, steps: Sequence[ProgramStep], values: dict[str, Value], kept: Collection[str] = ()) -> None:
        for step in steps:
            values.update(named(step, self._disturbed(self._computed(step, values))))
            for key in step.dead:
                if key not in kept:
                    values.pop(key, None)

    def _disturbed(self, out: Any) -> Any:
        if self.disturb is None:
            return out
        if isinstance(out, tuple):
            return tuple(map(self._disturbed, out))
        return self.disturb(out) if isinstance(out, Tensor) and out.is_floating_point() else out

    def _computed(self, step: ProgramStep, values: dict[str, Value]) -> Any:
        if step.bodies:
            return control(step, values, self._run)
        inputs = [values[key] if key else None for key in step.reads]
        if self._device.type != "cpu":
            inputs = _placed(step, inputs, self._device)
        try:
            return step.forward.function(step.node, *inputs)
        except OnnxPruneError:
            raise
        except UNSUITED as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"torch cannot compute {step}: {reason}") from error


def _carried(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _placed(step: ProgramStep, inputs: list[Value], device: torch.device) -> list[Value]:
    """Inputs where they have to lie: numbers with the CPU, all others together."""
    host = step.forward.host
    away = any(isinstance(x, Tensor) and k not in host and x.device == device for k, x in enumerate(inputs))
    return [
        x.to("cpu" if k in host or not away else device) if isinstance(x, Tensor) else x for k, x in enumerate(inputs)
    ]
