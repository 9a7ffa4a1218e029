"""`rqrec recommend`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from rqrec.cli.command import AsJson, command, emit, table
from rqrec.serving.recommender import DEFAULT_K, Recommendations, Recommender


@dataclass(frozen=True)
class RecommendConfig:
    """What is asked for."""

    k: int = DEFAULT_K
    """How many items."""
    allow: str | None = None
    """Only these item ids may be recommended (comma-separated)."""
    block: str | None = None
    """These item ids may not be recommended (comma-separated)."""
    max_per_code: int | None = None
    """At most this many items that share the first code (variety)."""
    exclude_seen: bool = field(default=True, metadata={"flags": "--exclude-seen/--allow-seen"})
    """Whether items of the history are excluded."""
    unknown: str = "raise"
    """What to do about an id that is not in the catalogue: "raise" an error, or "skip" it."""
    times: str | None = None
    """Unix seconds of the history's items (comma-separated), for a model that reads time."""
    user: str | None = None
    """The user's id, for a model that knows users."""

    def __post_init__(self) -> None:
        for name in ("k", "max_per_code"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if self.unknown not in ("raise", "skip"):
            raise ValueError(f"unknown is {self.unknown!r}: use 'raise' or 'skip'.")


@command("rqrec recommend --artifact out/demo --history 50,181,172 --k 10 --explain")
def recommend(
    artifact: Annotated[Path, typer.Option(help="Folder of a trained retrieval model, or of its run.")],
    history: Annotated[str, typer.Option(help="Item ids, oldest first, comma-separated.")],
    config: RecommendConfig,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how likely each code was, and other items below it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The next items for a history."""
    ids = listed(history)
    unknown = cast(Literal["raise", "skip"], config.unknown)  # checked by the recommender
    stamps = None if config.times is None else [seconds(config.times)]
    recommender = Recommender.load(artifact)
    (found,) = recommender.recommend(
        [ids],
        config.k,
        exclude_seen=config.exclude_seen,
        allow=None if config.allow is None else listed(config.allow),
        block=None if config.block is None else listed(config.block),
        max_per_code=config.max_per_code,
        unknown=unknown,
        timestamps=stamps,
        users=[config.user],
    )
    rows: list[dict[str, Any]] = [asdict(item) for item in found]
    if explain:
        (explained,) = recommender.explain_all(
            [ids],
            [[item.item_id for item in found]],
            unknown=unknown,
            timestamps=stamps,
            users=[config.user],
        )
        for row, explanation in zip(rows, explained, strict=True):
            row["path"] = [asdict(step) for step in explanation.path]
    facts = {
        "history": ids,
        "k": config.k,
        "recommendations": rows,
        "n_allowed": found.n_allowed,
        "skipped": list(found.skipped),
    }
    emit(facts, as_json, "\n".join([table(rows), *remarks(found, config.k)]))


def listed(ids: str) -> list[str]:
    """Comma-separated ids as a list."""
    return [item_id.strip() for item_id in ids.split(",") if item_id.strip()]


def seconds(times: str) -> list[int]:
    """Comma-separated whole numbers as a list. Raises ValueError that names one that is not a whole number."""
    for time in listed(times):
        if not time.lstrip("-").isdecimal():
            raise ValueError(
                f"--times has {time!r}, but must be unix seconds: whole numbers such as 1700000000."
            )
    return [int(time) for time in listed(times)]


def remarks(found: Recommendations, k: int) -> list[str]:
    """Why the list is short, and which ids were skipped."""
    remarks = []
    if found.n_allowed < k:
        remarks.append(f"Only {found.n_allowed} items are allowed.")
    if len(found) < min(k, found.n_allowed):
        remarks.append(f"Only {len(found)} items are shown: --max-per-code excludes the others.")
    if found.skipped:
        remarks.append(f"Skipped, because they are not in the catalogue: {', '.join(found.skipped)}.")
    return remarks
