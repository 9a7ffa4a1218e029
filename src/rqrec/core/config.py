"""Settings: frozen dataclasses, set from gin files, `--gin` bindings and command-line options.

A config may contain other configs. For the user, the fields of all of them are one flat list of setting names:
`train.learning_rate = 0.001` sets `config.loop.learning_rate`. Each default is defined in one dataclass.

A field may have this metadata:

prefix: prefix of the setting names of a nested config's fields ("vae_")
fields_of: the field is a mapping that may set any field of this config class; the others keep their defaults
without: with `fields_of`, the fields that cannot be set
names: with `fields_of`, the setting names of fields whose setting has another name
section: another section of gin files whose setting of that name counts unless the config's own section sets it
flags: flags of the command-line option, such as "--exclude-seen/--allow-seen" for a bool
envvar: an environment variable that sets the option
whole: True for a list of strings that may contain commas: on the command line, each is an option of its own

Types and ranges of values are checked as `rqrec.core.values` says.

A config class may have `ALIASES` (alternative setting names) and `IGNORED` (names that are accepted but have no
effect, with the reason).
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from rqrec.core.gin_files import COMMAND_LINE, near, read_gin
from rqrec.core.progress import log
from rqrec.core.values import annotations_of, converted

ConfigT = TypeVar("ConfigT")

# All sections of a gin file, which can configure several stages.
SECTIONS = (
    *("prepare", "embed", "fit_rqkmeans", "tokenize", "evaluate", "recommend"),
    *("batch_recommend", "serve"),
    *("train", "train_rqvae", "train_decoder", "train_sasrec", "join", "generate_semantic_ids"),
    *("quickstart", "reproduce", "compare", "hold_out_items", "evaluate_cold"),
)


class Setting(NamedTuple):
    """One setting of a config: its name, the path of its field, its type, current value and description."""

    name: str
    path: tuple[str, ...]
    type: Any
    annotation: Any
    """The type with its range."""
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
            annotation = annotations_of(cls)[field.name]
            help_text = docs.get(field.name, "")
            settings.append(
                Setting(name, here, types[field.name], annotation, value, help_text, field.metadata)
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
            annotations_of(part)[field.name],
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

    Raises ValueError for an unknown name (the message has the nearest known ones), a value of the wrong type or
    out of range, two names of one setting with different values, and a value that the config itself refuses.
    """
    known = settings_of(config)
    aliases: Mapping[str, str] = getattr(config, "ALIASES", {})
    ignored: Mapping[str, str] = getattr(config, "IGNORED", {})
    changes: dict[tuple[str, ...], Any] = {}
    given_as: dict[tuple[str, ...], str] = {}
    for name, value in values.items():
        if name in ignored:
            log(f"{name} has no effect here: {ignored[name]}")
            continue
        setting = known.get(aliases.get(name, name))
        if setting is None:
            raise ValueError(
                f"There is no setting {name!r}{near(name, [*known, *aliases])} `rqrec settings` lists all of them."
            )
        if value is None and name in aliases and NoneType not in get_args(setting.type):
            continue  # the other implementation's word for "off", which is the default of such settings
        checked = converted(name, setting.annotation, value)
        if changes.get(setting.path, checked) != checked:
            other = given_as[setting.path]
            raise ValueError(
                f"{other} is {values[other]!r} and {name} is {value!r}, but both set {setting.name}. Give only one."
            )
        changes[setting.path], given_as[setting.path] = checked, name
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
    found = read_gin(files, bindings)
    elsewhere = {
        (setting.metadata["section"], setting.name)
        for setting in settings_of(config).values()
        if "section" in setting.metadata
    }
    for one in found:
        if one.section not in SECTIONS:
            raise ValueError(
                f"{one.place}: there is no section {one.section!r} for {one.name}{near(one.section, SECTIONS)} "
                f"`rqrec settings` lists all of them."
            )
        reads = one.section in sections or (one.section, one.name) in elsewhere
        if one.place == COMMAND_LINE and not reads:
            log(
                f"{one.section}.{one.name} has no effect: this command reads the settings of "
                f"{' and '.join(sections)}."
            )
    aliases: Mapping[str, str] = getattr(config, "ALIASES", {})
    values: dict[str, Any] = {}
    for is_last in (False, True):
        source = [one for one in found if (one.place == COMMAND_LINE) is is_last]
        here = [one for one in source if (one.section, one.name) in elsewhere]
        for level in (here, *([one for one in source if one.section == name] for name in sections)):
            values = _over(values, {one.name: one.value for one in level}, aliases)
    return with_settings(config, _over(values, options or {}, aliases))


def _over(values: Mapping[str, Any], new: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """The values with new ones in the place of those of the same setting, under whichever of its names."""
    replaced = {aliases.get(name, name) for name in new}
    kept = {name: value for name, value in values.items() if aliases.get(name, name) not in replaced}
    return kept | dict(new)
