"""vector-quantize-pytorch's residual quantiser (moving averages, k-means initialisation) between our MLPs."""

import torch
from adapter import CODEBOOK, LATENT, LEVELS, Job
from vector_quantize_pytorch import ResidualVQ
from vectors import Standardised, mlp

job = Job("vector-quantize-pytorch", "torch")
torch.set_num_threads(1)
torch.manual_seed(0)
data = Standardised(torch.from_numpy(job.log.embeddings))
width = data.x_ND.shape[1]
encoder, decoder = mlp(width), mlp(width, reverse=True)
quantizer = ResidualVQ(
    dim=LATENT, num_quantizers=LEVELS, codebook_size=CODEBOOK, kmeans_init=True, threshold_ema_dead_code=2
)
optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

job.begin_training()
with torch.no_grad():
    quantizer(encoder(data.x_ND)[None])  # k-means on all items
for batch in data.batches():
    quantized, _, losses = quantizer(encoder(batch)[None])
    loss = (decoder(quantized[0]) - batch).square().mean() + 0.25 * losses.sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
job.end_training()

quantizer.eval()
with torch.inference_mode():
    quantized, codes, _ = quantizer(encoder(data.x_ND)[None])
    job.tokenized(codes[0].numpy(), data.restored(decoder(quantized[0])).numpy())
