"""`rqrec inspect-ids`: what a set of semantic IDs is worth, in figures and examples."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.artifact import atomic_write, find, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import read_embeddings
from rqrec.evaluation.figures import draw_bars, draw_code_counts
from rqrec.evaluation.report import figure, heading, paragraph, save_report, table
from rqrec.tokenizer.inspection import Inspection, inspect_codes, items_with_prefix
from rqrec.tokenizer.semantic_ids import SemanticIdTable

EXAMPLES, SHOWN = 6, 8  # prefixes, and items under each


def inspect_table(
    table_folder: Path,
    embeddings: Path | None = None,
    dataset: Path | None = None,
    *,
    report: Path | None = None,
    tokens: Path | None = None,
) -> dict[str, Any]:
    """Measure a table; with `report` write a report with figures, with `tokens` a .jsonl of LLM tokens.

    Embeddings (for the agreement of neighbours) and dataset (for titles) are by default those that lie in the
    same run's folder, where there are any.
    """
    folder = find(table_folder, "semantic_ids")
    manifest = read_manifest(folder, "semantic_ids", verify=True)
    table = SemanticIdTable.read(folder)
    last = None if manifest.settings.get("collisions") == "reassign" else -1
    codes_NL, sizes = table.codes_NL[:, :last], table.level_sizes[:last]
    embeddings = embeddings or _beside(folder, "embeddings")
    dataset = dataset or _beside(folder, "dataset")
    vectors = read_embeddings(embeddings).vectors if embeddings else None
    found = inspect_codes(codes_NL, sizes, vectors, torch.Generator().manual_seed(0))
    titles = Catalog.read(find(dataset, "dataset")).titles() if dataset else list(table.item_ids.all)
    examples = _examples(codes_NL, titles)
    facts = {**json.loads(json.dumps(asdict(found))), "warnings": found.warnings(), "examples": examples}
    facts["levels"] = [level._asdict() for level in found.levels]
    if tokens is not None:
        with atomic_write(tokens) as file:
            for item_id, text in zip(table.item_ids.all, table.llm_tokens(), strict=True):
                file.write((json.dumps({"item_id": item_id, "tokens": text}) + "\n").encode())
    if report is not None:
        _write_report(report, found, codes_NL, examples)
    return facts


def _beside(folder: Path, kind: str) -> Path | None:
    try:
        return find(folder.parent, kind)
    except (FileNotFoundError, ValueError):
        return None


def _examples(codes_NL: NDArray[np.int64], titles: list[str]) -> list[dict[str, Any]]:
    """The fullest prefixes of two codes (of one, where there is one level), and some items of each."""
    depth = min(2, codes_NL.shape[1])
    prefixes, counts = np.unique(codes_NL[:, :depth], axis=0, return_counts=True)
    fullest = np.argsort(-counts, kind="stable")[:EXAMPLES]
    return [
        {
            "prefix": prefixes[place].tolist(),
            "items": int(counts[place]),
            "titles": [
                titles[item] for item in items_with_prefix(codes_NL, prefixes[place].tolist())[:SHOWN]
            ],
        }
        for place in fullest
    ]


def _write_report(
    folder: Path, found: Inspection, codes_NL: NDArray[np.int64], examples: list[dict[str, Any]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [paragraph(f"Warning: {words}") for words in found.warnings()]
    blocks += [
        paragraph(
            f"{found.items} items. {found.collision_rate:.1%} of them share their codes with another item, at "
            f"most {found.largest_group}."
        ),
        heading("Codes"),
        table(
            ["level", "codes", "share used", "dead", "entropy (nats)", "perplexity"],
            [
                [f"{place + 1}", size, level.usage, level.dead_codes, level.entropy, level.perplexity]
                for place, (size, level) in enumerate(zip(found.codebook_sizes, found.levels, strict=True))
            ],
        ),
    ]
    counts = [np.bincount(codes_NL[:, i], minlength=size) for i, size in enumerate(found.codebook_sizes)]
    draw_code_counts(folder / "codes.png", counts)
    blocks.append(figure("codes.png", "Items of each code, level by level"))
    if found.agreement is not None:
        depths = [f"first {depth + 1}" for depth in range(len(found.codebook_sizes))]
        draw_bars(folder / "agreement.png", depths, asdict(found.agreement))
        blocks += [
            heading("Does the hierarchy follow content?"),
            figure(
                "agreement.png",
                "Share of items whose first codes equal their nearest neighbour's, a stranger's",
            ),
        ]
    rows = [[str(tuple(row["prefix"])), row["items"], "; ".join(row["titles"])] for row in examples]
    blocks += [heading("Items that share a prefix"), table(["prefix", "items", "some of them"], rows)]
    save_report(folder, "Semantic IDs", blocks)
