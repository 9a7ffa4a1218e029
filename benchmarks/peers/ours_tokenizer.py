"""rqrec's own tokenizers: RQ-VAE, and the balanced RQ-k-means of the recipe."""

import sys
from pathlib import Path

import torch
from adapter import CODEBOOK, HIDDEN, LATENT, LEVELS, TOKENIZER_STEPS, Job

sys.path.append(str(Path(__file__).resolve().parents[1]))
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from tokenizer import train

job = Job("rqrec", "torch")
torch.set_num_threads(1)
x = torch.from_numpy(job.log.embeddings)
if job.variant == "rqkmeans":
    kmeans = RqKMeans(RqKMeansConfig(x.shape[1], codebook_size=CODEBOOK, n_layers=LEVELS, balance=1.1))
    job.begin_training()
    kmeans.fit(x, torch.Generator().manual_seed(0))
    job.end_training()
    job.tokenized(kmeans.semantic_ids(x).numpy(), kmeans.reconstruct(x).numpy())
else:
    options = {"codebook_size": CODEBOOK, "n_layers": LEVELS, "embed_dim": LATENT, "hidden_dims": HIDDEN}
    job.begin_training()
    rqvae = train(x, TOKENIZER_STEPS, options)
    job.end_training()
    job.tokenized(rqvae.semantic_ids(x).numpy(), rqvae.reconstruct(x).numpy())
