"""`rqrec prepare`."""

import resource
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rqrec.cli.command import (
    AsJson,
    CustomInteractions,
    CustomItems,
    CustomVectors,
    DataDir,
    Force,
    command,
    emit,
)
from rqrec.cli.next_steps import say_next_after
from rqrec.core.artifact import read_manifest
from rqrec.data.sources.custom import CustomFiles
from rqrec.stages.prepare import PrepareConfig, default_folder
from rqrec.stages.prepare import prepare as run


@command("rqrec prepare amazon --variant beauty --data-dir dataset/amazon", section="prepare")
def prepare(
    source: Annotated[str, typer.Argument(help="amazon, movielens or custom.")],
    config: PrepareConfig,
    data_dir: DataDir = Path("dataset"),
    interactions: CustomInteractions = None,
    items: CustomItems = None,
    embeddings: CustomVectors = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the artefact.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Prepare a dataset (item texts and user sequences) from raw files; missing ones are downloaded."""
    if (items or embeddings) and not interactions:
        raise typer.BadParameter("--items and --embeddings belong to --interactions: give that, too.")
    if interactions and config.source != "custom":
        raise typer.BadParameter(f"--interactions is for custom data, but the source is {config.source}.")
    start = time.monotonic()
    raw = CustomFiles(interactions, items, embeddings) if interactions else data_dir
    folder = run(config, raw, out or default_folder(config, data_dir), force=force)
    counts = read_manifest(folder, "dataset").metrics
    result = {
        "artifact": str(folder),
        **counts,
        "seconds": round(time.monotonic() - start, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    text = (
        f"{counts['users']} users, {counts['items']} items, {counts['interactions']} interactions: {folder}"
    )
    if repeats := _repeats(counts):
        text += f"\n{repeats}"
    emit(result, as_json, text)
    if not as_json:
        say_next_after(folder)


def _repeats(counts: dict[str, Any]) -> str:
    """A sentence on the targets of the evaluation that are already in their history; "" if there are none."""
    users, validation, test = (
        counts.get(name, 0)
        for name in ("evaluated_users", "validation_targets_in_history", "test_targets_in_history")
    )
    if not (validation or test):
        return ""
    return (
        f"{test} of {users} test targets and {validation} of {users} validation targets are already in their user's "
        f"history. While seen items are excluded, they cannot be hit. If people take items again, train with "
        f"train.exclude_seen=False, or evaluate with --allow-seen."
    )
