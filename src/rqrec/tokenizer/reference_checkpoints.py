"""Conversion of RQ-VAE checkpoints of the reference PyTorch implementation of TIGER.

The architecture is the same up to names, as the IDs and reconstructions in the test data confirm: linear
layers without bias, with ReLU between them; with normalised codebooks, a latent of unit length and unit codes
on the first level only. It does not standardise its input, so the normaliser stays the identity.
"""

import re

import torch

from rqrec.core.values import Width, converted
from rqrec.tokenizer.saved_tokenizer import SavedTokenizer, check_settings

# Their setting -> ours. The initialisation of the codebooks does not matter to a trained model.
SETTINGS = {
    "input_dim": "input_dim",
    "embed_dim": "embed_dim",
    "hidden_dims": "hidden_dims",
    "codebook_size": "codebook_size",
    "codebook_normalize": "codebook_normalize",
    "codebook_sim_vq": "sim_vq",
    "n_layers": "n_layers",
    "commitment_weight": "commitment_weight",
    "n_cat_features": "n_cat_features",
    "codebook_kmeans_init": None,
}

TENSORS = (
    (re.compile(r"(encoder|decoder)\.mlp\.(\d+\.weight)"), r"\1.\2"),
    (re.compile(r"layers\.(\d+)\.embedding\.weight"), r"quantizer.levels.\1.weight"),
    (re.compile(r"layers\.(\d+)\.out_proj\.0\.weight"), r"quantizer.levels.\1.projection"),
)


def is_reference_checkpoint(saved: SavedTokenizer) -> bool:
    """Whether the settings are those of the reference implementation."""
    return "codebook_sim_vq" in saved.settings or "codebook_kmeans_init" in saved.settings


def convert(saved: SavedTokenizer) -> SavedTokenizer:
    """The same model under our names. Raises ValueError if this package cannot represent it."""
    source, settings = saved.source, saved.settings
    check_settings(set(SETTINGS), {"input_dim"}, saved)
    if settings.get("n_cat_features"):
        raise ValueError(
            f"{source} has n_cat_features={settings['n_cat_features']}. With categorical "
            f"features the reference implementation normalises the dense features to unit length after "
            f"decoding; this package does not, so reconstructions would differ. Train the tokenizer again "
            f"with `rqrec train-rqvae`."
        )
    tensors = {}
    for name, tensor in saved.tensors.items():
        our_name = next((re.sub(p, r, name) for p, r in TENSORS if p.fullmatch(name)), None)
        if our_name is None:
            raise ValueError(
                f"{source} has the tensor {name}, which this package does not support: the encoder and decoder "
                f"must be linear layers without bias, with one codebook per level."
            )
        tensors[our_name] = tensor
    try:
        dim = converted("input_dim", Width, settings["input_dim"])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    tensors |= {
        "input_mean_I": torch.zeros(dim),
        "input_scale_I": torch.ones(dim),
        "initialized": torch.tensor(True),
    }
    renamed = {ours: settings[theirs] for theirs, ours in SETTINGS.items() if ours and theirs in settings}
    return SavedTokenizer(renamed, tensors, source)
