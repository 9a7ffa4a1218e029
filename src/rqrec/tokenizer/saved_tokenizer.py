"""Settings and weights of a saved tokenizer: a folder, a `.pt` file or a Hugging Face repository."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rqrec.core.artifact import atomic_write, read_json, write_json
from rqrec.core.hub import REPO_ID, download, first_line

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


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
    if path.is_file():
        return _read_pt(path)
    if isinstance(source, str) and REPO_ID.fullmatch(source) and path.suffix != ".pt":
        return _read_folder(download(source, [CONFIG_FILE, WEIGHTS_FILE]), source)
    raise FileNotFoundError(
        f"There is no saved tokenizer {str(source)!r}: give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, a "
        f".pt file or the id of a Hugging Face repository (owner/name), or train one with `rqrec train-rqvae`."
    )


def check_tensors(expected: Mapping[str, Tensor], saved: SavedTokenizer) -> None:
    """Raise ValueError unless the tensors have exactly the names and shapes that the settings imply."""
    found = saved.tensors
    if expected.keys() != found.keys():
        missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        parts = [f"lacks the tensors {missing}"] if missing else []
        parts += [f"has unexpected tensors {extra}"] if extra else []
        raise ValueError(f"{saved.source} {' and '.join(parts)}: it is incomplete or another type of model.")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"{saved.source} has {name} of shape {tuple(found[name].shape)}; by its settings the shape must "
                f"be {tuple(tensor.shape)}."
            )


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
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise ValueError(f"{source}: {WEIGHTS_FILE} is damaged ({error}). Fetch or save it again.") from error
    settings = read_json(folder / CONFIG_FILE)
    if not isinstance(settings, dict):
        raise ValueError(f"{source}: {CONFIG_FILE} must contain a JSON object of settings, not {settings!r}.")
    return SavedTokenizer(settings, tensors, source)


def _read_pt(path: Path) -> SavedTokenizer:
    """Read a `.pt` file with `model` (tensors) and `model_config` (settings), without executing pickled code."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a .pt file of tensors and plain values ({first_line(error)}). Other pickles can "
            f"run code when loaded, so they are refused: save the state_dict and a plain dict of settings."
        ) from error
    if not isinstance(values, dict) or not {"model", "model_config"} <= values.keys():
        found = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{path} must contain 'model' and 'model_config'; it contains {found}.")
    return SavedTokenizer(dict(values["model_config"]), dict(values["model"]), str(path))
