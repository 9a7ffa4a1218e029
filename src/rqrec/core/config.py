"""Settings: frozen dataclasses, set from gin files, `--gin` bindings and command-line options.

A config may contain other configs. For the user, the fields of all of them are one flat list of setting names:
`train.learning_rate = 0.001` sets `config.loop.learning_rate`. Each default is defined in one dataclass.

A field may have this metadata:

prefix: prefix of the setting names of a nested config's fields ("vae_")
fields_of: the field is a mapping that may set any field of this config class; the others keep their defaults
without: with `fields_of`, the fields that cannot be set
names: with `fields_of`, the setting names of fields whose setting has another name
flags: flags of the command-line option, such as "--exclude-seen/--allow-seen" for a bool
envvar: an environment variable that sets the option
option: False for a setting that has no command-line option

A config class may have `ALIASES` (alternative setting names) and `IGNORED` (names that are accepted but have no
effect, with the reason).
"""

import ast
import inspect
import re
import textwrap
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import gin

from rqrec.core.progress import log

ConfigT = TypeVar("ConfigT")

# All sections of a gin file, which can configure several stages.
SECTIONS = (
    *("prepare", "embed", "fit_rqkmeans", "tokenize", "evaluate", "recommend"),
    *("batch_recommend", "serve"),
    *("train", "train_rqvae", "train_decoder", "train_sasrec", "generate_semantic_ids"),
    *("reproduce", "compare", "hold_out_items", "evaluate_cold"),
)

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

GIN_ERRORS = (ValueError, TypeError, SyntaxError, NameError, AttributeError, tokenize.TokenError)
LONGEST_LINE = 10_000  # characters; gin breaks longer lines when it prints a configuration


class Setting(NamedTuple):
    """One setting of a config: its name, the path of its field, its type, current value and description."""

    name: str
    path: tuple[str, ...]
    type: Any
    value: Any
    help: str
    metadata: Mapping[str, Any]


def settings_of(config: Any) -> dict[str, Setting]:
    """All settings of a config (an instance) by name, in the order of the fields."""
    settings: dict[str, Setting] = {}
    for setting in _settings(config, (), ""):
        if setting.name in settings:
            raise TypeError(f"{type(config).__name__} has two settings named {setting.name!r}.")
        settings[setting.name] = setting
    return settings


def _settings(config: Any, path: tuple[str, ...], prefix: str) -> list[Setting]:
    cls: Any = type(config)
    types, docs = get_type_hints(cls), field_docs(cls)
    settings = []
    for field in fields(config):
        value, here = getattr(config, field.name), (*path, field.name)
        if is_dataclass(value):
            settings += _settings(value, here, prefix + field.metadata.get("prefix", ""))
        elif part := field.metadata.get("fields_of"):
            settings += _partial(part, value, here, field.metadata)
        else:
            name = prefix + field.name
            settings.append(
                Setting(name, here, types[field.name], value, docs.get(field.name, ""), field.metadata)
            )
    return settings


def _partial(
    part: type, given: Mapping[str, Any], path: tuple[str, ...], metadata: Mapping[str, Any]
) -> list[Setting]:
    types, docs, names = get_type_hints(part), field_docs(part), metadata.get("names", {})
    return [
        Setting(
            names.get(field.name, metadata.get("prefix", "") + field.name),
            (*path, field.name),
            types[field.name],
            given.get(field.name, None if field.default is MISSING else field.default),
            docs.get(field.name, ""),
            field.metadata,
        )
        for field in fields(part)
        if field.name not in metadata.get("without", ())
    ]


@cache
def field_docs(config: Any) -> dict[str, str]:
    """The docstring below each field of a dataclass, those of its base classes included."""
    docs: dict[str, str] = {}
    bases: list[Any] = [cls for cls in config.__mro__ if is_dataclass(cls)]
    for cls in reversed(bases):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                match following:
                    case ast.Expr(ast.Constant(str(text))):
                        docs[statement.target.id] = " ".join(text.split())
    return docs


def with_settings(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """A copy of a config with some of its settings changed, given by name.

    Raises ValueError for an unknown name (the message lists the known ones), a value of the wrong type, and a value
    that the config itself refuses.
    """
    known = settings_of(config)
    aliases: Mapping[str, str] = getattr(config, "ALIASES", {})
    ignored: Mapping[str, str] = getattr(config, "IGNORED", {})
    changes: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        if name in ignored:
            log(f"{name} has no effect here: {ignored[name]}")
            continue
        setting = known.get(aliases.get(name, name))
        if setting is None:
            raise ValueError(f"Unknown setting {name!r}; allowed are {', '.join([*known, *aliases])}.")
        changes[setting.path] = _converted(name, setting.type, value)
    return _changed(config, changes)


def _changed(config: Any, changes: Mapping[tuple[str, ...], Any]) -> Any:
    """The config with values at some paths replaced."""
    inner: dict[str, dict[tuple[str, ...], Any]] = {}
    for path, value in changes.items():
        inner.setdefault(path[0], {})[path[1:]] = value
    if isinstance(config, Mapping):
        return {**config, **{name: below[()] for name, below in inner.items()}}
    return replace(
        config,
        **{
            name: below[()] if () in below else _changed(getattr(config, name), below)
            for name, below in inner.items()
        },
    )


def _converted(name: str, annotation: Any, value: Any) -> Any:
    """A value converted to the type of its field: string to path, list to tuple, int to float."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for choice in choices:
        base = get_origin(choice) or choice
        if choice is NoneType and value is None:
            return None
        if base is Literal and value in get_args(choice):
            return value
        if choice is Path and isinstance(value, str | Path):
            return Path(value)
        if base is tuple and isinstance(value, list | tuple):
            element = get_args(choice)[0]
            return tuple(_converted(f"An element of {name}", element, one) for one in value)
        if base is Mapping and get_args(choice) and isinstance(value, dict):
            key, element = get_args(choice)
            return {
                _converted(f"A key of {name}", key, one): _converted(f"{name}[{one!r}]", element, value[one])
                for one in value
            }
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if choice is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if choice in (bool, str) and isinstance(value, choice):
            return value
        if inspect.isclass(base) and issubclass(base, Enum):
            return value  # the config itself accepts the name or value of a member, and checks it
    allowed = " or ".join("None" if choice is NoneType else _describe(choice) for choice in choices)
    raise ValueError(f"{name} is {value!r}, but must be {allowed}.")


def _describe(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(repr, get_args(annotation)))}"
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a string", Path: "a path"}
    origins = {tuple: "a list", Mapping: "a dictionary"}
    return names.get(annotation, origins.get(get_origin(annotation), str(annotation)))


def check_fields_of(config: Any, field_name: str, part: type, **known_later: Any) -> None:
    """Check the mapping of a `fields_of` field as far as possible before the data is known.

    `known_later` are valid values for the fields that the data determines. Raises the ValueError of `part`, with the
    names of the settings.
    """
    try:
        part(**{**known_later, **getattr(config, field_name)})
    except ValueError as error:
        settings = [setting for setting in settings_of(config).values() if setting.path[0] == field_name]
        names = {setting.path[-1]: setting.name for setting in settings}
        pattern = re.compile(rf"(?<![\w'])({'|'.join(names)})\b")
        raise ValueError(pattern.sub(lambda match: names[match[0]], str(error))) from error


def configured(
    config: ConfigT,
    sections: Sequence[str],
    files: Sequence[Path],
    bindings: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> ConfigT:
    """The config with the settings of gin files and bindings in these sections, and of command-line options.

    Options take precedence over bindings, bindings over files, and later sections, files and bindings over earlier
    ones. With the sections ("train", "train_decoder"), `train.iterations = 100` sets `iterations`. Other known
    sections are ignored. Raises FileNotFoundError for a missing file, ValueError for anything that gin or the config
    does not accept.
    """
    values: dict[str, Any] = {}
    # Interactive mode allows another command of the same process to register the names again.
    with gin.config.interactive_mode():
        gin.clear_config(clear_constants=True)
        for name, value in CONSTANTS.items():
            gin.constant(name, value)
        for section in SECTIONS:
            gin.external_configurable(_section, name=section, module="rqrec")
        try:
            for path in files:
                # A list with a name that never occurs: gin then skips imports of missing modules, but nothing else.
                gin.parse_config_file(str(_check_text(find_config(path))), skip_unknown=["-"])
            gin.parse_config(list(bindings), skip_unknown=["-"])
            for section in sections:
                values |= gin.get_bindings(section)
            for name, section in _bound_by(bindings, sections):
                values[name] = gin.get_bindings(section)[name]
            _check_names(gin.config_str(max_line_length=LONGEST_LINE), bindings)
        except FileNotFoundError:
            raise
        except (*GIN_ERRORS, OSError) as error:
            raise ValueError(
                f"{_explained(error)}\nThe settings of {sections[0]} are {', '.join(settings_of(config))}."
            ) from error
    for binding in bindings:
        section = _bound_name(binding).rpartition(".")[0]
        if section in SECTIONS and section not in sections:
            log(f"{binding} has no effect: this command reads the settings of {' and '.join(sections)}.")
    return with_settings(config, values | dict(options or {}))


def _check_text(path: Path) -> Path:
    """The path of a gin file. Raises ValueError, naming the file, if it is not text."""
    try:
        path.read_text(encoding="utf-8")
        return path
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error}). Give a gin file.") from error


def _bound_name(binding: str) -> str:
    return binding.partition("=")[0].strip()


def _bound_by(bindings: Sequence[str], sections: Sequence[str]) -> list[tuple[str, str]]:
    """The settings (name, section) that bindings set in these sections, in the order of the sections."""
    bound = [_bound_name(binding).rpartition(".") for binding in bindings]
    return [(name, section) for section in sections for of, _, name in bound if of == section]


def _check_names(config: str, bindings: Sequence[str]) -> None:
    """Refuse names in gin's text of a whole configuration that would have no effect.

    These are names with a scope, and bindings without a section, unless they are macros that a value uses.
    """
    for line in config.splitlines():
        name, equals, _ = line.partition(" = ")
        if not equals or line.startswith(("#", " ")) or f"%{name}" in config:
            continue
        if "/" in name:
            raise ValueError(f"{name} has a scope, which has no meaning here: write section.name = value.")
        if "." not in name:
            problem = f"{name} has no section and no value uses it as a macro"
            if name in map(_bound_name, bindings):
                raise ValueError(f"{problem}: write section.name = value.")
            log(f"{problem}: it has no effect.")


def _explained(error: Exception) -> str:
    """The message of an error in a gin file; gin reports some mistakes in terms of its implementation."""
    message = str(error).strip()
    if "macro() missing" in message:
        name = re.search(r"in scope '([^']*)'", message)
        return f"The macro %{name[1] if name else ''} is not defined: set it, as NAME = value."
    if "malformed node" in message:
        line = re.search(r"on line \d+", message)
        return f"A value {line[0] if line else ''} is not a Python literal: strings need quotes."
    return message


def _section(**values: Any) -> None:
    """A placeholder that gin binds values to; `configured` reads them."""


def find_config(path: Path) -> Path:
    """A gin file: the path itself or, for a name without a folder, the file of that name in the package."""
    path = Path(path)
    packaged = Path(__file__).parents[1] / "experiments"
    if path.is_file():
        return path
    if path.parent == Path() and (packaged / path).is_file():
        return packaged / path
    raise FileNotFoundError(
        f"There is no configuration file {path}. Examples are in configs/; the package contains "
        f"{' and '.join(sorted(file.name for file in packaged.glob('*.gin')))}."
    )
