"""implicit's item-item neighbours with BM25 weights."""

import numpy as np
from adapter import PADDING, Job, K
from implicit.nearest_neighbours import BM25Recommender
from scipy.sparse import csr_matrix

job = Job("implicit")
log = job.log


def matrix(histories: list[list[int]]) -> csr_matrix:
    rows = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    items = np.concatenate(histories)
    counts = csr_matrix(
        (np.ones(len(items), dtype=np.float32), (rows, items)), shape=(len(histories), log.n_items)
    )
    counts.data[:] = 1  # repeats
    return counts


train = matrix([log.train(user) for user in range(len(log))])
job.begin_training()
model = BM25Recommender(K=100, num_threads=1)
model.fit(train, show_progress=False)
job.end_training()


def lists_of(users: np.ndarray) -> np.ndarray:
    seen = matrix([log.history(user) for user in users.tolist()])
    lists, scores = model.recommend(np.arange(len(users)), seen, N=K, filter_already_liked_items=True)
    return np.where(scores > 0, lists, PADDING)


job.recommend(lists_of)
