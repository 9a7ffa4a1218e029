"""torch-rechub's RQ-VAE, trained as its tutorial does, with k-means initialisation."""

import torch
from adapter import CODEBOOK, HIDDEN, LATENT, LEVELS, Job
from torch_rechub.models.generative.rqvae import RQVAEModel
from vectors import Standardised

job = Job("torch-rechub", "torch")
torch.set_num_threads(1)
torch.manual_seed(0)
data = Standardised(torch.from_numpy(job.log.embeddings))
model = RQVAEModel(
    in_dim=data.x_ND.shape[1],
    num_emb_list=[CODEBOOK] * LEVELS,
    e_dim=LATENT,
    layers=list(HIDDEN),
    kmeans_init=True,
    sk_epsilons=[0.0] * (LEVELS - 1) + [0.003],
    sk_iters=50,
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

job.begin_training()
model.train()
with torch.no_grad():
    model(data.x_ND, use_sk=False)  # k-means on all items
for batch in data.batches():
    out, quantization_loss, _ = model(batch, use_sk=True)
    loss, _ = model.compute_loss(out, quantization_loss, xs=batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
job.end_training()

model.eval()
with torch.inference_mode():
    out, _, codes = model(data.x_ND, use_sk=False)
    job.tokenized(codes.numpy(), data.restored(out).numpy())
