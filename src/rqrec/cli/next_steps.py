"""What comes next: the commands that use what a command has made, ready to paste into the same shell."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rqrec.cli.id_lists import join_ids
from rqrec.core.artifact import find, find_input, read_manifest
from rqrec.core.progress import log
from rqrec.data.catalog import Catalog
from rqrec.data.sequences import Sequences

NAME = "rqrec"
RECIPE = ("--config", "recipe.gin")
EXAMPLE_ITEMS = 3  # in the history of an example


def program() -> str:
    """How a shell in this folder starts the program that is running: `rqrec`, or the path of it."""
    started = Path(sys.argv[0])
    script = started if started.stem == NAME else Path(sys.executable).with_name(NAME)
    if not script.is_file():
        return f"{shlex.quote(_shown(Path(sys.executable)))} -m {NAME}"
    found = shutil.which(NAME)
    if found is not None and os.path.samefile(found, script):
        return NAME
    return shlex.quote(_shown(script))


def line(*arguments: str | Path) -> str:
    """A command line of this program with these arguments, quoted where a shell needs it."""
    return " ".join([program(), *(shlex.quote(_shown(one)) for one in arguments)])


def say_next(what: str, lines: Sequence[str]) -> None:
    """Print the lines to go on with; only the first of several processes prints."""
    if lines and os.environ.get("RANK", "0") == "0":
        log("\n".join([f"\n{what}", *(f"  {one}" for one in lines)]))


def say_next_after(folder: Path) -> None:
    """Print the commands that use an artefact; nothing if none is obvious."""
    folder, kind = Path(folder), read_manifest(folder).artifact_type
    out = folder.parent
    if kind == "dataset":
        say_next(
            "Next, encode the items' texts:", [line("embed", folder, *RECIPE, "--out", out / "embeddings")]
        )
    elif kind == "embeddings":
        commands = [line("fit-rqkmeans", folder, *RECIPE, "--out", out / "rqkmeans")]
        say_next("Next, learn the tokenizer:", commands)
    elif kind in ("rqvae", "rqkmeans"):
        say_next("Next, give every item its semantic ID:", _tokenize(folder))
    elif kind == "semantic_ids":
        say_next("Next, train the model:", _train(folder))
    elif kind == "sasrec":
        say_next("Next, test the model:", [line("evaluate", "--artifact", folder)])
    elif kind == "retrieval":
        say_next("Next, recommend, find ids of what you like, or try it in the browser:", using(folder))


def using(model: Path) -> list[str]:
    """The commands that recommend, find ids of other items and serve, for a "retrieval" artefact."""
    folder, history, catalog = _short(model), example_history(model), Catalog.read(model)
    found = [
        title for title in catalog.titles_of(catalog.id_map.indices(history).tolist()) if title not in history
    ]
    return [
        line("recommend", "--artifact", folder, "--history", join_ids(history)),
        *(line("items", "find", folder, title) for title in found[:1]),
        line("serve", "--artifact", folder),
    ]


def example_history(model: Path) -> list[str]:
    """The last items of a user that the model was trained on, if the dataset lies near; else some of its items."""
    ids = Catalog.read(model).id_map
    items = list(range(min(EXAMPLE_ITEMS, len(ids))))
    if (dataset := find_input(model, "dataset")) is not None:
        sequences = Sequences.read(dataset)
        long = np.flatnonzero(sequences.lengths >= EXAMPLE_ITEMS)
        if len(long):
            items = sequences.of_user(int(long[0]))[-EXAMPLE_ITEMS:].tolist()
    return ids.ids(items)


def _tokenize(tokenizer: Path) -> list[str]:
    embeddings = find_input(tokenizer, "embeddings")
    if embeddings is None:
        return []
    dataset = find_input(embeddings, "dataset")
    of_items = () if dataset is None else ("--dataset", dataset)
    out = embeddings.parent / "semantic_ids"
    return [line("tokenize", _short(tokenizer), embeddings, *of_items, "--out", out)]


def _train(semantic_ids: Path) -> list[str]:
    dataset, embeddings = (find_input(semantic_ids, kind) for kind in ("dataset", "embeddings"))
    if dataset is None or embeddings is None:
        return []
    root = f'train.save_dir_root="{_shown(semantic_ids.parent / "decoder")}"'
    inputs = ("--dataset", dataset, "--semantic-ids", semantic_ids, "--embeddings", embeddings)
    return [line("train-decoder", "recipe.gin", *inputs, "--gin", root, "--max-minutes", "10")]


def _short(folder: Path) -> Path:
    """The run folder of an artefact, if that is enough to name it and is not the current folder."""
    if folder.parent.samefile(Path()):
        return folder
    try:
        found = find(folder.parent, read_manifest(folder).artifact_type)
    except ValueError:
        return folder
    return folder.parent if found.samefile(folder) else folder


def _shown(path: str | Path) -> str:
    """A path from here, if it is inside this folder; any other argument as it is."""
    if isinstance(path, str):
        return path
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
