"""What every adapter shares: the data it may see, its budget of CPU seconds, and the files it writes.

Needs numpy alone, because it is imported in each peer's own environment.

Shapes: U users, M training interactions, N items, D width of an embedding, K recommended items.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

K = 20
LEVELS, CODEBOOK, LATENT, HIDDEN = 3, 256, 32, (512, 256, 128)  # of all tokenizers
TOKENIZER_STEPS, TOKENIZER_BATCH = 2000, 256
RECOMMEND_AT_ONCE = 512  # users
SPEED_SECONDS = 10.0
PADDING = -1


class Log:
    """The training items of each user, oldest first, and the validation item; the test items are not here."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "split.npz") as arrays:
            self.items_M: NDArray[np.int64] = arrays["items"]
            self.offsets: NDArray[np.int64] = arrays["offsets"]
            self.validation_U: NDArray[np.int64] = arrays["validation"]
            self.n_items = int(arrays["n_items"])
        self.embeddings_path = folder / "embeddings.npy"

    def __len__(self) -> int:
        return len(self.validation_U)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        return np.load(self.embeddings_path)

    def train(self, user: int) -> list[int]:
        return self.items_M[self.offsets[user] : self.offsets[user + 1]].tolist()

    def history(self, user: int) -> list[int]:
        """What is known when the test item is predicted: the training items and the validation item."""
        return [*self.train(user), int(self.validation_U[user])]

    def padded(
        self, users: NDArray[np.int64], length: int, padding: int, shift: int = 0
    ) -> NDArray[np.int64]:
        """The last `length` items of each history plus `shift`, padded on the right."""
        padded = np.full((len(users), length), padding, dtype=np.int64)
        for row, user in enumerate(users.tolist()):
            items = self.history(user)[-length:]
            padded[row, : len(items)] = np.array(items) + shift
        return padded


class OutOfTimeError(Exception):
    """The CPU seconds of training are spent; raised inside a peer's own training loop."""


class Job:
    """One run of an adapter: `python ADAPTER.py SPLIT OUT --minutes 5`."""

    def __init__(self, *packages: str) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("split", type=Path, help="folder of the exported data")
        parser.add_argument("out", type=Path, help="folder for facts.json, and lists.npz or codes.npy")
        parser.add_argument(
            "--minutes", type=float, default=5.0, help="CPU minutes of training; tokenizers have steps"
        )
        parser.add_argument(
            "--recommend-minutes", type=float, default=5.0, help="CPU minutes of recommending"
        )
        parser.add_argument("--variant", default="", help="which of an adapter's models")
        parser.add_argument("--run", type=Path, help="artefacts of rqrec, for its own adapter")
        options = parser.parse_args()
        self.log = Log(options.split)
        self.split, self.out, self.variant, self.run = (
            options.split,
            options.out,
            options.variant,
            options.run,
        )
        self.seconds, self.recommend_seconds = 60 * options.minutes, 60 * options.recommend_minutes
        self.facts: dict[str, object] = {"packages": {name: version(name) for name in packages}}
        self.start = time.process_time()
        self.targets = 0

    def begin_training(self) -> None:
        """The budget starts here: importing and converting the data are free for all."""
        self.start = time.process_time()

    @property
    def spent(self) -> float:
        """CPU seconds of all threads since training began."""
        return time.process_time() - self.start

    def trained_on(self, targets: int) -> None:
        """Count the targets of a batch. Raises OutOfTimeError when the budget is spent."""
        self.targets += targets
        if self.spent > self.seconds:
            raise OutOfTimeError

    def end_training(self) -> None:
        self.facts["train_seconds"] = round(self.spent, 1)
        if self.targets:
            self.facts["targets_per_second"] = round(self.targets / self.spent, 1)

    def recommend(
        self, lists_of: Callable[[NDArray[np.int64]], NDArray[np.int64]], at_once: int = RECOMMEND_AT_ONCE
    ) -> None:
        """Recommend to users in a fixed random order until all are done or the CPU seconds are spent; write files.

        `lists_of` gives K items for each of B users [B, K], without those of their histories; PADDING where there are
        fewer.
        """
        users = np.random.default_rng(0).permutation(np.flatnonzero(self.log.validation_U >= 0))
        start, done, lists = time.process_time(), 0, []
        while done < len(users) and time.process_time() - start < self.recommend_seconds:
            batch = users[done : done + at_once]
            lists.append(np.asarray(lists_of(batch), dtype=np.int64))
            done += len(batch)
        seconds = time.process_time() - start
        self.facts["evaluated_users"] = done
        self.facts["users_per_second"] = round(done / seconds, 1)
        self.out.mkdir(parents=True, exist_ok=True)
        self.facts["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux: KiB
        np.savez_compressed(self.out / "lists.npz", users=users[:done], lists=np.concatenate(lists))
        self.write()

    def speed(self, name: str, lists_of: Callable[[NDArray[np.int64]], object], at_once: int) -> None:
        """After `recommend`: users per CPU second of another way to do it, over at least SPEED_SECONDS."""
        users = np.random.default_rng(0).permutation(np.flatnonzero(self.log.validation_U >= 0))
        lists_of(users[:at_once])  # warm-up
        start, done = time.process_time(), 0
        while time.process_time() - start < SPEED_SECONDS:
            lists_of(users.take(range(done, done + at_once), mode="wrap"))
            done += at_once
        self.facts[name] = round(done / (time.process_time() - start), 2)
        self.write()

    def write(self) -> None:
        self.facts["load_per_core"] = round(os.getloadavg()[2] / (os.cpu_count() or 1), 1)  # of 15 minutes
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "facts.json").write_text(json.dumps(self.facts, indent=1) + "\n")

    def tokenized(self, codes_NL: NDArray[np.int64], reconstruction_ND: NDArray[np.float32]) -> None:
        """The result of a tokenizer: codes, and the share of the variance that they lose."""
        x = self.log.embeddings
        lost = np.square(reconstruction_ND - x).sum() / np.square(x - x.mean(axis=0)).sum()
        self.facts["reconstruction_error"] = round(float(lost), 4)
        self.facts["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        self.out.mkdir(parents=True, exist_ok=True)
        np.save(self.out / "codes.npy", codes_NL)
        self.write()


def without_seen(log: Log, users: NDArray[np.int64], scores_BN: NDArray[np.float32]) -> NDArray[np.int64]:
    """The K items of highest score, without those of the histories. Changes the scores."""
    for row, user in enumerate(users.tolist()):
        scores_BN[row, log.history(user)] = -np.inf
    best_BK = np.argpartition(-scores_BN, K, axis=1)[:, :K]
    order_BK = np.argsort(-np.take_along_axis(scores_BN, best_BK, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best_BK, order_BK, axis=1)


def counted(job: Job, batches: Iterator, targets_of: Callable) -> Iterator:
    """The batches of a peer's own iterator until the budget is spent, which raises OutOfTimeError."""
    for batch in batches:
        yield batch
        job.trained_on(targets_of(batch))
