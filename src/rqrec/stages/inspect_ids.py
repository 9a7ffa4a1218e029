"""`rqrec inspect-ids`: the quality of a set of semantic IDs, with metrics, figures and examples.

Shapes: N items, L levels.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.artifact import (
    MANIFEST,
    atomic_write,
    check_outside_artifacts,
    check_replaceable,
    find,
    find_input,
    read_manifest,
)
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import check_embeddings_of, read_embeddings
from rqrec.data.ids import PADDING
from rqrec.evaluation.figures import draw_bars, draw_code_counts
from rqrec.evaluation.report import figure, heading, paragraph, save_report, table
from rqrec.tokenizer.inspection import Inspection, inspect_codes, items_with_prefix
from rqrec.tokenizer.semantic_ids import SemanticIdTable

EXAMPLES, SHOWN = 6, 8  # prefixes, and items shown for each
MAX_LINE = 100_000  # characters of the first line of an earlier file of tokens


def inspect_table(
    table_folder: Path,
    embeddings: Path | None = None,
    dataset: Path | None = None,
    *,
    report: Path | None = None,
    tokens: Path | None = None,
) -> dict[str, Any]:
    """Measure the quality of a table of semantic IDs; returns what `rqrec inspect-ids --json` prints.

    `report` is a folder for a report with figures, `tokens` a .jsonl file for the IDs as LLM tokens. By default,
    embeddings (for prefix agreement) and dataset (for titles) are those that the table was made from, if they lie
    near.
    """
    folder = find(table_folder, "semantic_ids")
    read_manifest(folder, "semantic_ids", verify=True)
    table = SemanticIdTable.read(folder)
    codes_NL, sizes = table.content_codes, table.level_sizes[: table.content_levels]
    embeddings = embeddings or find_input(folder, "embeddings")
    dataset = dataset or find_input(folder, "dataset")
    if embeddings and dataset:
        check_embeddings_of(embeddings, dataset)
    if report is not None:
        check_outside_artifacts(report)
        if (report / MANIFEST).is_file():
            raise ValueError(f"{report} is an artefact: choose another folder for the report.")
    if tokens is not None:
        check_replaceable(tokens, _has_tokens)
    vectors = read_embeddings(embeddings).vectors if embeddings else None
    inspection = inspect_codes(codes_NL, sizes, vectors, torch.Generator().manual_seed(0))
    titles = _titles(dataset, table) if dataset else list(table.item_ids.all)
    examples = _examples(codes_NL, titles)
    result = {
        **json.loads(json.dumps(asdict(inspection))),
        "warnings": inspection.warnings(),
        "examples": examples,
    }
    result["levels"] = [level._asdict() for level in inspection.levels]
    if tokens is not None:
        with atomic_write(tokens) as file:
            for item_id, text in zip(table.item_ids.all, table.llm_tokens(), strict=True):
                file.write((json.dumps({"item_id": item_id, "tokens": text}) + "\n").encode())
    if report is not None:
        _write_report(report, inspection, codes_NL, examples)
    return result


def _has_tokens(file: Path) -> bool:
    """Whether a file has the tokens of items, one per line."""
    with file.open(encoding="utf-8") as lines:
        first = json.loads(lines.readline(MAX_LINE))
    return isinstance(first, dict) and first.keys() == {"item_id", "tokens"}


def _titles(dataset: Path, table: SemanticIdTable) -> list[str]:
    """The titles of the table's items. Raises ValueError if the dataset does not have all of them."""
    catalog = Catalog.read(find(dataset, "dataset"))
    items_N = catalog.id_map.find(table.item_ids.all)
    if (items_N == PADDING).any():
        missing = table.item_ids.all[int((items_N == PADDING).argmax())]
        raise ValueError(
            f"{dataset} has no item {missing!r}, but there is a semantic ID for it: give its dataset."
        )
    titles = catalog.titles()
    return [titles[item] for item in items_N]


def _examples(codes_NL: NDArray[np.int64], titles: list[str]) -> list[dict[str, Any]]:
    """The prefixes of two codes (one code if there is only one level) with the most items, and some items of each."""
    depth = min(2, codes_NL.shape[1])
    prefixes, counts = np.unique(codes_NL[:, :depth], axis=0, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:EXAMPLES]
    return [
        {
            "prefix": prefixes[row].tolist(),
            "items": int(counts[row]),
            "titles": [titles[item] for item in items_with_prefix(codes_NL, prefixes[row].tolist())[:SHOWN]],
        }
        for row in largest
    ]


def _write_report(
    folder: Path, inspection: Inspection, codes_NL: NDArray[np.int64], examples: list[dict[str, Any]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sizes = inspection.codebook_sizes
    blocks = [paragraph(f"Warning: {warning}") for warning in inspection.warnings()]
    blocks += [
        paragraph(
            f"{inspection.items} items. {inspection.collision_rate:.1%} of them share all their codes with another "
            f"item; the largest such group has {inspection.largest_group} items."
        ),
        heading("Codes"),
        table(
            ["level", "codes", "share used", "dead", "entropy (nats)", "perplexity"],
            [
                [f"{number}", size, level.usage, level.dead_codes, level.entropy, level.perplexity]
                for number, (size, level) in enumerate(zip(sizes, inspection.levels, strict=True), start=1)
            ],
        ),
    ]
    counts = [np.bincount(codes_NL[:, level], minlength=size) for level, size in enumerate(sizes)]
    draw_code_counts(folder / "codes.png", counts)
    blocks.append(figure("codes.png", "Items per code, by level"))
    if inspection.agreement is not None:
        depths = ["the first code"] + [f"the first {depth} codes" for depth in range(2, len(sizes) + 1)]
        shares = {
            "nearest neighbour": inspection.agreement.neighbours,
            "random item": inspection.agreement.random_items,
        }
        draw_bars(folder / "agreement.png", depths, shares, "share of items with the same codes")
        blocks += [
            heading("Does the hierarchy follow content?"),
            figure(
                "agreement.png",
                "Share of items whose first codes equal those of their nearest neighbour, or of a random item",
            ),
        ]
    rows = [[str(tuple(row["prefix"])), row["items"], "; ".join(row["titles"])] for row in examples]
    blocks += [heading("Items that share a prefix"), table(["prefix", "items", "examples"], rows)]
    save_report(folder, "Semantic IDs", blocks)
