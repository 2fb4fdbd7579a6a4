"""What is to be removed, as a value that prints, saves and can be applied again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.errors import FileError, UsageError
from onnxprune.model.external import open_regular
from onnxprune.surgery.align import Alignment
from onnxprune.surgery.rotation.turn import Rotation
from onnxprune.surgery.versions import versions

VERSION = 2
ROTATED = 3  # of plans that rotate, which older programs must not take for others
READ = (1, 2, 3)  # version 1 has no digests, and names no node that reads a copy
LARGEST = 256 << 20  # bytes of a plan
POSITIONS = 1 << 40  # of an axis, more than there can be


@dataclass(frozen=True)
class PlannedGroup:
    """Channels of one group that stay."""

    name: str
    channels: int  # before
    keep: tuple[int, ...]  # sorted
    members: tuple[str, ...]  # nodes whose weights write these channels


@dataclass(frozen=True, repr=False)
class Plan:
    """Kept channels of each group, and the kept positions of each axis of each tensor that follow from them.

    A tensor of the pruned model is `numpy.take` of the original, in the order that the alignment says, along each
    listed axis, unless `digests` has it: `surgery.binding.digest` of what a repair, the graph or the surgery made.
    """

    source: Mapping[str, Any]  # sha256 and name of the file that the plan was made for
    groups: tuple[PlannedGroup, ...]
    initializers: Mapping[str, Mapping[int, tuple[int, ...]]]  # tensor -> axis -> kept positions
    copies: Mapping[str, str] = field(default_factory=dict)  # tensors that had to be doubled -> original
    options: Mapping[str, Any] = field(default_factory=dict)
    alignment: Alignment = field(default_factory=Alignment)  # how tensors were reordered before they were cut
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # copy -> nodes that take it
    computed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what the graph computes -> tensors of which
    digests: Mapping[str, str] | None = None  # tensor of the pruned model -> sha256; None: not bound to a model
    content: str | None = None  # sha256 of the pruned model but for its own metadata; None likewise
    rotation: Rotation = field(default_factory=Rotation)  # bases that widths were brought into before they were cut

    @property
    def kept(self) -> dict[str, np.ndarray]:
        """Kept channels by name of the group."""
        return {g.name: np.array(g.keep, np.int64) for g in self.groups}

    @property
    def cut(self) -> dict[str, np.ndarray]:
        """The same of the groups that lose some."""
        return {g.name: np.array(g.keep, np.int64) for g in self.groups if len(g.keep) < g.channels}

    def __repr__(self) -> str:
        stay, width = sum(len(g.keep) for g in self.groups), sum(g.channels for g in self.groups)
        return f"<Plan: {stay:,} of {width:,} channels in {len(self.groups)} groups stay>"

    def to_json(self) -> dict[str, Any]:
        turned = {"alignment": self.alignment.to_json()} if self.alignment else {}
        turned |= {"rotation": self.rotation.to_json()} if self.rotation else {}
        return {
            "version": ROTATED if self.rotation else VERSION,
            "source": dict(self.source),
            "groups": [
                {"name": g.name, "channels": g.channels, "keep": list(g.keep), "members": list(g.members)}
                for g in self.groups
            ],
            "initializers": {n: _axes(a) for n, a in self.initializers.items() if n not in self.computed},
            "copies": dict(self.copies),
            "readers": {name: list(nodes) for name, nodes in self.readers.items()},
            "computed": {
                name: {"from": list(tensors), "axes": _axes(self.initializers.get(name, {}))}
                for name, tensors in self.computed.items()
            },
            "digests": None if self.digests is None else dict(self.digests),
            "content": self.content,
            "options": dict(self.options),
        } | turned

    @classmethod
    def from_json(cls, data: Any) -> "Plan":
        """Read what `to_json` gave.  Raises UsageError where it is no plan of a known version."""
        try:
            if data["version"] not in READ or isinstance(data["version"], bool):
                known = " and ".join(map(str, READ))
                raise UsageError(f"the plan has version {data['version']!r}; this onnxprune reads versions {known}")
            groups = tuple(
                PlannedGroup(
                    str(g["name"]),
                    int(g["channels"]),
                    tuple(map(_position, g["keep"])),
                    tuple(map(str, g.get("members", ()))),
                )
                for g in data["groups"]
            )
            computed = data.get("computed", {})
            tensors = {str(name): _positions(axes) for name, axes in data["initializers"].items()}
            tensors |= {str(name): found for name, own in computed.items() if (found := _positions(own["axes"]))}
            alignment = Alignment.from_json(data["alignment"]) if "alignment" in data else Alignment()
            return cls(
                dict(data["source"]),
                groups,
                tensors,
                {str(name): _text(original) for name, original in data.get("copies", {}).items()},
                dict(data.get("options", {})),
                alignment,
                _texts(data.get("readers", {})),
                _texts({name: own["from"] for name, own in computed.items()}),
                None if (found := data.get("digests")) is None else {str(k): _text(v) for k, v in found.items()},
                None if data.get("content") is None else _text(data["content"]),
                Rotation.from_json(data.get("rotation", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else f"{type(error).__name__} {error}"
            raise UsageError(f"this is no onnxprune plan: {what}") from None

    @property
    def text(self) -> str:
        """What a file of it holds."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON.  Raises FileError."""
        try:
            Path(path).write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise FileError(f"cannot write the plan {path}: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """Read a plan.  Raises FileError where the file cannot be read and UsageError where it is no plan."""
        try:
            data = json.loads(_read(Path(path)))
        except OSError as error:
            raise FileError(f"cannot read the plan {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is not JSON ({error})") from None
        return cls.from_json(data)

    def __str__(self) -> str:
        width = max([len(g.name) for g in self.groups], default=0)
        return "\n".join(f"{g.name:{width}}  {g.channels:5d} → {len(g.keep):5d}" for g in self.groups)


def _axes(axes: Mapping[int, tuple[int, ...]]) -> dict[str, list[int]]:
    return {str(axis): list(positions) for axis, positions in axes.items()}


def _positions(axes: Any) -> dict[int, tuple[int, ...]]:
    return {int(axis): tuple(map(_position, positions)) for axis, positions in axes.items()}


def _texts(values: Any) -> dict[str, tuple[str, ...]]:
    return {str(name): tuple(map(_text, texts)) for name, texts in values.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _position(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < POSITIONS:
        raise ValueError(f"{value!r} is no position of an axis")
    return value


def _read(path: Path) -> str:
    """The text of a plan; neither a pipe without a writer nor a device without an end is waited for."""
    opened = open_regular(path)
    if opened is None:
        raise FileError(f"cannot read the plan {path}: it is not a regular file")
    with opened as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UsageError(f"{path} is no onnxprune plan: it is larger than {LARGEST >> 20} MiB")
    return data.decode("utf-8-sig")


def make_plan(
    deps: Dependencies,
    kept: Mapping[str, np.ndarray],
    *,
    source: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    alignment: Alignment | None = None,
) -> Plan:
    """The plan that keeps these channels of each group; groups that are not named stay whole.

    Raises:
        UsageError: a group is unknown, or would lose all its channels.
    """
    names = {g.name: g for g in deps.groups}
    if unknown := sorted(set(kept) - set(names)):
        raise UsageError(f"no group is named {unknown[0]!r}; `onnxprune inspect` lists them")
    groups = tuple(_planned(deps, g, kept.get(g.name, np.arange(len(g)))) for g in deps.groups)
    tensors: dict[str, dict[int, tuple[int, ...]]] = {}
    copies: dict[str, str] = {}
    readers: dict[str, tuple[str, ...]] = {}
    for version in versions(deps, deps.dead(kept)):
        key = version.source.path + version.name
        tensors[key] = {axis: tuple(np.flatnonzero(m).tolist()) for axis, m in enumerate(version.live) if not m.all()}
        if version.copied:
            copies[key] = version.source.key
            readers[key] = tuple(dict.fromkeys(deps.nodes[use.node].label for use in version.uses if use.node >= 0))
    return Plan(source, groups, tensors, copies, dict(options or {}), alignment or Alignment(), readers)


def _planned(deps: Dependencies, group: Group, keep: np.ndarray) -> PlannedGroup:
    positions = np.unique(np.asarray(keep, np.int64))
    if positions.size == 0 or positions[0] < 0 or positions[-1] >= len(group):
        raise UsageError(
            f"group {group.name!r} has channels 0 to {len(group) - 1}, at least one must stay; asked: "
            f"{positions.tolist()}"
        )
    members = dict.fromkeys(deps.nodes[s.node].label for s in group.writers)
    return PlannedGroup(group.name, len(group), tuple(positions.tolist()), tuple(members))


def check_plan(deps: Dependencies, plan: Plan) -> None:
    """Whether a plan fits a network (perhaps another precision or checkpoint of the one that it was made for).

    Raises UsageError that names the first difference.
    """
    sizes = {g.name: len(g) for g in deps.groups}
    for group in plan.groups:
        if group.name not in sizes:
            raise UsageError(
                f"the plan has a group {group.name!r} that this network has not; was it made for another network?"
            )
        if sizes[group.name] != group.channels:
            raise UsageError(
                f"group {group.name!r} has {sizes[group.name]} channels here and {group.channels} in the plan"
            )
    made = make_plan(deps, plan.kept, source=plan.source)
    if {k: dict(v) for k, v in made.initializers.items()} != {k: dict(v) for k, v in plan.initializers.items()}:
        raise UsageError(
            "the plan cuts other tensors than this network would have to; was it made for another network?"
        )
