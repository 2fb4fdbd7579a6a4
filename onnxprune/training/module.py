"""A network from its file as a module of torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor

from onnxprune.errors import ModelError, OnnxPruneError, UsageError
from onnxprune.model import load
from onnxprune.model.functions import inlined
from onnxprune.model.network import Network
from onnxprune.model.unsequenced import without_sequences
from onnxprune.operators.arrays import Value
from onnxprune.training.program import UNSUITED, Program, ProgramStep, named
from onnxprune.training.subgraphs import control
from onnxprune.training.weights import choose, rewritten


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
