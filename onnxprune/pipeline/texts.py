"""Kinds of values of options that are names, texts or functions, one or several."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxprune.pipeline.kinds import OptionKind, Unfit


@dataclass(frozen=True)
class Word(OptionKind):
    """A name; one of `choices`, where there are some."""

    choices: tuple[str, ...] = ()

    accepts: ClassVar[Any] = str

    @property
    def words(self) -> str:
        return f"one of {', '.join(self.choices)}" if self.choices else "a name"

    def read(self, given: Any) -> str:
        if not isinstance(given, str) or (self.choices and given not in self.choices):
            raise Unfit
        return given


@dataclass(frozen=True)
class Words(OptionKind):
    """One text or several; one is never taken for its letters."""

    accepts: ClassVar[Any] = str | Sequence[str]
    words = "a text, or several"
    many = True

    def read(self, given: Any) -> tuple[str, ...]:
        texts = (given,) if isinstance(given, str) else tuple(given)
        if not all(isinstance(t, str) for t in texts):
            raise Unfit
        return texts

    def typed(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Metrics(Words):
    """Names of figures of merit, or functions that give one."""

    accepts: ClassVar[Any] = str | Callable[..., Any] | Sequence[str | Callable[..., Any]]
    words = "a name or a function, or several"

    def read(self, given: Any) -> tuple[Any, ...]:
        metrics = (given,) if isinstance(given, str) or callable(given) else tuple(given)
        if not all(isinstance(m, str) or callable(m) for m in metrics):
            raise Unfit
        return metrics


@dataclass(frozen=True)
class Names(Words):
    """Names, several of them separated by commas; on the command line in one word."""

    words = "names, separated by commas"
    many = False

    def read(self, given: Any) -> Any:
        return given if isinstance(given, str) else super().read(given)


@dataclass(frozen=True)
class Pairs(OptionKind):
    """Values by name; on the command line NAME=VALUE, where the name may hold an equals sign, as of nodes it does."""

    form: str
    value: OptionKind = OptionKind()  # noqa: RUF009  (a frozen value)

    many = True

    @property
    def accepts(self) -> Any:
        return Mapping[str, self.value.accepts]  # type: ignore[name-defined]

    @property
    def words(self) -> str:
        wanted = f", each {self.value.words}" if type(self.value) is not OptionKind else ""
        return f"{self.form}{wanted}"

    def read(self, given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            raise Unfit
        return {str(name): self.value.read(value) for name, value in given.items()}

    def typed(self, text: str) -> Any:
        name, mark, given = text.rpartition("=")
        if not mark or not name.strip():
            raise Unfit
        return name.strip(), self.value.typed(given.strip())

    def gathered(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(values)


@dataclass(frozen=True)
class Shapes(OptionKind):
    """Sizes by name, read to texts such as "image:1x3x224x224"; which fit, the model says."""

    accepts: ClassVar[Any] = Mapping[str, Sequence[int]] | str | Sequence[str]
    words = "sizes by name, like image:1x3x224x224"
    many = True

    def read(self, given: Any) -> Any:
        if isinstance(given, Mapping):
            return tuple(f"{name}:[{','.join(str(operator.index(n)) for n in sizes)}]" for name, sizes in given.items())
        return Words().read(given)

    def typed(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Function(OptionKind):
    """A function, which the command line cannot give."""

    accepts: ClassVar[Any] = Callable[..., Any]
    words = "a function"

    def read(self, given: Any) -> Any:
        if not callable(given):
            raise Unfit
        return given
