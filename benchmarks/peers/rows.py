"""What is compared with what."""

from typing import NamedTuple

OURS = "rqrec"


class Row(NamedTuple):
    """One model or tokenizer, and the adapter that runs it."""

    key: str
    name: str
    package: str
    script: str
    variant: str = ""
    against: str = ""
    """Key of our row that it is compared with; empty for ours."""
    note: str = ""

    @property
    def is_ours(self) -> bool:
        return self.package == OURS


MODELS = (
    Row(
        "ours_codes",
        "generative, one model",
        OURS,
        "ours.py",
        "codes",
        note="settings of the recipe, beam 50",
    ),
    Row(
        "ours_sasrec",
        "SASRec",
        OURS,
        "ours.py",
        "sasrec",
        note="settings of the recipe, without content, as the others",
    ),
    Row(
        "ours_joined",
        "both, joined with neighbours",
        OURS,
        "ours.py",
        "joined",
        note="settings of the recipe, beam 50",
    ),
    Row(
        "cornac_tiger",
        "TIGER",
        "cornac",
        "cornac_models.py",
        "tiger",
        "ours_codes",
        "`GRID_CONFIG` with the sizes of our encoder-decoder: its own are for GPUs; beam 50",
    ),
    Row(
        "rechub_tiger",
        "TIGER",
        "rechub",
        "rechub_models.py",
        "tiger",
        "ours_codes",
        "on its RQ-VAE's codes, with the sizes of our encoder-decoder; beam 50",
    ),
    Row(
        "recbole_sasrec",
        "SASRec",
        "recbole",
        "recbole_sasrec.py",
        "",
        "ours_sasrec",
        "full softmax, batches of 256",
    ),
    Row(
        "rectools_sasrec",
        "SASRec",
        "rectools",
        "rectools_sasrec.py",
        "",
        "ours_sasrec",
        "full softmax, width 64, 2 blocks of 2 heads",
    ),
    Row(
        "cornac_sasrec",
        "SASRec",
        "cornac",
        "cornac_models.py",
        "sasrec",
        "ours_sasrec",
        "its defaults: 2,048 negatives",
    ),
    Row(
        "implicit_bm25",
        "BM25 neighbours",
        "implicit",
        "implicit_bm25.py",
        "",
        "ours_joined",
        "100 neighbours",
    ),
)

TOKENIZERS = (
    Row(
        "ours_rqvae",
        "RQ-VAE",
        OURS,
        "ours_tokenizer.py",
        "rqvae",
        note="learning rate 0.005 with warm-up and decay",
    ),
    Row(
        "ours_rqkmeans",
        "balanced RQ-k-means",
        OURS,
        "ours_tokenizer.py",
        "rqkmeans",
        note="at most 1.1 times the mean items per code",
    ),
    Row(
        "rechub_rqvae",
        "RQ-VAE",
        "rechub",
        "rechub_models.py",
        "rqvae",
        "ours_rqvae",
        "Sinkhorn assignment in the last level",
    ),
    Row("cornac_rqvae", "RQ-VAE", "cornac", "cornac_rqvae.py", "", "ours_rqvae"),
    Row(
        "vq_residual",
        "ResidualVQ",
        "vq",
        "vq_residual.py",
        "",
        "ours_rqvae",
        "between an encoder and a decoder of ours",
    ),
    Row("semantic_id_rqvae", "RQ-VAE", "semantic_id", "semantic_id_models.py", "rqvae", "ours_rqvae"),
    Row(
        "semantic_id_rqkmeans",
        "RQ-k-means",
        "semantic_id",
        "semantic_id_models.py",
        "rqkmeans",
        "ours_rqkmeans",
    ),
)

ROWS = {row.key: row for row in (*MODELS, *TOKENIZERS)}

# Why we are behind, by key of the row and name of the figure.
REASONS: dict[tuple[str, str], str] = {
    (
        "implicit_bm25",
        "train_seconds",
    ): "it counts neighbours and learns nothing; `rqrec evaluate --baseline item_knn` does too",
    ("implicit_bm25", "users_per_second"): "one product of sparse matrices per user, no model",
    ("implicit_bm25", "peak_mib"): "it does not import torch",
    ("semantic_id_rqkmeans", "train_seconds"): "ours limits the items per code, for fewer collisions",
    ("semantic_id_rqkmeans", "reconstruction_error"): "ours limits the items per code, for fewer collisions",
    ("cornac_rqvae", "train_seconds"): "within what other work on the machine changes",
    (
        "cornac_rqvae",
        "largest_group",
    ): "16 items of one brand and category that the same people took: nearly one vector; our error is lower",
    (
        "semantic_id_rqvae",
        "train_seconds",
    ): "within what other work on the machine changes; it uses a fifth of its codes",
    ("csv", "peak_gib"): "ours also keeps the users, times and catalogue",
    ("csv", "cpu_seconds"): "ours also checks every row, and writes the users, times and catalogue",
}
