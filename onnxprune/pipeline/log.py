"""What a run tells while it works: warnings, notes, how long each stage took, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from onnxprune.progress import Progress, begin, silent

Messages = tuple[tuple[str, ...], tuple[str, ...]]  # notes, warnings


@dataclass
class Log:
    """The only part of a run that changes: stages add to it, and none decides by what another one has said.

    seconds: wall time by stage; of one that comes again, the sum.
    interrupted: whether the user has ended the training, after which there is none.
    inner: seconds of the stages inside each of those that are open.
    """

    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    inner: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and tell of it; what stages inside it take is theirs."""
        begin(self.progress, name)
        begun = time.perf_counter()
        self.inner.append(0.0)
        try:
            yield
        finally:
            spent, inside = time.perf_counter() - begun, self.inner.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - inside
            if self.inner:
                self.inner[-1] += spent

    @property
    def messages(self) -> Messages:
        """The notes and warnings that there are."""
        return tuple(self.notes), tuple(self.warnings)

    def forget(self, messages: Messages) -> None:
        """Take back what was said since there were these, at whatever place among them."""
        self.notes[:], self.warnings[:] = messages

    def add(self, other: Log) -> None:
        """What another log tells that is new."""
        self.interrupted |= other.interrupted
        self.notes += [line for line in other.notes if line not in self.notes]
        self.warnings += [line for line in other.warnings if line not in self.warnings]
