"""Shared by all commands: the application, options from config dataclasses, output."""

import ast
import functools
import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from rqrec import __version__
from rqrec.cli import COMMANDS, GROUPS
from rqrec.cli.ending import handle_errors, standard_output
from rqrec.core.config import Setting, configured, settings_of, with_settings
from rqrec.core.errors import SURROGATE

# Read when torch loads: waiting threads sleep instead of spinning. On a machine whose cores are busy with other
# work, spinning makes a training step many times slower; on an idle machine it gains little.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CommandT = TypeVar("CommandT", bound=Callable[..., None])
ConfigT = TypeVar("ConfigT")


class FullSentences(TyperGroup):
    """A group whose help lists its commands with their whole first paragraphs."""

    def sections(self) -> Mapping[str, Iterable[str]]:
        """The names of commands by the title of their section."""
        return {"Commands": self.commands}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections."""
        for title, names in self.sections().items():
            rows = [
                (name, _first_paragraph(self.commands[name].help)) for name in names if name in self.commands
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class StrictCommand(TyperCommand):
    """A command that refuses what would be misread in silence: an option given twice, and an empty path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, as any command."""
        values, _, found = self.make_parser(ctx).parse_args(args=list(args))
        once = ["/".join([*one.opts[:1], *one.secondary_opts[:1]]) for one in found if not _is_list(one)]
        if repeated := [name for name in dict.fromkeys(once) if once.count(name) > 1]:
            ctx.fail(f"{repeated[0]} is given {once.count(repeated[0])} times: give it once.")
        for one in found:
            given, annotation = values.get(one.name), self.callback.__annotations__.get(one.name)
            parts = given if isinstance(given, list | tuple) else [given]
            if any(isinstance(part, str) and SURROGATE.search(part) for part in parts):
                ctx.fail(
                    f"{one.opts[0]} has bytes that are not UTF-8: write it in UTF-8, or rename the file."
                )
            if "" in parts and _holds_path(annotation):
                ctx.fail(f"{one.opts[0]} is empty: give a path, such as . for the current folder.")
        return super().parse_args(ctx, args)


def _holds_path(annotation: Any) -> bool:
    """Whether a parameter takes paths."""
    return annotation is Path or any(map(_holds_path, get_args(annotation)))


def _is_list(parameter: Any) -> bool:
    """Whether a parameter may be given several times; an argument is no option."""
    return getattr(parameter, "multiple", True) or parameter.param_type_name != "option"


class AllCommands(FullSentences):
    """The commands of `rqrec`, by what people do; help lists them without importing their files."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._loaded = self.commands
        self.commands = {name: self._loaded.get(name) or _unloaded(name) for name in COMMANDS}

    def sections(self) -> Mapping[str, Iterable[str]]:
        """See `GROUPS`."""
        return GROUPS

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, from its file."""
        if cmd_name in COMMANDS and cmd_name not in self._loaded:
            import_module(f"rqrec.cli.{COMMANDS[cmd_name]}")
            complete: Any = typer.main.get_command(app)
            self._loaded = complete._loaded
        return self._loaded.get(cmd_name)


@functools.cache
def _unloaded(name: str) -> Any:
    """A command with nothing but the docstring of its function, which is read without importing the file."""
    file = Path(__file__).with_name(f"{COMMANDS[name]}.py")
    function = name.replace("-", "_")
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return TyperCommand(name=name, help=ast.get_docstring(node))
    raise LookupError(f"{file} has no function {function}.")


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def command_group(function: Callable[[], None]) -> typer.Typer:
    """Make a function, which has only a name and a docstring, a command with commands of its own."""
    group = typer.Typer(cls=FullSentences, help=function.__doc__, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=_command_name(function))
    return group


def _command_name(function: Callable[..., None]) -> str:
    return function.__name__.replace("_", "-")


app = typer.Typer(
    name="rqrec",
    cls=AllCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"rqrec {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Recommend by generating: items become semantic IDs, and a model generates the next one.

    `rqrec COMMAND --help` describes a command and its options, with an example.
    """


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Run again and replace an existing artefact.")]
DataDir = Annotated[
    Path,
    typer.Option("--data-dir", "--raw", help="Folder of raw data; missing files are downloaded into it."),
]
CustomInteractions = Annotated[
    Path | None,
    typer.Option(
        "--interactions", help="custom: interaction log, .parquet, .csv, .tsv or .jsonl, also with .gz."
    ),
]
CustomItems = Annotated[Path | None, typer.Option("--items", help="custom: items, a file of the same types.")]
CustomVectors = Annotated[Path | None, typer.Option("--embeddings", help="custom: item embeddings, .npy.")]
Configs = Annotated[list[Path] | None, typer.Argument(help="gin files; later ones take precedence.")]
Bindings = Annotated[list[str] | None, typer.Option("--gin", help='Another setting, such as "train.seed=1".')]
MaxMinutes = Annotated[
    float | None, typer.Option(help="Stop training after this time; the schedule adapts to it.")
]
Engine = Annotated[
    Literal["local", "ray"], typer.Option(help="local: processes of this machine; ray: a Ray cluster.")
]
Processes = Annotated[int | None, typer.Option(min=1, help="Number of processes, with --engine local.")]
ConfigFiles = Annotated[
    list[Path] | None, typer.Option("--config", help="gin file with these settings; options take precedence.")
]


def command(example: str, *, section: str = "", group: typer.Typer = app) -> Callable[[CommandT], CommandT]:
    """Register a function as a command.

    A parameter that is annotated with a config dataclass becomes one option per setting, with the setting's docstring
    as help and the config's default. `--config FILE` first reads the section `section` of a gin file. A setting with
    the name of another parameter of the function (a positional argument) takes its value from that parameter. An
    invalid option ends with exit status 2, any other failure with 1; both print a one-sentence message.
    """

    def register(function: CommandT) -> CommandT:
        parameters = []
        configs: dict[str, Any] = {}
        declared = inspect.signature(function, eval_str=True).parameters
        for parameter in declared.values():
            if is_dataclass(parameter.annotation):
                make: Any = parameter.annotation
                configs[parameter.name] = make()
                options = _options(configs[parameter.name])
                parameters += [option for option in options if option.name not in declared]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        if configs:
            parameters += [
                _keyword("config_files", ConfigFiles, None),
                _keyword("bindings", _bindings(section, configs, declared), None),
            ]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            with_configs = functools.partial(_run, function, configs, section)
            handle_errors(with_configs, given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(_command_name(function), cls=StrictCommand, epilog=f"Example: {example}")(run)
        return function

    return register


def _bindings(section: str, configs: dict[str, Any], declared: Mapping[str, Any]) -> Any:
    """The option for gin bindings, with an example of this command that is not a declared parameter."""
    settings = [setting for config in configs.values() for setting in settings_of(config).values()]
    setting = next(setting for setting in settings if setting.name not in declared)
    text = f'A gin binding, such as "{section}.{setting.name}={setting.value!r}"; options win.'
    return Annotated[list[str] | None, typer.Option("--gin", help=text)]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _options(config: Any) -> list[inspect.Parameter]:
    """A command-line option for each setting; None stands for an option that was not given."""
    options = []
    aliases: Mapping[str, str] = getattr(config, "ALIASES", {})
    for setting in settings_of(config).values():
        option = typer.Option(
            *_flags(setting),
            *(_spelled(alias) for alias, name in aliases.items() if name == setting.name),
            help=_help(setting),
            show_default=False,
            envvar=setting.metadata.get("envvar"),
        )
        options.append(_keyword(setting.name, Annotated[_type(setting), option], None))
    return options


def _flags(setting: Setting) -> tuple[str, ...]:
    spelled = _spelled(setting.name)
    if _type(setting) == bool | None:
        return (setting.metadata.get("flags", f"{spelled}/--no-{spelled[2:]}"),)
    return (setting.metadata.get("flags", spelled),)


def _spelled(name: str) -> str:
    return "--" + name.replace("_", "-")


def _type(setting: Setting) -> Any:
    """The type of an option: the first type of the setting that a command line can hold, or None (not given)."""
    choices = [choice for choice in get_args(setting.type) or (setting.type,) if choice is not NoneType]
    if get_origin(setting.type) is tuple or any(get_origin(choice) is tuple for choice in choices[:1]):
        return list[str] | None
    if any(get_origin(choice) is tuple for choice in choices):
        return str | None  # one number, or several between commas
    return next((choice for choice in choices if choice in (bool, int, float, str, Path)), str) | None


def _help(setting: Setting) -> str:
    if setting.value is None or setting.value in ("", ()):
        return setting.help
    return f"{setting.help} [default: {setting.value}]"


def _run(function: Callable[..., None], configs: dict[str, Any], section: str, given: dict[str, Any]) -> None:
    """Call a command with its configs filled in from gin files and options."""
    declared = inspect.signature(function).parameters
    if configs:
        files, bindings = given.pop("config_files") or [], given.pop("bindings") or []
        for name, config in configs.items():
            settings = settings_of(config)
            try:
                _check_environment(settings.values())
                chosen = {
                    key: _value(setting, given[key])
                    for key, setting in settings.items()
                    if given.get(key) is not None
                }
                if not (files or bindings):
                    config = with_settings(config, chosen)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            if files or bindings:
                config = configured(config, [section], files, bindings, chosen)
            given = {key: value for key, value in given.items() if key in declared or key not in settings}
            given[name] = config
    function(**given)


def _check_environment(settings: Iterable[Setting]) -> None:
    """Raise ValueError if a variable with the values of a list is set but blank, which would count as not set."""
    for setting in settings:
        variable = setting.metadata.get("envvar")
        if variable and get_origin(setting.type) is tuple and not os.environ.get(variable, "unset").strip():
            raise ValueError(
                f"The environment variable {variable} is empty: write a value into it, or unset it."
            )


def _value(setting: Setting, given: Any) -> Any:
    """An option's value as its setting has it; parts of a list may be comma-separated."""
    if isinstance(given, list) and setting.metadata.get("whole"):
        return given
    if isinstance(given, list):
        parts = [piece.strip() for one in given for piece in one.split(",")]
        if "" in parts:  # the values stay out of the message: they may be secret
            raise ValueError(
                f"Entry {parts.index('') + 1} of {setting.name} is empty: write something there, or leave it out. "
                f"Without {_flags(setting)[0]}, the default holds."
            )
        return parts
    if int in get_args(setting.type) and isinstance(given, str):
        parts = [part.strip() for part in given.split(",")]
        if not all(part.isdecimal() for part in parts):
            raise ValueError(
                f"{setting.name} is {given!r}, but must be whole numbers, such as 256 or 256,128."
            )
        return int(parts[0]) if len(parts) == 1 else [int(part) for part in parts]
    return given


def training_config(
    config: ConfigT,
    section: str,
    configs: list[Path] | None,
    bindings: list[str] | None,
    max_minutes: float | None = None,
) -> ConfigT:
    """A training stage's config from gin files: the section `train`, overridden by the section of the stage."""
    if max_minutes is not None and not math.isfinite(max_minutes):
        raise typer.BadParameter(
            f"--max-minutes is {max_minutes}, but must be a number of minutes, such as 30."
        )
    given = [] if max_minutes is None else [f"{section}.max_minutes={max_minutes}"]
    return configured(config, ("train", section), configs or [], [*(bindings or []), *given])


def emit(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result on standard output, as JSON or as text. With several processes, only the first one prints.

    Numbers that JSON does not have (NaN and infinities) are printed as null.
    """
    if os.environ.get("RANK", "0") == "0":
        from rqrec.core.artifact import finite
        from rqrec.core.progress import printable

        with standard_output():
            print(json.dumps(finite(result), allow_nan=False) if as_json else printable(text))


def emit_artifact(folder: Path, as_json: bool, text: str = "") -> None:
    """Print an artefact's folder and metrics, then what comes next; `text` is a format string of metrics."""
    from rqrec.cli.next_steps import say_next_after
    from rqrec.core.artifact import read_manifest

    metrics = read_manifest(folder).metrics
    line = f"{text.format(**metrics)}: {folder}" if text else str(folder)
    emit({"artifact": str(folder), **metrics}, as_json, line)
    if not as_json:
        say_next_after(folder)


def table(rows: list[dict[str, Any]]) -> str:
    """Recommendations as aligned lines, each followed by its explanation if it has one."""
    width = max((len(row["title"]) for row in rows), default=0)
    lines = []
    for rank, row in enumerate(rows, start=1):
        lines.append(f"{rank:3d}. {row['title']:<{width}}  {row['score']:8.3f}  (item {row['item_id']})")
        lines += _experts(row.get("experts", {}), row.get("because", []))
        for step in row.get("path", []):
            items = f"{step['n_items']} item" + ("s" if step["n_items"] > 1 else "")
            others = f", also {', '.join(step['others'])}" if step["others"] else ""
            lines.append(f"       code {step['code']:<5d} {step['probability']:7.2%}  {items}{others}")
    return "\n".join(lines)


def _experts(log_probs: Mapping[str, float], because: list[dict[str, Any]]) -> list[str]:
    """What each expert says of an item, as lines; none for the codes alone, whose path says it."""
    if set(log_probs) <= {"codes"}:
        return []
    width = max(map(len, log_probs))
    lines = [f"       {name:<{width}} {math.exp(log_p):7.2%}" for name, log_p in log_probs.items()]
    if because:
        shares = ", ".join(f"{reason['item_id']} ({reason['share']:.0%})" for reason in because)
        lines.append(f"       neighbour of {shares}")
    return lines
