"""`rqrec fit-rqkmeans`: the tokenizer without gradients, from a folder of embeddings to an artefact."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rqrec.core.artifact import create
from rqrec.data.embeddings import embeddings_hash, read_embeddings
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig


def fit_rqkmeans(embeddings: Path, folder: Path, *, seed: int = 0, **choices: Any) -> RqKMeans:
    """Fit RQ-k-means and write the artefact of kind "rqkmeans"; `choices` are those of RqKMeansConfig.

    Its fact `reconstruction_mse` is the mean squared error per dimension, on a sample of the items.
    """
    x_NI = read_embeddings(embeddings).vectors
    model = RqKMeans(RqKMeansConfig(x_NI.shape[1], **choices))
    model.fit(x_NI, torch.Generator().manual_seed(seed))
    sample = np.asarray(x_NI[:10_000], dtype=np.float32)
    error = float(np.square(model.reconstruct(sample).numpy() - sample).mean())
    settings = {"model": asdict(model.config), "seed": seed}
    inputs = {"embeddings": embeddings_hash(embeddings)}
    facts = {"items": len(x_NI), "reconstruction_mse": error}
    with create(folder, "rqkmeans", settings=settings, inputs=inputs, metrics=facts) as target:
        model.save_pretrained(target)
    return model
