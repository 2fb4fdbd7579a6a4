"""The report of a run as one HTML file."""

from collections.abc import Sequence

from onnxprune.report import pictures, words
from onnxprune.report.inspection import Inspection
from onnxprune.report.page import definitions, page, section, table, warnings
from onnxprune.report.summary import FrozenRow, GroupRow, Report, totals
from onnxprune.report.svg import bar, safe


def html(report: Report) -> str:
    """A page that stands alone, what is known of the accuracy first.  Whatever comes from a model file is escaped."""
    title = f"{words.shown(report.source)} → {words.shown(report.output) if report.output else 'nothing written'}"
    costs = totals(report.layers)
    groups = [(g.name, g.channels, g.kept, _remark(g), g.members) for g in report.groups]
    sections = (
        warnings(report.warnings),
        _figures(report),
        _merits(report),
        pictures.search(report.search) if report.search else "",
        section("Channels that are removed together", pictures.group_table(groups, costs)) if groups else "",
        pictures.layers(report.layers),
        pictures.sensitivity(report.sensitivity, costs) if report.sensitivity else "",
        _frozen(report.frozen),
        _facts(report),
        _next(report.next_commands),
    )
    headline = safe(f"{report.got[:1].upper()}{report.got[1:]}.") if report.changed else ""
    return page(title, f"{_verdict(report)}<p>{headline}</p>", sections)


def _remark(group: GroupRow) -> str:
    """What was asked of a group where something else became of it, and its note."""
    asked = "" if group.asked is None else f"{group.asked:.0%}"
    other = f"{asked} asked to go" * bool(asked and asked != f"{group.removed:.0%}")
    return "; ".join(filter(None, (other, group.note)))


def _verdict(report: Report) -> str:
    """What is known of the accuracy."""
    verdict = report.verdict
    text = verdict.text if report.metrics else f"{verdict.text[:1].upper()}{verdict.text[1:]}"  # a figure has a name
    return f'<p class="verdict {verdict.level}">{safe(text)}.</p>'


def _figures(report: Report) -> str:
    rows = [
        [
            ("", safe(name)),
            ("n", safe(before)),
            ("n", safe(after)),
            ("n", safe(words.left(b, a))),
            ("n", safe(words.gained(report, name, b, a))),
            ("b", bar(b, a, b, f"{name}: {words.left(b, a)} left") if b else ""),
        ]
        for name, b, a, before, after in words.figures(report)
    ]
    return section("Before and after", table(["", "before", "after", "left", "factor", ""], rows))


def _merits(report: Report) -> str:
    if not report.metrics:
        return ""
    rows = [
        [
            ("", safe(m.name)),
            ("n", safe(words.merit(m.before, m.unit))),
            ("n", safe(words.merit(m.after, m.unit))),
            ("n worse" if m.after < m.before else "n", safe(words.merit_change(m))),
        ]
        for m in report.metrics
    ]
    return section(words.whose_data(report).capitalize(), table(["", "before", "after", "change"], rows))


def _facts(report: Report) -> str:
    rows = [(name, said) for name, said in words.facts(report, details=True)]
    rows += [(f"sha256 of {'input' if name == 'source' else name}", digest) for name, digest in report.sha256.items()]
    return section("What was asked, done and proven", definitions(rows))


def _frozen(frozen: Sequence[FrozenRow]) -> str:
    if not frozen:
        return ""
    rows = [
        [("name", safe(", ".join(r.layer for r in found))), ("n", safe(words.widths(found))), ("", safe(reason))]
        for reason, found in words.by_reason(frozen).items()
    ]
    return section(
        f"{words.plural(len(frozen), 'layer')} cannot be cut", table(["layers", "channels", "reason"], rows, fold=True)
    )


def _next(commands: Sequence[str]) -> str:
    if not commands:
        return ""
    return section("Next", "".join(f"<pre><code>{safe(c)}</code></pre>" for c in commands))


def inspection_html(found: Inspection) -> str:
    """A look at a network as a page: its groups, its layers, and what cannot be cut."""
    f = found.figures
    verdict = safe(f"{words.cuttable(found)}.")
    header = f'<p class="verdict {"good" if found.groups else "bad"}">{verdict[:1].upper()}{verdict[1:]}</p>'
    header += f"<p>{safe(f'{words.count(f.params)} parameters, {words.si(f.macs)} MACs, {words.size(f.bytes)}.')}</p>"
    groups = [(g.name, g.channels, g.channels, f"{g.macs:.1%} of the MACs", g.members) for g in found.groups]
    unknown = [
        (("name", safe(u.operator)), ("name", safe(", ".join(u.nodes))), ("", safe(u.reason))) for u in found.unknown
    ]
    headings = ["operator", "nodes", "reason"]
    facts = [*words.of_network(found), ("sha256", found.sha256)]
    sections = (
        warnings(found.warnings),
        section("Channels that go together", pictures.group_table(groups, totals(found.layers))),
        pictures.layers(found.layers),
        _frozen(found.frozen),
        section("Nodes that freeze all they touch", table(headings, unknown, fold=True)) if unknown else "",
        section("The network", definitions(facts)),
    )
    return page(words.shown(found.source), header, sections)
