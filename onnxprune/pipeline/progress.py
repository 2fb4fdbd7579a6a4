"""How long work tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is done, how far, of how much; 0 of 0 where that is not known


def tell(progress: Progress, line: str) -> None:
    """Say a line at once, where the progress can: the command line prints it, before the work begins."""
    said = getattr(progress, "tell", None)
    if said is not None:
        said(line)


def silent(what: str, done: int, of: int) -> None:
    """A progress that shows nothing."""
