"""rqrec with the settings of the recipe: one generative model, one SASRec, or both joined with neighbours."""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace

import numpy as np
import torch
from adapter import Job, K

from rqrec.core.artifact import find, read_manifest
from rqrec.core.config import configured
from rqrec.data.sequences import Histories
from rqrec.experiments.reproduce import RECIPE, part_of
from rqrec.retrieval.artifact import read_retrieval, read_sasrec
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender
from rqrec.stages.join import JoinConfig, join
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec
from rqrec.training import loop

BEAM = 50
NO_CONTENT = RECIPE.with_name("recipe_dense_2.gin")  # as the others' SASRec
SHARES = {"codes": 0.5, "sasrec": 0.3}  # of the budget; the rest is for choosing how the experts are joined

job = Job("rqrec", "torch")
log, run = job.log, job.run
torch.set_num_threads(1)
loop.time = SimpleNamespace(
    monotonic=time.process_time
)  # the limit is in CPU seconds, as it is for the others
folder = Path(mkdtemp(prefix="rqrec-peers-"))
minutes = job.seconds / 60


def few_validations(name: str) -> list[str]:
    return [f"{name}.validations = 1", f"{name}.validation_users = 200"]


def codes(share: float) -> Path:
    names = ["train", "train_decoder"]
    config = configured(TrainDecoderConfig(), names, [RECIPE], few_validations("train_decoder"))
    config = part_of(config, folder / "codes", minutes * share, seed=config.loop.seed)
    model = train_decoder(
        config,
        dataset=find(run, "dataset"),
        semantic_ids=find(run / "semantic_ids", "semantic_ids"),
        embeddings=find(run, "embeddings"),
    )
    job.targets = int(read_manifest(model).metrics["validation"]["step"]) * (config.targets_per_batch or 0)
    return model


def sasrec(share: float, *settings: Path) -> Path:
    names = ["train", "train_sasrec"]
    config = configured(TrainSasRecConfig(), names, [RECIPE, *settings], few_validations("train_sasrec"))
    config = part_of(config, folder / "sasrec", minutes * share, seed=config.loop.seed)
    return train_sasrec(config, dataset=find(run, "dataset"), embeddings=find(run, "embeddings"))


def joined() -> Path:
    models = [codes(SHARES["codes"]), sasrec(SHARES["sasrec"])]
    config = replace(configured(JoinConfig(), ["join"], [RECIPE]), validation_users=2000)
    return join(config, models, find(run, "dataset"), folder / "joined", embeddings=find(run, "embeddings"))


def of_artifact(model: Path) -> ItemRecommender:
    if job.variant == "sasrec":
        return ExhaustiveRecommender(read_sasrec(model).model)
    found = read_retrieval(model)
    return (
        found.ensemble(found.retriever(BEAM), list(found.types))
        if len(found.types) > 1
        else found.retriever(BEAM)
    )


job.begin_training()
model = {"codes": lambda: codes(1.0), "sasrec": lambda: sasrec(1.0, NO_CONTENT), "joined": joined}[
    job.variant
]()
job.targets *= job.variant == "codes"  # the other models' are not counted
job.end_training()
job.facts["parameters"] = read_manifest(model).metrics["parameters"]
recommender = of_artifact(model)


def lists_of(users: np.ndarray, recommender: ItemRecommender = recommender) -> np.ndarray:
    histories = Histories.of([log.history(user) for user in users.tolist()])
    return recommender.recommend(histories, K, exclude_seen=True).items.numpy()


job.recommend(lists_of, at_once=128)
if job.variant == "codes":
    job.facts["beam"] = BEAM
    exact = ExhaustiveRecommender(read_retrieval(model).retriever(BEAM))
    job.speed("exact_users_per_second", lambda users: lists_of(users, exact), at_once=64)
