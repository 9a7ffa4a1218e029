"""Reads gin files and `--gin` bindings as values: nothing in them is imported, called or run.

Files of the reference implementation are understood: their imports and constants stand for names of this package.
"""

import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from gin.config_parser import (
    BindingStatement,
    ConfigParser,
    ImportStatement,
    IncludeStatement,
    ParserDelegate,
)

from rqrec.core.progress import log
from rqrec.core.real_path import real_path
from rqrec.core.regular_file import regular_file

# Constants in configuration files of the reference implementation, with the strings that rqrec uses for them.
CONSTANTS = {
    "data.processed.RecDataset.AMAZON": "amazon",
    "data.processed.RecDataset.ML_1M": "ml-1m",
    "data.processed.RecDataset.ML_32M": "ml-32m",
    "data.processed.RecDataset.CUSTOM": "custom",
    "modules.quantize.QuantizeForwardMode.GUMBEL_SOFTMAX": "GUMBEL_SOFTMAX",
    "modules.quantize.QuantizeForwardMode.STE": "STE",
    "modules.quantize.QuantizeForwardMode.ROTATION_TRICK": "ROTATION_TRICK",
    "modules.model.ModelType.DECODER": "decoder_only",
    "modules.model.ModelType.ENCODER_DECODER": "encoder_decoder",
}
# Modules of the reference implementation, whose files import them to make its constants known to gin.
MODULES = re.compile(
    r"(data|modules|distributions|evaluate|init|ops)(\.\w+)*|train_rqvae|train_decoder(_grid)?|run_rqvae"
)
DEEPEST_INCLUDE = 20
COMMAND_LINE = "--gin"


class Binding(NamedTuple):
    """One line `section.name = value`; a macro (`NAME = value`) has no section."""

    section: str
    name: str
    value: Any
    place: str
    """Where it stands, for messages."""


class _Macro(NamedTuple):
    """The value `%NAME` before all files are read."""

    name: str


class _Values(ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        raise SyntaxError(
            f"@{scoped_configurable_name}{'()' * evaluate} refers to a function, which a setting cannot hold"
        )

    def macro(self, macro_name: str) -> _Macro:
        return _Macro(macro_name)


def near(name: str, known: Sequence[str]) -> str:
    """Up to three known names that resemble `name`, as the end of a sentence; empty if none does."""
    found = get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(found)}?" if found else "."


def read_gin(files: Sequence[Path], bindings: Sequence[str]) -> list[Binding]:
    """The bindings of files, then of the command line, in their order, with the values of macros.

    Raises FileNotFoundError for a missing file. Raises ValueError, naming the place, for anything that is not a plain
    value of a setting: imports of unknown modules, includes from elsewhere, references to functions, unknown macros.
    """
    found = [binding for path in files for binding in _read_file(find_config(path), (), Path(path).parent)]
    for text in bindings:
        found += _parse(text, COMMAND_LINE, (), Path())
    macros = {binding.name: binding for binding in found if not binding.section}
    used: set[str] = set()
    values = [
        binding._replace(value=_resolved(binding.value, macros, binding.place, used, ()))
        for binding in found
        if binding.section
    ]
    for name in macros.keys() - used:
        problem = f"{name} has no section and no value uses it as a macro"
        if macros[name].place == COMMAND_LINE:
            raise ValueError(f"{problem}: write section.name = value.")
        log(f"{macros[name].place}: {problem}: it has no effect.")
    return values


def _read_file(path: Path, within: tuple[Path, ...], base: Path) -> list[Binding]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error}). Give a gin file.") from error
    if len(within) > DEEPEST_INCLUDE or real_path(path) in within:
        raise ValueError(f"{path} includes itself. Remove one of the include lines.")
    return list(_parse(text, str(path), (*within, real_path(path)), base))


def _parse(text: str, source: str, within: tuple[Path, ...], base: Path) -> Iterator[Binding]:
    """The bindings in a text, those of the files that it includes in their place."""
    for statement in _statements(text, source):
        line = statement.location.line_num
        place = source if source == COMMAND_LINE else f"{source}, line {line}"
        if isinstance(statement, IncludeStatement):
            yield from _read_file(_included(statement.filename, within, base, place), within, base)
        elif isinstance(statement, ImportStatement) and not MODULES.fullmatch(statement.module):
            raise ValueError(
                f"{place}: the module {statement.module} is not imported, because a configuration runs no code. "
                f"Remove the line, and write values as numbers, strings and lists."
            )
        elif isinstance(statement, BindingStatement):
            if statement.scope:
                raise ValueError(
                    f"{place}: {statement.scope}/{statement.selector} has a scope, which has no meaning here: write "
                    f"section.name = value."
                )
            section, name = statement.selector, statement.arg_name
            yield Binding(section if name else "", name or section, statement.value, place)


def _statements(text: str, source: str) -> Iterator[Any]:
    try:
        yield from ConfigParser(text, _Values())
    except RecursionError as error:
        raise ValueError(f"{source}: a value is nested too deeply to be read.") from error
    except (SyntaxError, ValueError, TypeError, tokenize.TokenError) as error:
        raise ValueError(_explained(error, source)) from error


def _explained(error: Exception, source: str) -> str:
    """One sentence on an error of gin's parser, which reports some mistakes in terms of its implementation."""
    details = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], tuple) else ()
    line = getattr(error, "lineno", None)
    place = f"{source}, line {line}" if line and source != COMMAND_LINE else source
    if isinstance(error, TypeError):
        return f"{source}: a key of a dictionary is a list or a dictionary. Use strings or numbers as keys."
    if isinstance(error, tokenize.TokenError):
        if source != COMMAND_LINE and details:
            place = f"{source}, line {details[0]}"
        return f"{place}: a bracket or a quote is opened and not closed."
    written = str(details[3]).strip() if len(details) > 3 and details[3] else ""
    shown = f" in `{written[:80]}`" if written else ""
    message = str(error.args[0]).splitlines()[0].strip() if error.args else str(error)
    if "malformed node" in message or "Unable to parse value" in message or "invalid" in message:
        message = "there is no value: write a number, True, False, None, a list, or a string in quotes"
    if "integer string conversion" in message:
        message = "a whole number has too many digits to be read"
    return f"{place}: {message.rstrip('.')}{shown}."


def _included(name: str, within: tuple[Path, ...], base: Path, place: str) -> Path:
    """The file that a line includes: one in the folder of the first file, below it, or below the current folder."""
    beside = within[-1].parent if within else Path()
    allowed = [real_path(folder) for folder in (base, Path())]
    try:
        path = next((folder / name for folder in (beside, base) if (folder / name).is_file()), Path(name))
        inside = any(real_path(path).is_relative_to(folder) for folder in allowed)
    except (OSError, ValueError) as error:  # too long a name, or a character that no name has
        raise ValueError(
            f"{place}: {name[:80]!r} cannot be included ({getattr(error, 'strerror', None) or error}). Give the "
            f"name of a .gin file."
        ) from error
    if path.suffix != ".gin" or not inside:
        raise ValueError(
            f"{place}: {name} is not included. Include only .gin files, in the folder of the configuration or in the "
            f"current one."
        )
    return find_config(path)


def _resolved(
    value: Any, macros: Mapping[str, Binding], place: str, used: set[str], inside: tuple[str, ...]
) -> Any:
    """A value with its macros replaced."""

    def resolved(part: Any) -> Any:
        return _resolved(part, macros, place, used, inside)

    if isinstance(value, _Macro):
        return _macro(value.name, macros, place, used, inside)
    if isinstance(value, list | tuple):
        return type(value)(map(resolved, value))
    if isinstance(value, dict):
        return {resolved(key): resolved(one) for key, one in value.items()}
    return value


def _macro(
    name: str, macros: Mapping[str, Binding], place: str, used: set[str], inside: tuple[str, ...]
) -> Any:
    if name in inside:
        raise ValueError(f"{place}: the macro %{name} is defined by itself. Give it a value.")
    if name in macros:
        used.add(name)
        return _resolved(macros[name].value, macros, macros[name].place, used, (*inside, name))
    # Like gin, accept the end of a constant's name.
    for constant, value in CONSTANTS.items():
        if constant == name or constant.endswith(f".{name}"):
            return value
    raise ValueError(
        f"{place}: the macro %{name} is not defined: set it, as {name} = value"
        f"{near(name, [*macros, *CONSTANTS])}"
    )


def find_config(path: Path) -> Path:
    """A gin file: the path itself or, for a name without a folder, the file of that name in the package."""
    path = Path(path)
    packaged = Path(__file__).parents[1] / "experiments"
    if path.is_file():
        return path
    if path.parent == Path() and (packaged / path).is_file():
        return packaged / path
    if path.exists():
        return regular_file(path)  # raises, and says what it is
    raise FileNotFoundError(
        f"There is no configuration file {path}. Examples are in configs/; the package contains "
        f"{' and '.join(sorted(file.name for file in packaged.glob('*.gin')))}."
    )
