"""semantic-id's RQ-k-means and RQ-VAE."""

import numpy as np
import torch
from adapter import CODEBOOK, HIDDEN, LATENT, LEVELS, TOKENIZER_BATCH, Job
from semantic_id import RQVAE, RQKMeans
from vectors import Standardised

job = Job("semantic-id", "torch")
torch.set_num_threads(1)
torch.manual_seed(0)
x = job.log.embeddings
if job.variant == "rqkmeans":
    job.begin_training()
    kmeans = RQKMeans(n_levels=LEVELS, n_clusters=CODEBOOK, random_state=0, n_init=1).fit(x)
    job.end_training()
    codes = kmeans.encode(x)
    job.tokenized(np.asarray(codes), np.asarray(kmeans.decode(codes)))
else:
    data = Standardised(torch.from_numpy(x))
    model = RQVAE(
        in_dim=x.shape[1],
        num_emb_list=[CODEBOOK] * LEVELS,
        e_dim=LATENT,
        layers=list(HIDDEN),
        kmeans_init=True,
        lr=1e-3,
        batch_size=TOKENIZER_BATCH,
        epochs=data.epochs,
    )
    standardised = data.x_ND.numpy()
    job.begin_training()
    model.fit(standardised)
    job.end_training()
    codes = np.asarray(model.encode(standardised))
    job.tokenized(codes, data.restored(torch.as_tensor(np.asarray(model.decode(codes)))).numpy())
