"""cornac's TIGER (in its shorter recipe, GRID_CONFIG) and SASRec."""

from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import torch
from adapter import PADDING, Job, OutOfTimeError, counted, without_seen
from cornac.data import SequentialDataset
from cornac.models import SASRec
from cornac.models.sasrec import recom_sasrec
from cornac.models.tiger import GRID_CONFIG, TIGER, recom_tiger

HISTORY, BEAM = 20, 50
# Its own sizes, made for a GPU, learn from 21 targets per second on one core; these are those of our encoder-decoder.
SMALL = {
    "d_model": 128,
    "d_ff": 512,
    "num_heads": 4,
    "d_kv": 32,
    "num_enc_layers": 2,
    "num_dec_layers": 2,
    "batch_size": 64,
    "learning_rate": 1e-3,
}
EPOCHS = 100_000  # the budget ends training long before

job = Job("cornac", "torch")
log = job.log
torch.set_num_threads(1)
is_tiger = job.variant == "tiger"
module = recom_tiger if is_tiger else recom_sasrec
batches = module.session_seq_iter


def counted_batches(*args: object, **options: object) -> object:
    return counted(job, batches(*args, **options), lambda batch: len(batch[1]))


module.session_seq_iter = counted_batches
data = [(user, user, item, place) for user in range(len(log)) for place, item in enumerate(log.train(user))]
ids = {item: item for item in range(log.n_items)}  # all items, also those without training interactions
train = SequentialDataset.build(data, fmt="USIT", global_iid_map=dict(ids))
train.num_items = log.n_items

if is_tiger:
    train.item_feature = SimpleNamespace(features=log.embeddings)
    settings = {
        **GRID_CONFIG,
        **SMALL,
        "model_selection": "last",
        "n_epochs": EPOCHS,
        "n_beams": BEAM,
        "max_len": HISTORY,
    }
    model = TIGER(**settings, seed=0)
    fit = model._fit_seq2seq

    def timed_fit(*args: object) -> None:
        job.facts["tokenizer_seconds"] = round(job.spent, 1)
        job.begin_training()
        fit(*args)

    model._fit_seq2seq = timed_fit
else:
    model = SASRec(n_epochs=EPOCHS, max_len=HISTORY, seed=0)
job.begin_training()
with suppress(OutOfTimeError):
    model.fit(train)
job.end_training()
model.model.eval()
job.facts["parameters"] = sum(p.numel() for p in model.model.parameters())


def lists_of(users: np.ndarray) -> np.ndarray:
    scores = np.stack([model.score(user, log.history(user)) for user in users.tolist()])[:, : log.n_items]
    lists = without_seen(log, users, scores)
    return np.where(np.take_along_axis(scores, lists, axis=1) > -1e9, lists, PADDING)


job.recommend(lists_of, at_once=16)
if is_tiger:
    job.facts["beam"] = BEAM
    model.scoring = "exact"
    job.speed("exact_users_per_second", lists_of, at_once=1)
