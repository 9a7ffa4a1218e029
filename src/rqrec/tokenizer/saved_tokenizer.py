"""Settings and weights of a saved tokenizer: a folder, a `.pt` file or a Hugging Face repository."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from rqrec.core.artifact import atomic_write, read_json, write_json
from rqrec.core.errors import first_line
from rqrec.core.hub import REPO_ID, download
from rqrec.core.regular_file import regular_file
from rqrec.core.tensors import check_finite, model_with, read_tensors

ConfigT = TypeVar("ConfigT")
ModelT = TypeVar("ModelT", bound=nn.Module)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod)\.")
# What Hugging Face libraries add to a config.json; it says nothing about the model.
HUB_KEYS = re.compile(
    r"_.*|architectures|auto_map|model_type|transformers_version|(torch_)?dtype|library_name|license|tags|"
    r"pipeline_tag|language|(repo|docs|paper)_url|model_card_template"
)


class SavedTokenizer(NamedTuple):
    """The content of a saved tokenizer, before a model is built from it."""

    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    source: str  # path or repository id, for error messages


def write_saved_tokenizer(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors` into `folder`."""
    write_json(folder / CONFIG_FILE, dict(settings))
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(folder / WEIGHTS_FILE) as file:
        file.write(safetensors.torch.save(contiguous))


def read_saved_tokenizer(source: Path | str) -> SavedTokenizer:
    """Read a folder or a `.pt` file; if neither exists, the Hugging Face repository of that name.

    Raises FileNotFoundError if there is no such source, ConnectionError if the hub cannot be reached, and
    ValueError if the files are damaged or in another format.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, str(path))
    if path.exists():
        return _read_pt(regular_file(path))
    if isinstance(source, str) and REPO_ID.fullmatch(source) and path.suffix != ".pt":
        return _read_folder(download(source, [CONFIG_FILE, WEIGHTS_FILE]), source)
    raise FileNotFoundError(
        f"There is no saved tokenizer {str(source)!r}: give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, a "
        f".pt file or the id of a Hugging Face repository (owner/name), or train one with `rqrec train-rqvae`."
    )


def restored(
    saved: SavedTokenizer, config: Callable[..., ConfigT], build: Callable[[ConfigT], ModelT]
) -> ModelT:
    """The saved model, in evaluation mode; `build` makes it from a config of this dataclass.

    Raises ValueError, naming the source, if its settings are unknown or not valid, or do not fit its tensors.
    """
    names: Any = config
    check_settings({field.name for field in fields(names)}, {"input_dim"}, saved)
    try:
        made = config(**saved.settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{saved.source}: {error}") from error
    return model_with(lambda: build(made), saved.tensors, saved.source)


def check_settings(known: set[str], required: set[str], saved: SavedTokenizer) -> None:
    """Raise ValueError if a setting is not in `known`, or if one in `required` is missing."""
    if unknown := sorted(saved.settings.keys() - known):
        raise ValueError(
            f"{saved.source} has unknown settings {unknown}; known are {sorted(known)}. "
            f"It may come from a newer version."
        )
    if missing := sorted(required - saved.settings.keys()):
        raise ValueError(f"{saved.source} lacks the required settings {missing}.")


def _read_folder(folder: Path, source: str) -> SavedTokenizer:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{source} has no {name}, so it is not a saved tokenizer.")
    tensors = _without_wrappers(read_tensors(folder / WEIGHTS_FILE), source)
    settings = read_json(folder / CONFIG_FILE)
    if not isinstance(settings, dict):
        raise ValueError(f"{source}: {CONFIG_FILE} must contain a JSON object of settings, not {settings!r}.")
    own = {name: value for name, value in settings.items() if not HUB_KEYS.fullmatch(name)}
    return SavedTokenizer(own, tensors, source)


def _without_wrappers(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors under the names of the model itself, which data-parallel and compiled models prefix."""
    named = {WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise ValueError(f"{source} has the same tensor with and without the prefix of a wrapped model.")
    return named


def _read_pt(path: Path) -> SavedTokenizer:
    """Read a `.pt` file with `model` (tensors) and `model_config` (settings), without executing pickled code."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler of torch raises whatever a damaged file leads to
        raise ValueError(
            f"{path} is not a .pt file of tensors and plain values ({first_line(error)}). Other pickles can "
            f"run code when loaded, so they are refused: save the state_dict and a plain dict of settings."
        ) from error
    if not isinstance(values, dict) or not {"model", "model_config"} <= values.keys():
        found = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{path} must contain 'model' and 'model_config'; it contains {found}.")
    model, settings = values["model"], values["model_config"]
    if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
        raise ValueError(f"{path}: 'model_config' must be a dict of settings, not {type(settings).__name__}.")
    if not isinstance(model, Mapping) or not all(isinstance(one, Tensor) for one in model.values()):
        raise ValueError(f"{path}: 'model' must be the state_dict of a model: a dict of tensors.")
    check_finite(model, path)
    return SavedTokenizer(dict(settings), _without_wrappers(model, str(path)), str(path))
