"""`rqrec fit-rqkmeans`: fit RQ-k-means, the tokenizer that needs no gradient training, to embeddings.

Shapes: N items, I input dimensions.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from rqrec.core.artifact import create, reuse
from rqrec.core.device import device_of
from rqrec.data.embeddings import embeddings_hash, embeddings_protocol, read_embeddings
from rqrec.stages.fit_rqkmeans_config import FitRqKMeansConfig
from rqrec.tokenizer.rqkmeans import RqKMeans
from rqrec.tokenizer.rqkmeans_config import RqKMeansConfig

ERROR_SAMPLE = 10_000  # the reconstruction error is measured on this many first items


def fit_rqkmeans(config: FitRqKMeansConfig, embeddings: Path, out: Path, *, force: bool = False) -> Path:
    """Fit RQ-k-means and write the "rqkmeans" artefact, or reuse it if settings and embeddings are the same.

    Its metric `reconstruction_mse` is the mean squared error per dimension, on the first 10,000 items. Raises
    ValueError if `out` holds a tokenizer that was made differently.
    """
    x_NI = read_embeddings(embeddings).vectors
    model = RqKMeans(_config_for(config, *x_NI.shape)).to(device_of(config.device))
    protocol = embeddings_protocol(embeddings)
    settings = {"model": asdict(model.config), "seed": config.seed, "protocol": protocol}
    inputs = {"embeddings": embeddings_hash(embeddings)}
    if reuse(out, "rqkmeans", settings, inputs, force=force):
        return Path(out)
    model.fit(x_NI, torch.Generator().manual_seed(config.seed))
    sample = np.asarray(x_NI[:ERROR_SAMPLE], dtype=np.float32)
    error = float(np.square(model.reconstruct(sample).numpy() - sample).mean())
    metrics = {"items": len(x_NI), "reconstruction_mse": error, "threads": torch.get_num_threads()}
    with create(out, "rqkmeans", settings=settings, inputs=inputs, metrics=metrics) as target:
        model.save_pretrained(target)
    return Path(out)


def _config_for(config: FitRqKMeansConfig, n_items: int, dim: int) -> RqKMeansConfig:
    full = RqKMeansConfig(dim, **config.rqkmeans)
    if not config.items_per_code:
        return full
    limit = max(2, n_items // config.items_per_code)
    sizes = tuple(min(size, limit) for size in full.codebook_sizes)
    return RqKMeansConfig(
        dim, **{**config.rqkmeans, "codebook_size": sizes[0] if len(set(sizes)) == 1 else sizes}
    )
