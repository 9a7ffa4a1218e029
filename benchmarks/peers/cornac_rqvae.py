"""The RQ-VAE of cornac's TIGER."""

import torch
from adapter import CODEBOOK, HIDDEN, LATENT, LEVELS, TOKENIZER_BATCH, Job
from cornac.models import TIGER
from vectors import Standardised

job = Job("cornac", "torch")
torch.set_num_threads(1)
torch.manual_seed(0)
data = Standardised(torch.from_numpy(job.log.embeddings))
tiger = TIGER(
    rqvae_num_levels=LEVELS,
    rqvae_codebook_size=CODEBOOK,
    rqvae_latent_dim=LATENT,
    rqvae_hidden_dims=HIDDEN,
    rqvae_batch_size=TOKENIZER_BATCH,
    rqvae_n_epochs=data.epochs,
)
tiger.device_ = "cpu"
job.begin_training()
tiger._fit_rqvae(torch, data.x_ND)
job.end_training()

tiger.rqvae.eval()
with torch.inference_mode():
    codes, out, *_ = tiger.rqvae(data.x_ND)
    job.tokenized(codes.numpy(), data.restored(out).numpy())
