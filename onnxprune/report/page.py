"""What all pages are made of: no script, nothing from elsewhere, light or dark as the reader's screen is."""

from collections.abc import Iterable, Sequence
from importlib import resources

from onnxprune.report.svg import safe
from onnxprune.version import VERSION

Cell = tuple[str, str]  # class, and HTML that is already escaped


def page(title: str, header: str, sections: Iterable[str]) -> str:
    """A page that stands alone; scripts are forbidden besides."""
    style = resources.files("onnxprune.report").joinpath("style.css").read_text("utf-8")
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{safe(title)}</title>",
            f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
            f"<header><h1>{safe(title)}</h1>{header}</header>",
            *(s for s in sections if s),
            f"<footer>onnxprune {safe(VERSION)}</footer>",
            "</main>\n</body>\n</html>\n",
        )
    )


def section(title: str, body: str) -> str:
    """A part of a page under its heading; nothing where there is nothing in it."""
    return f"<section>\n<h2>{safe(title)}</h2>\n{body}\n</section>" if body else ""


def folded(title: str, body: str) -> str:
    """What only some readers want: it opens on a click."""
    return f"<details>\n<summary>{safe(title)}</summary>\n{body}\n</details>"


def table(headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, fold: bool = False) -> str:
    """A table; the class `n` of a cell stands for numbers, `name` for names, which may be long.

    Args:
        fold: whether each row becomes a card on a narrow screen; the others scroll there.
    """
    rows = list(rows)
    classes = [cell[0].partition(" ")[0] for cell in rows[0]] if rows else [""] * len(headings)
    kind = '<th scope="col" role="columnheader"'
    head = "".join(f'{kind} class="{c}">{safe(h)}</th>' for h, c in zip(headings, classes, strict=True))
    body = "\n".join(f'<tr role="row">{"".join(map(_cell, row, headings))}</tr>' for row in rows)
    style = ' class="fold"' if fold else ""
    return (  # roles, since a table whose parts are shown as blocks would be none to a screen reader
        f'<div class="wide"><table role="table"{style}>\n<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody></table></div>'
    )


def _cell(cell: Cell, heading: str) -> str:
    kind, text = cell
    return f'<td role="cell" class="{kind}" data-label="{safe(heading)}">{text}</td>'


def warnings(lines: Iterable[str]) -> str:
    return "".join(f'<p class="warning">{safe(line)}</p>' for line in lines)


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what is to be said of them."""
    body = "\n".join(f"<dt>{safe(name)}</dt><dd>{safe(said)}</dd>" for name, said in rows)
    return f"<dl>\n{body}\n</dl>"
