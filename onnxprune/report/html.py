"""The report as one HTML file: no script, nothing from elsewhere, light or dark as its reader's screen is."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from onnxprune import __version__
from onnxprune.report import words
from onnxprune.report.summary import FrozenRow, GroupRow, Report

Cell = tuple[str, str]  # class, and HTML that is already escaped


def html(report: Report) -> str:
    """A page that stands alone.  Whatever comes from a model file is escaped; scripts are forbidden besides."""
    style = resources.files("onnxprune.report").joinpath("style.css").read_text("utf-8")
    title = f"{words.shown(report.source)} → {words.shown(report.output) if report.output else 'nothing written'}"
    sections = (
        _warnings(report.warnings),
        _figures(report),
        _merits(report),
        _facts(report),
        _groups(report.groups),
        _frozen(report.frozen),
        _next(report.next_commands),
    )
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{_safe(title)}</title>",
            f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
            f"<header><h1>{_safe(title)}</h1>{_verdict(report)}<p>{_headline(report)}</p></header>",
            *(s for s in sections if s),
            f"<footer>onnxprune {_safe(__version__)}</footer>",
            "</main>\n</body>\n</html>\n",
        )
    )


def _safe(text: object) -> str:
    return escape(words.clean(text), quote=True)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{_safe(title)}</h2>\n{body}\n</section>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; the class `n` of a cell stands for numbers."""
    rows = list(rows)
    classes = [cell[0].partition(" ")[0] for cell in rows[0]] if rows else [""] * len(headings)
    head = "".join(f'<th scope="col" class="{c}">{_safe(h)}</th>' for h, c in zip(headings, classes, strict=True))
    body = "\n".join("<tr>" + "".join(f'<td class="{c}">{text}</td>' for c, text in row) + "</tr>" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _headline(report: Report) -> str:
    return _safe(f"{report.got[:1].upper()}{report.got[1:]}.") if report.changed else ""


def _verdict(report: Report) -> str:
    """What is known of the accuracy."""
    verdict = report.verdict
    return f'<p class="verdict {verdict.level}">{_safe(f"{verdict.text[:1].upper()}{verdict.text[1:]}.")}</p>'


def _bar(share: float) -> str:
    """A bar whose filled part is a share from 0 to 1."""
    width = f"{100 * min(max(share, 0.0), 1.0):.2f}%"
    return f'<span class="bar"><span style="width:{width}"></span></span>'


def _figures(report: Report) -> str:
    rows = [
        [
            ("", _safe(name)),
            ("n", _safe(before)),
            ("n", _safe(after)),
            ("n", _safe(words.left(b, a))),
            ("n", _safe(words.factor(b, a))),
            ("", _bar(a / b) if b else ""),
        ]
        for name, b, a, before, after in words.figures(report)
    ]
    return _section("Before and after", _table(["", "before", "after", "left", "factor", ""], rows))


def _merits(report: Report) -> str:
    if not report.metrics:
        return ""
    rows = [
        [
            ("", _safe(m.name)),
            ("n", _safe(words.merit(m.before, m.unit))),
            ("n", _safe(words.merit(m.after, m.unit))),
            ("n worse" if m.after < m.before else "n", _safe(words.merit_change(m))),
        ]
        for m in report.metrics
    ]
    return _section(words.whose_data(report).capitalize(), _table(["", "before", "after", "change"], rows))


def _facts(report: Report) -> str:
    rows = [(name, said) for name, said in words.facts(report, details=True)]
    rows += [(f"sha256 of {'input' if name == 'source' else name}", digest) for name, digest in report.sha256.items()]
    body = "\n".join(f"<dt>{_safe(name)}</dt><dd>{_safe(said)}</dd>" for name, said in rows)
    return _section("What was asked, done and proven", f"<dl>\n{body}\n</dl>")


def _groups(groups: Sequence[GroupRow]) -> str:
    if not groups:
        return ""
    rows = [
        [
            ("name", _safe(g.name)),
            ("n", f"{g.channels:,}"),
            ("n", f"{g.kept:,}"),
            ("", _bar(g.kept / g.channels)),
            ("n", _safe("" if g.asked is None else f"{g.asked:.0%}")),
            ("name", _safe(", ".join(g.members)) + (f" <em>{_safe(g.note)}</em>" if g.note else "")),
        ]
        for g in groups
    ]
    title = "Channels that are removed together"
    return _section(title, _table(["group", "channels", "kept", "", "asked to go", "layers"], rows))


def _frozen(frozen: Sequence[FrozenRow]) -> str:
    if not frozen:
        return ""
    rows = [
        [
            ("name", _safe(", ".join(r.layer for r in found))),
            ("n", _safe(words.widths(found))),
            ("", _safe(reason)),
        ]
        for reason, found in words.by_reason(frozen).items()
    ]
    return _section(
        f"{words.plural(len(frozen), 'layer')} cannot be cut", _table(["layers", "channels", "reason"], rows)
    )


def _warnings(warnings: Sequence[str]) -> str:
    return "".join(f'<p class="warning">{_safe(w)}</p>' for w in warnings)


def _next(commands: Sequence[str]) -> str:
    if not commands:
        return ""
    return _section("Next", "".join(f"<pre><code>{_safe(c)}</code></pre>" for c in commands))
