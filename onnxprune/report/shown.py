"""Values that show themselves by functions of files which are loaded once they are asked for.

What renders a value has to know it, and loads much; a value knows what renders it by name alone.
"""

from html import escape
from importlib import import_module
from typing import Any, ClassVar

WIDTH = 100  # columns of a notebook


def renderer(name: str) -> Any:
    """A function of this folder by "file:function"."""
    file, function = name.split(":")
    return getattr(import_module(f"onnxprune.report.{file}"), function)


class Page:
    """A value that a notebook shows as a page of its own, in a frame, and that is text elsewhere.

    PAGE, TEXT: what makes these of it, as "file:function".
    """

    PAGE: ClassVar[str]
    TEXT: ClassVar[str]

    def __str__(self) -> str:
        return str(renderer(self.TEXT)(self))

    def _repr_html_(self) -> str:
        page = escape(renderer(self.PAGE)(self), quote=True)  # in a frame its style stays there, and no script runs
        return f'<iframe sandbox srcdoc="{page}" style="width: 100%; height: 40em; border: 0"></iframe>'


class Block:
    """A value that a notebook shows as a terminal does.

    TABLE: what makes that of it, as "file:function".
    """

    TABLE: ClassVar[str]

    def _repr_html_(self) -> str:
        return f"<pre>{escape(renderer('terminal:text_of')(renderer(self.TABLE)(self), WIDTH))}</pre>"
