"""rqrec: generative retrieval with semantic IDs.

What a notebook needs, stage by stage:

    from pathlib import Path
    from rqrec import EmbedConfig, PrepareConfig, Recommender, embed, prepare

    dataset = prepare(PrepareConfig("movielens", "100k"), Path("dataset"), Path("out/dataset"))
    embeddings = embed(EmbedConfig("all-MiniLM-L6-v2"), dataset, Path("out/embeddings"))

Every stage takes a config and folders, and returns the folder of the artefact that it wrote or reused.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

# Where each public name is defined; imported at first use, so that `import rqrec` stays quick.
_HOMES = {
    # Data
    "Catalog": "rqrec.data.catalog",
    "Dataset": "rqrec.data.dataset",
    "Histories": "rqrec.data.sequences",
    "CustomFiles": "rqrec.data.sources.custom",
    "IdMap": "rqrec.data.ids",
    "Interactions": "rqrec.data.interactions",
    "Sequences": "rqrec.data.sequences",
    "Split": "rqrec.data.splits",
    "leave_one_out": "rqrec.data.splits",
    "temporal": "rqrec.data.splits",
    "read_embeddings": "rqrec.data.embeddings",
    # Tokenizers and semantic IDs
    "RqKMeans": "rqrec.tokenizer.rqkmeans",
    "RqKMeansConfig": "rqrec.tokenizer.rqkmeans_config",
    "RqVae": "rqrec.tokenizer.rqvae",
    "RqVaeConfig": "rqrec.tokenizer.rqvae",
    "SemanticIdTable": "rqrec.tokenizer.semantic_ids",
    "Trie": "rqrec.tokenizer.trie",
    "load_tokenizer": "rqrec.tokenizer.loading",
    # Models
    "DecoderOnly": "rqrec.models.decoder_only",
    "DecoderOnlyConfig": "rqrec.models.decoder_only",
    "EncoderDecoder": "rqrec.models.encoder_decoder",
    "EncoderDecoderConfig": "rqrec.models.encoder_decoder",
    "Hierarchical": "rqrec.models.hierarchical",
    "HierarchicalConfig": "rqrec.models.hierarchical",
    "SasRec": "rqrec.models.sasrec",
    "SasRecConfig": "rqrec.models.sasrec",
    # Stages
    "EmbedConfig": "rqrec.stages.embed",
    "EvaluateConfig": "rqrec.stages.evaluate_config",
    "FitRqKMeansConfig": "rqrec.stages.fit_rqkmeans_config",
    "JoinConfig": "rqrec.stages.join_config",
    "PrepareConfig": "rqrec.stages.prepare",
    "TokenizeConfig": "rqrec.stages.tokenize_config",
    "TrainDecoderConfig": "rqrec.stages.train_decoder",
    "TrainRqVaeConfig": "rqrec.stages.train_rqvae",
    "TrainSasRecConfig": "rqrec.stages.train_sasrec",
    "CheckpointConfig": "rqrec.training.checkpoint",
    "LoopConfig": "rqrec.training.loop_config",
    "embed": "rqrec.stages.embed",
    "evaluate": "rqrec.stages.evaluate",
    "evaluate_baseline": "rqrec.stages.evaluate",
    "fit_rqkmeans": "rqrec.stages.fit_rqkmeans",
    "join": "rqrec.stages.join",
    "prepare": "rqrec.stages.prepare",
    "tokenize": "rqrec.stages.tokenize",
    "train_decoder": "rqrec.stages.train_decoder",
    "train_rqvae": "rqrec.stages.train_rqvae",
    "train_sasrec": "rqrec.stages.train_sasrec",
    # Evaluation
    "measure": "rqrec.evaluation.measure",
    "ranking_metrics": "rqrec.evaluation.metrics",
    # Recommending
    "Recommender": "rqrec.serving.recommender",
    "Rules": "rqrec.serving.rules",
    "lay_out": "rqrec.serving.map_layout",
    "Retriever": "rqrec.retrieval.retriever",
    "read_retrieval": "rqrec.retrieval.artifact",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rqrec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
