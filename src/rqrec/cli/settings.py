"""`rqrec settings`: the page docs/settings.md, from the config dataclasses."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from rqrec.cli.command import AsJson, command, emit
from rqrec.cli.recommend import RecommendConfig
from rqrec.core.config import Setting, settings_of
from rqrec.experiments.cold_start_config import EvaluateColdConfig, HoldOutConfig
from rqrec.experiments.compare.config import CompareConfig
from rqrec.experiments.quickstart_config import QuickstartConfig
from rqrec.experiments.reproduce_config import ReproduceConfig
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.retrieval_model import ModelConfig
from rqrec.serving.batch_config import BatchConfig
from rqrec.serving.config import ServiceConfig
from rqrec.stages.embed import EmbedConfig
from rqrec.stages.evaluate import EvaluateConfig
from rqrec.stages.fit_rqkmeans_config import FitRqKMeansConfig
from rqrec.stages.join_config import JoinConfig
from rqrec.stages.prepare import PrepareConfig
from rqrec.stages.run_rqvae import GenerateSemanticIdsConfig
from rqrec.stages.tokenize_config import TokenizeConfig
from rqrec.stages.train_decoder import TrainDecoderConfig
from rqrec.stages.train_rqvae import TrainRqVaeConfig
from rqrec.stages.train_sasrec import TrainSasRecConfig


class Section(NamedTuple):
    """A section of gin files: the command that reads it, its settings, and where else they can be set."""

    command: str
    config: Any
    also: str


TRAINING = "Names under `train.` are read by every training command; those under `{section}.` win over them."
OPTIONS = "Files are given with `--config`. The settings are also options of the command, and these win."
SECTIONS = {
    "train_rqvae": Section("train-rqvae", TrainRqVaeConfig(), TRAINING),
    "train_decoder": Section("train-decoder", TrainDecoderConfig(), TRAINING),
    "train_sasrec": Section("train-sasrec", TrainSasRecConfig(), TRAINING),
    "join": Section("join", JoinConfig(), OPTIONS),
    "prepare": Section("prepare", PrepareConfig(), OPTIONS),
    "embed": Section("embed", EmbedConfig(), OPTIONS),
    "fit_rqkmeans": Section("fit-rqkmeans", FitRqKMeansConfig(), OPTIONS),
    "tokenize": Section("tokenize", TokenizeConfig(), OPTIONS),
    "evaluate": Section("evaluate", EvaluateConfig(), OPTIONS),
    "recommend": Section("recommend", RecommendConfig(), OPTIONS),
    "generate_semantic_ids": Section("run-rqvae", GenerateSemanticIdsConfig(), ""),
    "batch_recommend": Section("batch-recommend", BatchConfig(), OPTIONS),
    "serve": Section("serve", ServiceConfig(), OPTIONS),
    "quickstart": Section("quickstart", QuickstartConfig(), OPTIONS),
    "reproduce": Section("reproduce", ReproduceConfig(), OPTIONS),
    "compare": Section("compare", CompareConfig(), ""),
    "hold_out_items": Section("hold-out-items", HoldOutConfig(), OPTIONS),
    "evaluate_cold": Section("evaluate-cold", EvaluateColdConfig(), OPTIONS),
}
INTRODUCTION = """# Settings

All settings, by section, as `rqrec settings` prints them. `rqrec settings embed` prints one section.

In a `.gin` file a setting is `SECTION.NAME = VALUE`, and on the command line `--gin "SECTION.NAME=VALUE"`. Later
files win over earlier ones, and `--gin` wins over all files. A file may have sections for several commands: each
command reads its own.
"""


@command("rqrec settings train_decoder")
def settings(
    sections: Annotated[list[str] | None, typer.Argument(help="Sections to print; by default all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print all settings of gin files with their defaults and meaning, as Markdown."""
    for name in sections or []:
        if name not in SECTIONS:
            raise typer.BadParameter(f"There is no section {name!r}; allowed are {', '.join(SECTIONS)}.")
    chosen = sections or list(SECTIONS)
    pages = [*([] if sections else [INTRODUCTION]), *(_page(name, SECTIONS[name]) for name in chosen)]
    facts = {
        name: {
            setting.name: {"default": _default(SECTIONS[name].config, setting), "meaning": setting.help}
            for setting in settings_of(SECTIONS[name].config).values()
        }
        for name in chosen
    }
    emit(facts, as_json, "\n".join(pages).rstrip())


def _page(name: str, section: Section) -> str:
    """The Markdown of one section."""
    lines = [f"## {name}", "", f"`rqrec {section.command}`. {section.also.format(section=name)}".rstrip(), ""]
    lines += ["| name | default | meaning |", "| --- | --- | --- |"]
    for setting in settings_of(section.config).values():
        meaning = setting.help.replace("|", "\\|")
        lines.append(f"| `{setting.name}` | `{_default(section.config, setting)}` | {meaning} |")
    if aliases := getattr(section.config, "ALIASES", {}):
        others = ", ".join(f"`{alias}` for `{setting}`" for alias, setting in aliases.items())
        lines += ["", f"Other names that are understood: {others}."]
    if ignored := getattr(section.config, "IGNORED", {}):
        lines += ["", "Names that are accepted and have no effect:", ""]
        lines += [f"- `{setting}`: {reason}" for setting, reason in ignored.items()]
    return "\n".join([*lines, ""])


def _default(config: Any, setting: Setting) -> str:
    """A setting's default as a gin file would have it, and those of architectures that have another one."""
    holder, field_name = _holder(config, setting.path)
    if not isinstance(holder, Mapping):
        return _in_gin(setting.value)
    part = next(field for field in fields(config) if field.name == setting.path[0]).metadata["fields_of"]
    default = _field_default(part, field_name)
    if default is MISSING:
        return "known from the data"
    words = [_in_gin(default)]
    if part is ModelConfig:
        for name, architecture in ARCHITECTURES.items():
            if (own := _field_default(architecture.config, field_name)) != default:
                words.append(f"{name}: {_in_gin(own)}")
    return ", ".join(words)


def _holder(config: Any, path: tuple[str, ...]) -> tuple[Any, str]:
    """The config or mapping that holds a setting, and its name there."""
    for name in path[:-1]:
        config = getattr(config, name)
    return config, path[-1]


def _field_default(config: type, name: str) -> Any:
    return next(field.default for field in fields(config) if field.name == name)


def _in_gin(value: Any) -> str:
    if isinstance(value, Enum):
        return json.dumps(value.name)
    if isinstance(value, str | Path):
        return json.dumps(str(value))
    if isinstance(value, tuple):
        return f"[{', '.join(_in_gin(one) for one in value)}]"
    return repr(value)
