"""Help in sections, and the main job without a name: a first word that is no command is the input model."""

import textwrap
from collections.abc import Sequence
from typing import Any

import click

from onnxprune.cli.flags import FLAGS

EXAMPLES = (
    ("onnxprune net.onnx small.onnx --ratio 0.5", "as deep as half of each layer, no data needed"),
    ("onnxprune net.onnx small.onnx --target macs=0.5 --data val.npz", "half of the MACs, accuracy told"),
    ("onnxprune inspect net.onnx", "what can be cut, what not, and why"),
)
CODES = (
    ("0", "done"),
    ("1", "a check failed; nothing was written"),
    ("2", "the command makes no sense"),
    ("3", "the model is invalid or not supported"),
    ("4", "a file cannot be read or written"),
    ("5", "the model was written; its plan, its report or what is printed was not"),
    ("130", "interrupted"),
)
COLUMN = 24  # width of what stands before the descriptions
FIRST = "ratio target max_drop lossless data exclude plan method input_shapes plan_out report json".split()  # in -h
FIRST += "targets methods latency jobs".split()
COMPLETE = "_ONNXPRUNE_COMPLETE"  # the variable in which a shell asks for completions


class Sectioned(click.Command):
    """A command whose options stand in sections, in the order of the table; `-h` is its help on one screen."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), BRIEF]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, ctx, formatter)


class MainJob(Sectioned):
    """The command without a name."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("onnxprune", "IN.onnx OUT.onnx [OPTIONS]")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        parent = ctx.parent or ctx
        parent.command.format_help(parent, formatter)


class Main(click.Group):
    """The commands, and the main job as the default one."""

    default = "prune"

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), BRIEF]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for p in self.get_params(ctx) for name in p.opts}
        if args and args[0] not in own and args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("onnxprune", "IN.onnx OUT.onnx [OPTIONS]")
        formatter.write_usage("onnxprune", "COMMAND ...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for command, meaning in EXAMPLES:
                formatter.write_text(command)
                with formatter.indentation():
                    formatter.write_text(meaning)
        with formatter.section("Commands"):
            rows = [(name, self.commands[name].get_short_help_str(100)) for name in shown(self)]
            write_rows(formatter, rows)
        write_options(self.commands[self.default], ctx, formatter, self.params)
        with formatter.section("Exit codes"):
            write_rows(formatter, CODES)


def shown(main: click.Group) -> list[str]:
    """Names of the commands that the help lists."""
    return [name for name, command in main.commands.items() if not command.hidden]


def brief(ctx: click.Context) -> str:
    """The help on one screen: usage, what the command does, and a line for each of the options that are used most."""
    command = ctx.find_root().command if isinstance(ctx.command, MainJob) else ctx.command
    formatter = ctx.make_formatter()
    command.format_usage(ctx, formatter)
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text((command.help or "").partition("\n\n")[0])
    if isinstance(command, Main):
        with formatter.section("Commands"):
            formatter.write_text(", ".join(shown(command)))
        command = command.commands[command.default]
    options = {p.name: p for p in command.params if isinstance(p, click.Option)}
    records = [r for name in FIRST if name in options and (r := options[name].get_help_record(ctx)) is not None]
    if records:
        with formatter.section("Options used most"):
            formatter.write("".join(f"  {_line(*record)}\n" for record in records))
    path = ctx.command_path.removesuffix(" prune")
    formatter.write(f"\n`{path} --help` shows all there is.\n")
    return formatter.getvalue().rstrip("\n")


def _line(first: str, text: str) -> str:
    """An option in one line: the first sentence of its help, or as much of it as there is room for."""
    room = 78 - 2 - COLUMN - 2
    sentence = text.partition("  ")[0].partition(";")[0].partition(": ")[0].rstrip(".")
    return f"{first.ljust(COLUMN)}  {textwrap.shorten(sentence, room, placeholder='...')}"


def _show_brief(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        click.echo(brief(ctx))
        ctx.exit()


BRIEF = click.Option(
    ["-h", "brief"], is_flag=True, is_eager=True, expose_value=False, callback=_show_brief,
    help="Show the help on one screen and exit.",
)  # fmt: skip


def write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, more: Sequence[click.Parameter] = ()
) -> None:
    """The options of a command under the headings of the table; those without one come last, with `more`."""
    section = {f.name: f.section for f in FLAGS}
    found: dict[str, list[tuple[str, str]]] = {}
    others: list[tuple[str, str]] = []
    for parameter in (*more, *command.get_params(ctx)):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record:
            heading = section.get(str(parameter.name))
            (found.setdefault(heading, []) if heading else others).append(record)
    for heading, rows in [*found.items(), ("Other options", others)]:
        with formatter.section(heading):
            write_rows(formatter, rows)


def write_rows(formatter: click.HelpFormatter, rows: Sequence[tuple[str, Any]]) -> None:
    """Two columns that start at the same place in every section."""
    formatter.write_dl([(first.ljust(COLUMN), second) for first, second in rows], col_max=COLUMN)
