"""Where a tokenizer's settings and tensors are kept: a folder, a `.pt` file, or a Hugging Face repository."""

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
    """Settings and tensors as they were saved; `source` names the place in messages."""

    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    source: str


def write_saved_tokenizer(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors`."""
    write_json(folder / CONFIG_FILE, dict(settings))
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(folder / WEIGHTS_FILE) as file:
        file.write(safetensors.torch.save(contiguous))


def read_saved_tokenizer(source: Path | str) -> SavedTokenizer:
    """Read a folder, a `.pt` file, or, where neither exists, the Hugging Face repository of that name.

    Raises FileNotFoundError, ConnectionError or ValueError with the reason.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, str(path))
    if path.is_file():
        return _read_pt(path)
    if isinstance(source, str) and REPO_ID.fullmatch(source) and path.suffix != ".pt":
        return _read_folder(download(source, [CONFIG_FILE, WEIGHTS_FILE]), source)
    raise FileNotFoundError(
        f"There is no checkpoint {str(source)!r}: give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, a .pt "
        f"file, or the id of a Hugging Face repository (owner/name), or make one with `rqrec train-rqvae`."
    )


def check_tensors(expected: Mapping[str, Tensor], checkpoint: SavedTokenizer) -> None:
    """Refuse a checkpoint whose tensors are not those, in name and shape, that its settings ask for."""
    found = checkpoint.tensors
    if expected.keys() != found.keys():
        missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        parts = [f"lacks the tensors {missing}"] if missing else []
        parts += [f"has the tensors {extra} that its settings do not ask for"] if extra else []
        raise ValueError(f"{checkpoint.source} {' and '.join(parts)}: it is not whole, or of another kind.")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"{checkpoint.source} has {name} of shape {tuple(found[name].shape)}; its settings ask for "
                f"{tuple(tensor.shape)}."
            )


def check_settings(known: set[str], required: set[str], checkpoint: SavedTokenizer) -> None:
    """Refuse settings that nobody reads, and the lack of those that must be there."""
    if unknown := sorted(checkpoint.settings.keys() - known):
        raise ValueError(
            f"{checkpoint.source} has unknown settings {unknown}; known are {sorted(known)}. "
            f"It may come from a newer version."
        )
    if missing := sorted(required - checkpoint.settings.keys()):
        raise ValueError(f"{checkpoint.source} does not say its {', '.join(missing)}.")


def _read_folder(folder: Path, source: str) -> SavedTokenizer:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{source} holds no {name}, so it is no saved tokenizer.")
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise ValueError(f"{source}: {WEIGHTS_FILE} is damaged ({error}). Fetch or save it again.") from error
    settings = read_json(folder / CONFIG_FILE)
    if not isinstance(settings, dict):
        raise ValueError(f"{source}: {CONFIG_FILE} must hold an object of settings, not {settings!r}.")
    return SavedTokenizer(settings, tensors, source)


def _read_pt(path: Path) -> SavedTokenizer:
    """A `.pt` file with `model` (tensors) and `model_config` (settings), read without running code in it."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is no .pt file of tensors and plain values ({first_line(error)}). Others can run code "
            f"when loaded and are refused: save the state_dict and a plain dict of settings."
        ) from error
    if not isinstance(values, dict) or not {"model", "model_config"} <= values.keys():
        found = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{path} must hold 'model' and 'model_config'; it holds {found}.")
    return SavedTokenizer(dict(values["model_config"]), dict(values["model"]), str(path))
