"""RecTools' SASRec with a softmax over all items."""

import warnings

import numpy as np
import pandas as pd
import torch
from adapter import PADDING, Job, K, OutOfTimeError
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

HISTORY = 20
warnings.filterwarnings("ignore")

job = Job("rectools", "torch")
log = job.log
torch.set_num_threads(1)
torch.manual_seed(0)


def interactions(users: np.ndarray, *, with_validation: bool) -> Dataset:
    sequences = [(user, log.history(user) if with_validation else log.train(user)) for user in users.tolist()]
    rows = [(user, item, 1.0, place) for user, items in sequences for place, item in enumerate(items)]
    table = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime])
    table[Columns.Datetime] = pd.to_datetime(table[Columns.Datetime], unit="D")
    return Dataset.construct(table)


class Count(Callback):
    def on_train_batch_end(
        self, trainer: Trainer, module: object, outputs: object, batch: dict, number: int
    ) -> None:
        try:
            job.trained_on(int((batch["y"] != 0).sum()))
        except OutOfTimeError:
            trainer.should_stop = True


def trainer() -> Trainer:
    return Trainer(
        max_epochs=100_000,
        accelerator="cpu",
        devices=1,
        callbacks=[Count()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


model = SASRecModel(
    n_factors=64,
    n_blocks=2,
    n_heads=2,
    session_max_len=HISTORY,
    loss="softmax",
    batch_size=128,
    get_trainer_func=trainer,
    recommend_torch_device="cpu",
)
train = interactions(np.arange(len(log)), with_validation=False)
job.begin_training()
model.fit(train)
job.end_training()
job.facts["parameters"] = sum(p.numel() for p in model.torch_model.parameters())


def lists_of(users: np.ndarray) -> np.ndarray:
    found = model.recommend(
        users,
        interactions(users, with_validation=True),
        k=K,
        filter_viewed=True,
        on_unsupported_targets="ignore",
    )
    lists = np.full((len(users), K), PADDING)
    row_of = {user: row for row, user in enumerate(users.tolist())}
    lists[found[Columns.User].map(row_of), found[Columns.Rank] - 1] = found[Columns.Item]
    return lists


job.recommend(lists_of)
