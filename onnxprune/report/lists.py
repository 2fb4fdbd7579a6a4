"""Other things that are shown: a network's groups, an explanation, the methods, what is installed here."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from onnxprune.channels.explain import Explanation, Link
from onnxprune.criteria.methods import METHODS, Method
from onnxprune.report import words
from onnxprune.report.inspection import Inspection
from onnxprune.report.terminal import Barred, facts, frozen_table, messages, table_of
from onnxprune.runtime.doctor import Finding

MANY = 12  # reasons that are shown without details


def inspection(found: Inspection, *, details: bool = False) -> RenderableType:
    """What can be cut and what cannot."""
    parts: list[RenderableType] = [Text(words.shown(found.source), style="bold"), Text(), _totals(found, details)]
    if found.groups:
        parts += [Text(), _groups(found, details)]
    else:
        parts += [Text(), Text(words.cuttable(found), style="bold")]
    if found.frozen:
        parts += [Text(), frozen_table(found.frozen, None if details else MANY)]
    if found.unknown:
        parts += [Text(), _unknown(found, details)]
    return Group(*parts, *messages(found.warnings))


def _totals(found: Inspection, details: bool) -> RenderableType:
    f = found.figures
    cost = f"{words.count(f.params)} parameters, {words.si(f.macs)} MACs, {words.size(f.bytes)}"
    peak = "" if f.activations is None else f", {words.size(f.activations)} of activations at most"
    rows = [("costs", cost + peak), *words.of_network(found)]
    return facts([*rows, ("sha256", found.sha256)] if details else rows)


def _groups(found: Inspection, details: bool) -> RenderableType:
    title = words.cuttable(found)
    rows: list[tuple[str | Text, ...]] = [
        (words.clean(g.name) + " (rotated)" * g.rotated, f"{g.channels:,}", f"{g.macs:.1%}", f"{len(g.members)}")
        for g in found.groups
    ]
    columns = [("group", False), ("channels", True), ("MACs", True)]
    if details:  # the names of the layers, which may be long, stand below that of the group
        rows = [
            (
                Text.assemble(row[0], (f"\n  {words.listed(g.members, len(g.members))}", "dim")),
                *row[1:3],
                words.count(g.params),
            )
            for row, g in zip(rows, found.groups, strict=True)
        ]
        return table_of(title, [*columns, ("parameters", True)], rows)
    columns.append(("layers", True))
    return Barred(title, columns, rows, [(g.channels, g.channels) for g in found.groups])


def _unknown(found: Inspection, details: bool) -> RenderableType:
    rows = [
        (
            words.clean(u.operator),
            f"{len(u.nodes):,}",
            words.listed(u.nodes, len(u.nodes) if details else 1),
            words.clean(u.reason),
        )
        for u in found.unknown
    ]
    columns = [("operator", False), ("nodes", True), ("which", False), ("reason", False)]
    return table_of("nodes that freeze all they touch", columns, rows)


def explanation(found: Explanation) -> RenderableType:
    """The verdict and the chain of nodes."""
    parts: list[RenderableType] = [Text(words.clean(found.verdict), style="bold")]
    rows = [("group" if len(found.groups) == 1 else "groups", words.listed(found.groups, 20))] if found.groups else []
    if found.chain:
        rows.append(("chain", "\n".join(map(_link, found.chain))))
    rows += [("with", ", through ".join(filter(None, (words.clean(p.node), _chain(p.chain))))) for p in found.partners]
    return Group(*parts, Text(), facts(rows)) if rows else Group(*parts)


def _chain(links: Iterable[Link]) -> str:
    return " → ".join(filter(None, (_link(x) for x in links)))


def _link(link: Link) -> str:
    name = f"{words.clean(link.node)} ({words.clean(link.operator)})" if link.node else ""
    return " ".join(filter(None, (name, words.clean(link.why))))


def methods(details: bool = False) -> RenderableType:
    """Every method: what it does, what it needs, where it comes from; with details also what can be set."""
    if not details:
        rows = [(m.name, _needs(m), Text.assemble(m.summary, ("\n" + m.source, "dim"))) for m in METHODS.values()]
        return table_of("", [("method", False), ("needs", False), ("what stays, and the source", False)], rows)
    return Group(*(part for m in METHODS.values() for part in _method(m)))


def _needs(method: Method) -> str:
    names = {"scales": "BatchNorm"}
    return "\n".join(names.get(n, n) for n in method.needs)


def _method(method: Method) -> list[RenderableType]:
    rows = [("what stays", method.summary), ("needs", _needs(method).replace("\n", ", ")), ("source", method.source)]
    for option in method.options:
        limits = f" from {option.low:g}" if option.low is not None else ""
        limits += f" to {option.high:g}" if option.high is not None else ""
        allowed = f" ({', '.join(option.choices)})" if option.choices else limits
        origin = "as published" if option.published else "our reading"
        rows.append((f"{option.name}={option.default}", f"{option.text}{allowed}; {origin}"))
    return [Text(method.name, style="bold"), facts(rows), Text()]


def findings(found: Iterable[Finding]) -> RenderableType:
    """What is installed here and whether it works."""
    style = {"ok": "green", "note": "yellow", "problem": "bold red"}
    rows = [
        (
            words.clean(f.subject),
            Text(f.level, style=style.get(f.level, "")),
            Text.assemble(words.clean(f.text), (f"\n{words.clean(f.advice)}" if f.advice else "", "bold")),
        )
        for f in found
    ]
    return table_of("", [("what", False), ("", False), ("found", False)], rows)
