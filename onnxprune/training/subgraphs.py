"""If, Loop and Scan at run time: their bodies are run by the steps that they consist of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.model.bodies import Scan, follows_bodies
from onnxprune.operators.arrays import Value
from onnxprune.operators.registry import Trait, has
from onnxprune.training.program import Body, ProgramStep

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
