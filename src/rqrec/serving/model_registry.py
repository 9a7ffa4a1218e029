"""The served models, and how a reload replaces them.

Shapes: N items of the catalogue, L levels.
"""

import asyncio
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rqrec.core.artifact import finite
from rqrec.core.device import device_of
from rqrec.core.pausing import pause
from rqrec.core.real_path import real_path
from rqrec.models.architectures import name_of
from rqrec.models.retrieval_model import parameter_count
from rqrec.retrieval.defaults import BEAM_WIDTH, DEFAULT_K
from rqrec.serving.answers import Recommendation
from rqrec.serving.batcher import Batcher
from rqrec.serving.catalog_view import CatalogView
from rqrec.serving.config import ServiceConfig
from rqrec.serving.errors import ApiError, to_json
from rqrec.serving.explanations import Explanation
from rqrec.serving.item_map import ItemMap
from rqrec.serving.logs import LOG
from rqrec.serving.metrics import Metrics
from rqrec.serving.pictures import NO_PICTURES, Pictures
from rqrec.serving.recommender import Recommender
from rqrec.serving.rules import NO_NAMED_RULES, NO_RULES, NamedRules, Rules
from rqrec.serving.sample_users import SampleUser, fame, sample_users
from rqrec.serving.starting_points import StartingPoint, starting_points


@dataclass(frozen=True)
class RequestOptions:
    """What requests must have in common to share a batch (see Recommender.recommend)."""

    k: int = DEFAULT_K
    exclude_seen: bool = True
    allow: tuple[str, ...] | None = None
    block: tuple[str, ...] | None = None
    rules: Rules = NO_RULES
    experts: tuple[str, ...] | None = None
    explain: bool = False
    describe: bool = False

    @property
    def cost(self) -> float:
        """About how much longer one history takes than with the default options."""
        return (BEAM_WIDTH + self.k) / (BEAM_WIDTH + DEFAULT_K) * (2 if self.explain else 1)


class HistoryRequest(NamedTuple):
    """One history of a request: item ids, seconds since 1970 of each item, the user's id."""

    items: Sequence[str]
    timestamps: Sequence[int] | None = None
    user: str | None = None


class ServedModel:
    """A recommender with its catalogue view and sample users. Raises ValueError if rules do not fit the model."""

    def __init__(
        self,
        name: str,
        recommender: Recommender,
        rules: NamedRules = NO_NAMED_RULES,
        before: "ServedModel | None" = None,
        pictures: Pictures = NO_PICTURES,
    ) -> None:
        """`before` is the model whose catalogue was changed, if it was."""
        self.name, self.recommender, self.rules = name, recommender, rules
        for rule_name, one in rules.by_name.items():
            try:
                recommender.check_rules(one)
            except ValueError as error:
                raise ValueError(f"The rules {rule_name!r} do not fit the model {name}: {error}") from error
        self._users: list[SampleUser]
        self._starting_points: list[StartingPoint]
        if before is not None:
            self.catalog_view: CatalogView = CatalogView(
                recommender, before.catalog_view.fame_N, before.catalog_view
            )
            self.item_map: ItemMap = ItemMap(recommender, self.catalog_view, before.item_map)
            self._users, self._starting_points = before._users, before._starting_points
            return
        source = recommender.source
        view = self.catalog_view = CatalogView(recommender, fame(recommender), pictures=pictures)
        self.item_map = ItemMap(recommender, view, None)
        self._users = [] if source is None else sample_users(source, recommender)
        first_codes_N = recommender.table.codes_NL[:, 0]
        self._starting_points = starting_points(
            view.facets, view.text_index, first_codes_N, view.fame_N, recommender.available
        )

    @classmethod
    def load(
        cls,
        name: str,
        source: Path,
        beam_width: int,
        rules: NamedRules = NO_NAMED_RULES,
        pictures: Pictures = NO_PICTURES,
        device: torch.device | str = "cpu",
    ) -> "ServedModel":
        """The model in a folder, with its current catalogue. Raises ValueError or OSError if it is not valid."""
        return cls(
            name, Recommender.load(source, beam_width=beam_width, device=device), rules, pictures=pictures
        )

    def changed(self, change: Callable[[Recommender], Recommender]) -> "ServedModel":
        """The same model with a changed catalogue."""
        return ServedModel(self.name, change(self.recommender), self.rules, self)

    @cached_property
    def users(self) -> list[dict[str, Any]]:
        """Sample users with their histories, what they like, and what they took next."""
        view = self.catalog_view
        return [
            {
                "user_id": user.user_id,
                "history": [view.id_and_title(item) for item in user.items],
                "likes": view.typical(np.array(user.items)),
                "next": view.id_and_title(user.next_item),
                "rank": user.rank,
            }
            for user in self._users
        ]

    @cached_property
    def starting_points(self) -> list[dict[str, Any]]:
        """A few kinds of items, each with well-known ones that may be recommended."""
        view, available_N = self.catalog_view, self.recommender.available
        return [
            {
                "label": point.label or f"{self.recommender.titles[point.items[0]]} and the like",
                "where": point.where,
                "items": [view.id_and_title(item) for item in point.items if available_N[item]],
            }
            for point in self._starting_points
        ]

    @property
    def needs_timestamps(self) -> bool:
        """Whether the model was trained with timestamps."""
        return self.recommender.artifact.needs_times

    def recommend(self, options: RequestOptions, requests: Sequence[HistoryRequest]) -> list[bytes]:
        """The JSON of one result per history; unknown ids are skipped and listed.

        It is encoded here, because to encode a large answer beside the worker thread would hold it up.
        """
        histories = [request.items for request in requests]
        timestamps = [request.timestamps or () for request in requests] if self.needs_timestamps else None
        users = [request.user for request in requests]
        recommendations = self.recommender.recommend(
            histories,
            options.k,
            exclude_seen=options.exclude_seen,
            allow=options.allow,
            block=options.block,
            rules=options.rules,
            unknown="skip",
            timestamps=timestamps,
            users=users,
            experts=options.experts,
        )
        results: list[dict[str, Any]] = [
            {
                "items": [_item_json(item) for item in recommended],
                "n_allowed": recommended.n_allowed,
                "skipped": list(recommended.skipped),
            }
            for recommended in recommendations
        ]
        if options.explain:
            pause()
            item_ids = [[item.item_id for item in recommended] for recommended in recommendations]
            explained = self.recommender.explain_all(
                histories, item_ids, unknown="skip", timestamps=timestamps, users=users
            )
            named = self._named(explained)
            for result, recommended, explanations in zip(results, recommendations, explained, strict=True):
                pause()
                for item, one, explanation in zip(result["items"], recommended, explanations, strict=True):
                    item |= self._why_json(one, explanation, named)
        if options.describe:
            self._describe(results)
        pause()
        return list(map(to_json, results))

    def _describe(self, results: Sequence[dict[str, Any]]) -> None:
        """Add facets and pictures to the items of results."""
        items = [item for result in results for item in result["items"]]
        indices = self.recommender.catalog.id_map.indices([item["item_id"] for item in items])
        for item, described in zip(items, self.catalog_view.described(indices), strict=True):
            item |= described

    def _named(self, explained: Sequence[Sequence[Explanation]]) -> dict[str, dict[str, Any]]:
        """The ids and titles of all items that explanations mention, by id."""
        mentioned = {
            item_id
            for explanations in explained
            for explanation in explanations
            for item_id in (
                *(other for step in explanation.path for other in step.others),
                *(reason.item_id for reason in explanation.because),
                *(near.item_id for near in explanation.beside),
            )
        }
        titles = self.recommender.titles
        items = self.recommender.catalog.id_map.indices(mentioned).tolist()
        return {
            item_id: {"item_id": item_id, "title": titles[item]}
            for item_id, item in zip(mentioned, items, strict=True)
        }

    def _why_json(
        self, item: Recommendation, explanation: Explanation, named: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        path = [
            {
                "code": step.code,
                "probability": step.probability,
                "n_items": step.n_items,
                "words": self.catalog_view.words_of(item.semantic_id[: depth + 1]),
                "others": [named[other] for other in step.others],
            }
            for depth, step in enumerate(explanation.path)
        ]
        because = [{**named[reason.item_id], "share": reason.share} for reason in explanation.because]
        beside = [
            {**named[near.item_id], "shared": near.shared, "closeness": near.closeness}
            for near in explanation.beside
        ]
        return {"experts": finite(item.experts), "path": path, "because": because, "beside": beside}

    @property
    def n_items(self) -> int:
        """Number of items that may be recommended."""
        return int(self.recommender.available.sum())

    def describe(self) -> dict[str, Any]:
        """The model's entry in /v1/models."""
        model, artifact = self.recommender.model, self.recommender.artifact
        return {
            "name": self.name,
            "architecture": name_of(model.config),
            "parameters": sum(map(parameter_count, artifact.models)),
            "experts": [
                {
                    "name": name,
                    "type": expert_type,
                    **asdict(artifact.settings[name]),
                    "index_recall": self.recommender.index_recall(name),
                }
                for name, expert_type in artifact.types.items()
            ],
            "baselines": self.recommender.baselines,
            "n_items": self.n_items,
            "version": self.recommender.version,
            "level_sizes": list(model.level_sizes),
            "fields": self.recommender.fields,
            "rules": list(self.rules.by_name),
        }

    def warm_up(self, max_batch: int) -> None:
        """Run one history and one full batch, so that the first client doesn't wait for torch to initialise."""
        item_ids = self.recommender.catalog.id_map.all[:5].to_list()
        history = HistoryRequest(item_ids, range(len(item_ids)))
        for requests in ([history], [history] * max_batch):
            self.recommend(RequestOptions(explain=True), requests)


def _item_json(item: Recommendation) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "score": item.score,
        "semantic_id": list(item.semantic_id),
    }


class Deployment(NamedTuple):
    """A model and the batcher that queues its requests."""

    model: ServedModel
    batcher: Batcher[RequestOptions, HistoryRequest]


class ModelRegistry:
    """The served models by name; the first is the default. A reload replaces all of them or none.

    Raises ValueError or OSError if a source has no valid artefact.
    """

    def __init__(self, sources: Mapping[str, Path], config: ServiceConfig, metrics: Metrics) -> None:
        self._sources, self._config, self._metrics = dict(sources), config, metrics
        self._reloading = asyncio.Lock()
        self._deployments = self._deploy(self._load())
        for name in self._sources:
            metrics.watch_queue(name, partial(self._queue_length, name))

    def get(self, name: str | None = None) -> Deployment:
        """The model with this name, or the default one. Raises ApiError (404) if there is none."""
        if name is None:
            name = next(iter(self._deployments))
        if name not in self._deployments:
            raise ApiError(
                404,
                "unknown_model",
                f"There is no model {reprlib.repr(name)}; available are {', '.join(self._deployments)}.",
            )
        return self._deployments[name]

    @property
    def ready(self) -> bool:
        """Whether every model accepts requests."""
        return all(deployment.batcher.alive for deployment in self._deployments.values())

    def describe(self) -> dict[str, Any]:
        """The body of /v1/models."""
        deployments = enumerate(self._deployments.values())
        return {
            "models": [
                {**deployment.model.describe(), "default": index == 0} for index, deployment in deployments
            ]
        }

    async def reload(self) -> None:
        """Load the artefacts again and switch to the new models; the old ones finish their queued requests.

        Raises ApiError (409) if a reload is running or an artefact is invalid; the old models then stay in use.
        """
        if self._reloading.locked():
            raise ApiError(
                409, "reload_running", "A reload or a change of items is already running: wait until it ends."
            )
        async with self._reloading:
            try:
                models = await asyncio.to_thread(self._load)
            except Exception as error:  # a corrupt file may raise anything
                self._metrics.count_reload("refused")
                LOG.error("reload refused", exc_info=error)
                raise ApiError(
                    409, "reload_refused", f"The models were not replaced: {' '.join(str(error).split())}"
                ) from error
            old, self._deployments = self._deployments, self._deploy(models)
            self._metrics.count_reload("loaded")
            LOG.info("reloaded", extra={"fields": self.describe()})
            for deployment in old.values():
                await asyncio.to_thread(deployment.batcher.close, self._config.timeout)

    async def change(self, name: str | None, change: Callable[[Recommender], Recommender]) -> Deployment:
        """Switch a model to a changed catalogue, whose deployment is returned; the old one finishes its queue.

        Changes and reloads follow one another. Raises what `change` raises; then nothing changes.
        """
        async with self._reloading:
            old = self.get(name)

            def load() -> ServedModel:
                model = old.model.changed(change)
                model.warm_up(self._config.max_batch)
                return model

            model = await asyncio.to_thread(load)
            self._deployments = self._deployments | self._deploy([model])
            LOG.info("items changed", extra={"fields": {"model": model.name, "n_items": model.n_items}})
            await asyncio.to_thread(old.batcher.close, self._config.timeout)
            return self._deployments[model.name]

    def busy(self) -> float | None:
        """Seconds after which a model accepts large requests again; None if one accepts them now."""
        seconds = [deployment.batcher.busy() for deployment in self._deployments.values()]
        return None if None in seconds else min(one for one in seconds if one is not None)

    def n_models(self) -> int:
        """Number of models that are served, each with a queue of its own."""
        return len(self._deployments)

    def close(self) -> None:
        """Finish the queued requests, as far as the time limit of requests allows, and stop."""
        for deployment in self._deployments.values():
            deployment.batcher.close(self._config.timeout)

    def _queue_length(self, name: str) -> int:
        return self._deployments[name].batcher.queue_length

    def _load(self) -> list[ServedModel]:
        models = []
        rules = NO_NAMED_RULES if self._config.rules is None else NamedRules.read(self._config.rules)
        pictures = Pictures(self._config.pictures)
        beam_width, device = self._config.beam_width, device_of(self._config.device)
        for name, source in self._sources.items():
            models.append(ServedModel.load(name, source, beam_width, rules, pictures, device))
            models[-1].warm_up(self._config.max_batch)
        self.pictures = pictures
        return models

    def _deploy(self, models: Sequence[ServedModel]) -> dict[str, Deployment]:
        return {
            model.name: Deployment(
                model,
                Batcher(
                    model.recommend,
                    max_batch=self._config.max_batch,
                    max_wait_s=self._config.max_wait_ms / 1000,
                    max_queue=self._config.max_queue,
                    cost=attrgetter("cost"),
                    on_batch=partial(self._metrics.observe_batch, model.name),
                ),
            )
            for model in models
        }


def parse_sources(sources: Sequence[str]) -> dict[str, Path]:
    """Model names and folders from FOLDER or NAME=FOLDER; without a name, the folder's name is used.

    Raises ValueError if two models have the same name, or a source has none or no folder.
    """
    parsed: dict[str, Path] = {}
    for source in sources:
        name, equals, folder = source.partition("=")
        if not equals or Path(source).exists():
            name, folder = real_path(source).name, source
        if not (name and folder):
            raise ValueError(f"artifact is {source!r}, but must be FOLDER or NAME=FOLDER, such as out/demo.")
        if name in parsed:
            raise ValueError(
                f"Two models are named {name!r}: give one of them another name, as in other={folder}."
            )
        parsed[name] = Path(folder)
    return parsed
