"""`rqrec recommend`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import polars as pl
import typer

from rqrec.cli.command import AsJson, command, emit, table
from rqrec.cli.id_lists import split_ids
from rqrec.core.progress import log
from rqrec.core.values import Config, PositiveInt
from rqrec.data.times import log_unit, to_seconds
from rqrec.retrieval.defaults import DEFAULT_K
from rqrec.serving.rules import RuleSettings

if TYPE_CHECKING:
    from rqrec.serving.answers import Recommendations
    from rqrec.serving.recommender import Recommender


@dataclass(frozen=True)
class RecommendConfig(Config):
    """Options of a recommendation."""

    k: PositiveInt = DEFAULT_K
    """Number of items to recommend."""
    allow: str | None = None
    """Only these item ids may be recommended (written as in --history)."""
    block: str | None = None
    """These item ids may not be recommended (written as in --history)."""
    rules: RuleSettings = RuleSettings()
    exclude_seen: bool | None = field(default=None, metadata={"flags": "--exclude-seen/--allow-seen"})
    """Whether items of the history are excluded; by default as in the model's training."""
    unknown: Literal["raise", "skip"] = "raise"
    """What to do with an id that is not in the catalogue: "raise" an error, or "skip" it."""
    times: str | None = None
    """Times of the history's items (comma-separated), for a model that uses time gaps: seconds since 1970, milli-,
    micro- or nanoseconds, or ISO dates such as 2023-11-19T04:24:33."""
    user: str | None = None
    """The user's id, for a model with user embeddings."""
    experts: tuple[str, ...] = ()
    """Ask these experts of a joined model only: their names, codes, dense, neighbours, or trained (all but the
    neighbours); by default all. Or, to compare, popularity: the most popular items."""


@command("rqrec recommend --artifact out/demo --history 50,181,172 --k 10 --explain", section="recommend")
def recommend(
    artifact: Annotated[Path, typer.Option(help="Folder of a trained retrieval model, or its run folder.")],
    history: Annotated[
        str,
        typer.Option(
            help='Item ids, oldest first, comma-separated; or a JSON list, for ids with commas: \'["50", "a,b"]\'.'
        ),
    ],
    config: RecommendConfig,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show what each expert says of an item, the probability of each of its codes with other items of "
            "the same prefix, and the items of the history that it is a neighbour of.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend the next items for a history."""
    from rqrec.serving.recommender import Recommender

    ids = split_ids(history)
    timestamps = None if config.times is None else [split_ids(config.times)]
    if timestamps:
        log_unit("--times", to_seconds(pl.Series(timestamps[0], dtype=pl.String), "number {}".format))
    recommender = Recommender.load(artifact)
    (recommendations,) = recommender.recommend(
        [ids],
        config.k,
        exclude_seen=config.exclude_seen,
        allow=None if config.allow is None else split_ids(config.allow),
        block=None if config.block is None else split_ids(config.block),
        rules=config.rules.rules,
        unknown=config.unknown,
        timestamps=timestamps,
        users=[config.user],
        experts=config.experts or None,
    )
    rows: list[dict[str, Any]] = [asdict(item) for item in recommendations]
    if not explain:
        for row in rows:
            del row["experts"]
    else:
        (explained,) = recommender.explain_all(
            [ids],
            [[item.item_id for item in recommendations]],
            unknown=config.unknown,
            timestamps=timestamps,
            users=[config.user],
        )
        for row, explanation in zip(rows, explained, strict=True):
            row["path"] = [asdict(step) for step in explanation.path]
            row["because"] = [asdict(reason) for reason in explanation.because]
    result = {
        "history": ids,
        "k": config.k,
        "recommendations": rows,
        "n_allowed": recommendations.n_allowed,
        "skipped": list(recommendations.skipped),
    }
    for option in ignored(recommender, config):
        log(f"{option} makes no difference: the model was trained without it.")
    emit(result, as_json, "\n".join([table(rows), *notes(recommendations, config)]))


def ignored(recommender: "Recommender", config: RecommendConfig) -> list[str]:
    """The options that were given for models of another kind."""
    artifact = recommender.artifact
    times = config.times is not None and not artifact.needs_times
    user = config.user is not None and not artifact.reads_users
    return ["--times"] * times + ["--user"] * user


def notes(recommendations: "Recommendations", config: RecommendConfig) -> list[str]:
    """Why there are fewer than k items, and which ids were skipped."""
    lines = []
    if recommendations.n_allowed < config.k:
        items = "item is" if recommendations.n_allowed == 1 else "items are"
        lines.append(f"Only {recommendations.n_allowed} {items} allowed.")
    if len(recommendations) < min(config.k, recommendations.n_allowed):
        excluded_by = "--max-per excludes" if config.rules.max_per else "the neighbours do not know"
        lines.append(f"Only {len(recommendations)} items are shown: {excluded_by} the others.")
    if recommendations.skipped:
        lines.append(f"Skipped, because they are not in the catalogue: {', '.join(recommendations.skipped)}.")
    return lines
