"""RQ-VAE checkpoints of the reference implementation of TIGER in PyTorch, in the words of this package.

Their model is the same up to names, as the IDs and reconstructions in the test data show: linear maps
without bias with ReLU between them, and, with normalised codebooks, a latent of unit length and unit codes
on the first level only. It has no input standardisation, so the normaliser stays the identity.
"""

import re

import torch

from rqrec.tokenizer.saved_tokenizer import SavedTokenizer, check_settings

# Their setting -> ours. How the codebooks were initialised no longer matters to a trained model.
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


def is_reference_checkpoint(checkpoint: SavedTokenizer) -> bool:
    """Whether the settings are those of the reference implementation."""
    return "codebook_sim_vq" in checkpoint.settings or "codebook_kmeans_init" in checkpoint.settings


def convert(checkpoint: SavedTokenizer) -> SavedTokenizer:
    """The same model under our names. Raises ValueError for what this package cannot represent."""
    source, settings = checkpoint.source, checkpoint.settings
    check_settings(set(SETTINGS), {"input_dim"}, checkpoint)
    if settings.get("n_cat_features"):
        raise ValueError(
            f"{source} has n_cat_features={settings['n_cat_features']}. The reference implementation brings "
            f"the other features to unit length after decoding, but only then; this package does not, so "
            f"its reconstructions would differ. Train the tokenizer again with `rqrec train-rqvae`."
        )
    tensors = {}
    for name, tensor in checkpoint.tensors.items():
        translated = next((re.sub(p, r, name) for p, r in TENSORS if p.fullmatch(name)), None)
        if translated is None:
            raise ValueError(
                f"{source} has the tensor {name}, which this package has no place for: its architecture "
                f"differs from linear encoder and decoder layers without bias and one table a level."
            )
        tensors[translated] = tensor
    dim = int(settings["input_dim"])
    tensors |= {
        "input_mean_I": torch.zeros(dim),
        "input_scale_I": torch.ones(dim),
        "initialized": torch.tensor(True),
    }
    renamed = {ours: settings[theirs] for theirs, ours in SETTINGS.items() if ours and theirs in settings}
    return SavedTokenizer(renamed, tensors, source)
