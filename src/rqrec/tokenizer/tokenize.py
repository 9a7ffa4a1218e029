"""Embeddings and a trained tokenizer in, a semantic-ID table out."""

from pathlib import Path

from rqrec.artifact import create, find, read_manifest
from rqrec.data.embeddings import read_embeddings
from rqrec.data.ids import IdMap
from rqrec.tokenizer.rqvae import RqVae
from rqrec.tokenizer.semantic_ids import SemanticIdTable, collision_rate, level_usage


def tokenize(rqvae_folder: Path, embeddings_folder: Path, item_ids: IdMap, folder: Path) -> SemanticIdTable:
    """Give every item its semantic ID and write the artefact of kind "semantic_ids".

    Its facts say how well the codes are used: `codebook_usage` (share of each level's codes with an item),
    `perplexity`, and `collision_rate` (share of items that share their codes before the deduplication code).
    Raises ValueError where the number of items and of embeddings differ.
    """
    rqvae_folder, embeddings_folder = find(rqvae_folder, "rqvae"), find(embeddings_folder, "embeddings")
    made_from = {
        "rqvae": read_manifest(rqvae_folder, "rqvae", verify=True).hash,
        "embeddings": read_manifest(embeddings_folder, "embeddings").hash,
    }
    model = RqVae.from_pretrained(rqvae_folder)
    codes_NL = model.semantic_ids(read_embeddings(embeddings_folder).vectors).numpy()
    sizes = model.config.codebook_sizes
    table = SemanticIdTable.from_codes(item_ids, codes_NL, sizes, made_from["rqvae"])
    levels = level_usage(codes_NL, sizes)
    facts = {
        "items": len(table),
        "level_sizes": list(table.level_sizes),
        "collision_rate": collision_rate(codes_NL),
        "codebook_usage": [level.usage for level in levels],
        "perplexity": [level.perplexity for level in levels],
    }
    with create(folder, "semantic_ids", made_from=made_from, facts=facts) as target:
        table.write(target)
    return table
