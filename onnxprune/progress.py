"""What a long task tells of itself while it works."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is done, how far, of how much; 0 of 0 where that is not known
STAGES = ("load", "analyse", "look at the data", "choose channels", "repair", "train", "rewrite", "verify", "measure")


def silent(what: str, done: int, of: int) -> None:
    """A progress that shows nothing."""


def begin(progress: Progress, stage: str) -> None:
    """Say that a stage begins, and which of how many it is, where the progress can show that."""
    said = getattr(progress, "begin", None)
    if said is not None and stage in STAGES:
        said(STAGES.index(stage) + 1, len(STAGES))
    progress(stage, 0, 0)


def tell(progress: Progress, line: str) -> None:
    """Say a line at once, where the progress can: the command line prints it, before the work begins."""
    said = getattr(progress, "tell", None)
    if said is not None:
        said(line)
