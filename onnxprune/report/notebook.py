"""What a notebook shows of a value."""

from html import escape

from rich.console import RenderableType

from onnxprune.report.terminal import text_of

WIDTH = 100  # columns


def frame(page: str) -> str:
    """A page in a frame of its own, so that its style stays there; no script runs in it."""
    return f'<iframe sandbox srcdoc="{escape(page, quote=True)}" style="width: 100%; height: 40em; border: 0"></iframe>'


def block(renderable: RenderableType) -> str:
    """What a terminal would show, in its own columns."""
    return f"<pre>{escape(text_of(renderable, WIDTH))}</pre>"
