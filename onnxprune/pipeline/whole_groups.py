"""Which groups the patterns of a request name, and which of them stay whole."""

from fnmatch import fnmatchcase

from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.experts import UNASKED, experts
from onnxprune.errors import UsageError, spelled
from onnxprune.pipeline.request import Request


def _matching(deps: Dependencies, pattern: str, option: str) -> list[str]:
    """Groups that have the name, or of which a weight that writes them or its node has it."""
    found = []
    for group in deps.groups:
        names = {group.name} | {s.source for s in group.writers} | {deps.nodes[s.node].label for s in group.writers}
        if any(fnmatchcase(name, pattern) for name in names):
            found.append(group.name)
    if not found:
        wanted = f"{spelled(option)} {pattern!r}"
        raise UsageError(f"{wanted} matches no layer that can be cut; `onnxprune inspect` lists them")
    return found


def ratios_of(deps: Dependencies, request: Request) -> dict[str, float]:
    """Shares that some groups lose whatever the others do.  Raises UsageError for a pattern that matches nothing."""
    return {
        name: ratio for pattern, ratio in request.ratio_for.items() for name in _matching(deps, pattern, "ratio_for")
    }


def whole_groups(deps: Dependencies, request: Request) -> dict[str, str]:
    """Groups that the user wants whole, with the reason.  Raises UsageError likewise."""
    notes = {name: f"excluded by {p!r}" for p in request.exclude for name in _matching(deps, p, "exclude")}
    if request.include:
        included = {name for p in request.include for name in _matching(deps, p, "include")}
        notes |= {g.name: "not included" for g in deps.groups if g.name not in included}
    return {name: UNASKED for name in experts(deps) if name not in ratios_of(deps, request)} | notes
