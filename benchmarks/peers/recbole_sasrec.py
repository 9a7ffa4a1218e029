"""RecBole's SASRec with cross-entropy over all items."""

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from adapter import Job, OutOfTimeError, without_seen
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

HISTORY = 20

job = Job("recbole", "torch")
log = job.log
torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp(prefix="recbole-"))
(folder / "log").mkdir()
with (folder / "log" / "log.inter").open("w") as file:
    file.write("user_id:token\titem_id:token\ttimestamp:float\n")
    for user in range(len(log)):
        for place, item in enumerate(log.history(user)):
            file.write(f"{user}\t{item}\t{place}\n")
config = Config(
    model=SASRec,
    dataset="log",
    config_dict={
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "checkpoint_dir": str(folder / "saved"),
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": HISTORY,
        "train_batch_size": 256,
        "eval_batch_size": 1024,
        "epochs": 1000,
        "eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "use_gpu": False,
        "show_progress": False,
        "seed": 0,
        "state": "ERROR",
    },
)
init_seed(0, reproducibility=True)
dataset = create_dataset(config)
train_data, _, _ = data_preparation(config, dataset)
model = SASRec(config, train_data.dataset).to("cpu")
trainer = Trainer(config, model)
calculate_loss = model.calculate_loss


def counted_loss(batch: Interaction) -> torch.Tensor:
    job.trained_on(len(batch))
    return calculate_loss(batch)


model.calculate_loss = counted_loss
job.begin_training()
with suppress(OutOfTimeError):
    trainer.fit(train_data, verbose=False, saved=False, show_progress=False)
job.end_training()
model.eval()

ids = dataset.field2token_id["item_id"]
their_id = np.zeros(log.n_items, dtype=np.int64)  # 0 is padding: an item without interactions
for token, number in ids.items():
    if token != "[PAD]":
        their_id[int(token)] = number


@torch.inference_mode()
def lists_of(users: np.ndarray) -> np.ndarray:
    histories = log.padded(users, HISTORY, -1)
    batch = {
        "item_id_list": torch.from_numpy(np.where(histories >= 0, their_id[histories], 0)),
        "item_length": torch.from_numpy((histories >= 0).sum(axis=1)),
    }
    scores = model.full_sort_predict(Interaction(batch)).numpy()[:, their_id]
    scores[:, their_id == 0] = -np.inf
    return without_seen(log, users, scores)


job.facts["parameters"] = sum(p.numel() for p in model.parameters())
job.recommend(lists_of)
