"""torch-rechub's RQ-VAE, trained as its tutorial does, with k-means initialisation, and its TIGER on these codes."""

from contextlib import suppress

import numpy as np
import torch
from adapter import CODEBOOK, HIDDEN, LATENT, LEVELS, PADDING, Job, K, OutOfTimeError
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch_rechub.models.generative import RQVAEModel, TIGERModel
from torch_rechub.utils.data import Trie
from transformers import T5Config
from vectors import Standardised

HISTORY, BEAM, BATCH = 20, 50, 64
PAD, END, FIRST = 0, 1, 2  # tokens of T5; a token of its own for each code of each level

job = Job("torch-rechub", "torch", "transformers")
log = job.log
torch.set_num_threads(1)
torch.manual_seed(0)


def tokenized() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Codes [N, LEVELS] and reconstructions [N, D] of all items."""
    data = Standardised(torch.from_numpy(log.embeddings))
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
    model.train()
    with torch.no_grad():
        model(data.x_ND, use_sk=False)  # k-means on all items
    for batch in data.batches():
        out, quantization_loss, _ = model(batch, use_sk=True)
        loss, _ = model.compute_loss(out, quantization_loss, xs=batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        out, _, codes = model(data.x_ND, use_sk=False)
    return codes.numpy(), data.restored(out).numpy()


def tokens_of(codes_NL: NDArray[np.int64]) -> list[list[int]]:
    """The tokens of each item: its codes, and one more that tells items of equal codes apart."""
    used: dict[tuple[int, ...], int] = {}
    tokens = []
    for codes in codes_NL.tolist():
        number = used[tuple(codes)] = used.get(tuple(codes), -1) + 1
        tokens.append([FIRST + level * CODEBOOK + code for level, code in enumerate([*codes, number])])
    return tokens


def inputs(histories: list[list[int]]) -> dict[str, Tensor]:
    """The tokens of the histories, padded on the right, and which are there."""
    rows = [[token for item in items[-HISTORY:] for token in tokens[item]] + [END] for items in histories]
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


if job.variant == "rqvae":
    job.begin_training()
    codes, reconstruction = tokenized()
    job.end_training()
    job.tokenized(codes, reconstruction)
    raise SystemExit

job.begin_training()
tokens = tokens_of(tokenized()[0])
job.facts["tokenizer_seconds"] = round(job.spent, 1)
model = TIGERModel(  # the sizes of our encoder-decoder
    T5Config(
        vocab_size=FIRST + (LEVELS + 1) * CODEBOOK,
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_proj="relu",
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
    )
)
job.facts["parameters"] = sum(p.numel() for p in model.parameters())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
examples = [(user, end) for user in range(len(log)) for end in range(1, len(log.train(user)))]
generator = np.random.default_rng(0)

job.begin_training()
model.train()
with suppress(OutOfTimeError):
    while True:
        order = generator.permutation(len(examples))
        for start in range(0, len(order), BATCH):
            chosen = [examples[number] for number in order[start : start + BATCH].tolist()]
            labels = torch.tensor([[*tokens[log.train(user)[end]], END] for user, end in chosen])
            batch = inputs([log.train(user)[:end] for user, end in chosen])
            loss = model(**batch, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            job.trained_on(len(chosen))
job.end_training()

model.eval()
trie = Trie([[PAD, *of_item, END] for of_item in tokens])
item_of = {tuple(of_item): item for item, of_item in enumerate(tokens)}


@torch.inference_mode()
def lists_of(users: NDArray[np.int64]) -> NDArray[np.int64]:
    histories = [log.history(user) for user in users.tolist()]
    generated = model.generate(
        **inputs(histories),
        num_beams=BEAM,
        num_return_sequences=BEAM,
        max_new_tokens=LEVELS + 2,
        prefix_allowed_tokens_fn=trie.def_prefix_allowed_tokens_fn(trie),
    ).reshape(len(users), BEAM, -1)
    lists = np.full((len(users), K), PADDING, dtype=np.int64)
    for row, (beams, history) in enumerate(zip(generated.tolist(), histories, strict=True)):
        found = [item_of.get(tuple(beam[1 : LEVELS + 2])) for beam in beams]
        new = [item for item in found if item is not None and item not in history][:K]
        lists[row, : len(new)] = new
    return lists


job.facts["beam"] = BEAM
job.recommend(lists_of, at_once=16)
