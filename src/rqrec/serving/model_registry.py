"""The models that are served, and how new ones take their place."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rqrec.core.artifact import find, read_manifest
from rqrec.data.sequences import Sequences
from rqrec.models.architectures import name_of
from rqrec.models.retrieval_model import parameter_count
from rqrec.serving.batcher import Batcher
from rqrec.serving.browser import Browser
from rqrec.serving.errors import ApiError
from rqrec.serving.logs import LOG
from rqrec.serving.metrics import Metrics
from rqrec.serving.recommender import Explanation, Recommendation, Recommender
from rqrec.serving.settings import Settings

USERS, LEAST, SHOWN = 12, 3, 20  # sample users, items that each has at least, items of each that are shown


@dataclass(frozen=True)
class Options:
    """What requests must have in common to be answered together (see Recommender.recommend)."""

    k: int = 10
    exclude_seen: bool = True
    allow: tuple[str, ...] | None = None
    block: tuple[str, ...] | None = None
    max_per_code: int | None = None
    explain: bool = False


class Asked(NamedTuple):
    """A history as a request tells it: item ids, unix seconds of each, whose it is."""

    items: Sequence[str]
    timestamps: Sequence[int] | None = None
    user: str | None = None


class Model:
    """A recommender with what the service shows of it.

    Raises ValueError or OSError where there is no sound artefact.
    """

    def __init__(self, name: str, source: Path, beam_width: int) -> None:
        self.name = name
        self.recommender = Recommender.load(source, beam_width=beam_width)
        self.browser = Browser(self.recommender)
        self.users = sample_users(source, self.browser)

    @property
    def needs_timestamps(self) -> bool:
        """Whether it was trained to look at them."""
        return self.recommender.model.config.time_gaps > 0

    def answer(self, options: Options, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """What each history gets, as JSON values; unknown ids are skipped and listed."""
        histories = [one.items for one in asked]
        timestamps = [one.timestamps or () for one in asked] if self.needs_timestamps else None
        users = [one.user for one in asked]
        found = self.recommender.recommend(
            histories,
            options.k,
            exclude_seen=options.exclude_seen,
            allow=options.allow,
            block=options.block,
            max_per_code=options.max_per_code,
            unknown="skip",
            timestamps=timestamps,
            users=users,
        )
        answers: list[dict[str, Any]] = [
            {
                "items": [_item(item) for item in answer],
                "n_allowed": answer.n_allowed,
                "skipped": list(answer.skipped),
            }
            for answer in found
        ]
        if options.explain:
            item_ids = [[item.item_id for item in answer] for answer in found]
            explained = self.recommender.explain_all(
                histories, item_ids, unknown="skip", timestamps=timestamps, users=users
            )
            for answer, explanations in zip(answers, explained, strict=True):
                for item, explanation in zip(answer["items"], explanations, strict=True):
                    item["path"] = self._path(explanation)
        return answers

    def _path(self, explanation: Explanation) -> list[dict[str, Any]]:
        indices = self.recommender.catalog.id_map.indices
        return [
            {
                "code": step.code,
                "probability": step.probability,
                "n_items": step.n_items,
                "others": [self.browser.named(other) for other in indices(step.others).tolist()],
            }
            for step in explanation.path
        ]

    def facts(self) -> dict[str, Any]:
        """What /v1/models tells of it."""
        model = self.recommender.model
        return {
            "name": self.name,
            "architecture": name_of(model.config),
            "parameters": parameter_count(model),
            "n_items": len(self.recommender.catalog),
            "level_sizes": list(model.level_sizes),
        }

    def warm(self, max_batch: int) -> None:
        """Answer once, so that the first client doesn't wait for what torch does at first use."""
        item_ids = self.recommender.catalog.id_map.all[:5].to_list()
        history = Asked(item_ids, range(len(item_ids)))
        for asked in ([history], [history] * max_batch):
            self.answer(Options(explain=True), asked)


def _item(item: Recommendation) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "score": item.score,
        "semantic_id": list(item.semantic_id),
    }


def sample_users(source: Path, browser: Browser) -> list[dict[str, Any]]:
    """A few users of the dataset that lies in the model's run; none where there is no such dataset."""
    artifact = find(source, "retrieval")
    try:
        dataset = find(artifact.parent, "dataset")
    except (OSError, ValueError):
        return []
    if read_manifest(dataset).hash != read_manifest(artifact).inputs.get("dataset"):
        LOG.warning(f"{dataset} is not what {artifact} was made from: there will be no sample users.")
        return []
    sequences = Sequences.read(dataset)
    long = np.flatnonzero(sequences.lengths >= LEAST)
    chosen = long[np.unique(np.linspace(0, len(long) - 1, min(USERS, len(long))).astype(int))]
    return [
        {
            "user_id": sequences.user_ids[user],
            "history": [browser.named(item) for item in sequences.of_user(user)[-SHOWN:].tolist()],
        }
        for user in chosen.tolist()
    ]


class Served(NamedTuple):
    """A model and the queue before it."""

    model: Model
    batcher: Batcher[Options, Asked]


class ModelRegistry:
    """The served models by name; the first is the default. New ones replace them all at once, or none.

    Raises ValueError or OSError where a source has no sound artefact.
    """

    def __init__(self, sources: Mapping[str, Path], settings: Settings, metrics: Metrics) -> None:
        self._sources, self._settings, self._metrics = dict(sources), settings, metrics
        self._reloading = asyncio.Lock()
        self._served = self._start(self._read())
        for name in self._sources:
            metrics.watch_queue(name, partial(self._waiting, name))

    def get(self, name: str | None = None) -> Served:
        """A model by name, or the default one."""
        if name is None:
            name = next(iter(self._served))
        if name not in self._served:
            raise ApiError(
                404, "unknown_model", f"There is no such model: use one of {', '.join(self._served)}."
            )
        return self._served[name]

    @property
    def ready(self) -> bool:
        """Whether every model takes requests."""
        return all(served.batcher.alive for served in self._served.values())

    def facts(self) -> dict[str, Any]:
        """What /v1/models answers."""
        served = enumerate(self._served.values())
        return {"models": [{**one.model.facts(), "default": place == 0} for place, one in served]}

    async def reload(self) -> None:
        """Read the artefacts again and let them answer from now on; what has begun, the old ones finish.

        Raises ApiError where one is broken: then the old ones stay.
        """
        if self._reloading.locked():
            raise ApiError(409, "reload_running", "A reload is running: wait until it ends.")
        async with self._reloading:
            try:
                models = await asyncio.to_thread(self._read)
            except Exception as error:  # a broken file may raise anything
                self._metrics.reload("refused")
                LOG.error("reload refused", exc_info=error)
                raise ApiError(
                    409, "reload_refused", f"The models stay as they were: {' '.join(str(error).split())}"
                ) from error
            old, self._served = self._served, self._start(models)
            self._metrics.reload("loaded")
            LOG.info("reloaded", extra={"facts": self.facts()})
            for served in old.values():
                await asyncio.to_thread(served.batcher.close)

    def close(self) -> None:
        """Finish what waits, and stop."""
        for served in self._served.values():
            served.batcher.close()

    def _waiting(self, name: str) -> int:
        return self._served[name].batcher.waiting

    def _read(self) -> list[Model]:
        models = []
        for name, source in self._sources.items():
            models.append(Model(name, source, self._settings.beam_width))
            models[-1].warm(self._settings.max_batch)
        return models

    def _start(self, models: Sequence[Model]) -> dict[str, Served]:
        return {
            model.name: Served(
                model,
                Batcher(
                    model.answer,
                    max_batch=self._settings.max_batch,
                    max_wait=self._settings.max_wait,
                    max_queue=self._settings.max_queue,
                    observe=partial(self._metrics.batch, model.name),
                ),
            )
            for model in models
        }


def named(sources: Sequence[str]) -> dict[str, Path]:
    """The models' names and folders, from FOLDER or NAME=FOLDER; a folder's own name is the model's.

    Raises ValueError where two have one name.
    """
    found: dict[str, Path] = {}
    for source in sources:
        name, equals, folder = source.partition("=")
        if not equals or Path(source).exists():
            name, folder = Path(source).resolve().name, source
        if name in found:
            raise ValueError(f"Two models are named {name!r}: name one yourself, as in other={folder}.")
        found[name] = Path(folder)
    return found
