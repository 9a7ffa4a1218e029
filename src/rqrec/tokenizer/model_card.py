"""The README of a tokenizer on Hugging Face: what it is, its data, its figures, and how to use it."""

from collections.abc import Mapping
from typing import Any


def model_card(
    repo_id: str,
    class_name: str,
    module: str,
    settings: Mapping[str, Any],
    *,
    data: str,
    figures: Mapping[str, float],
) -> str:
    """Markdown with the metadata that the hub reads. `figures` are shown as given, by name."""
    input_dim = settings["input_dim"]
    lines = [
        "---",
        "library_name: rqrec",
        "tags:",
        "- recommendation",
        "- semantic-ids",
        "- generative-retrieval",
        "---",
        "",
        f"# {repo_id.split('/')[-1]}",
        "",
        f"An item tokenizer ({class_name} of rqrec): item embeddings of {input_dim} dimensions become "
        "semantic IDs, tuples of codes that similar items share from the left (arXiv 2305.05065).",
        "",
        "## Data",
        "",
        data,
        "",
        "## Figures",
        "",
    ]
    if figures:
        lines += ["| figure | value |", "| --- | --- |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    else:
        lines += ["None were recorded when this was pushed."]
    lines += ["", "## Settings", "", "| setting | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in settings.items()]
    lines += [
        "",
        "## How to use",
        "",
        "```python",
        f"from {module} import {class_name}",
        "",
        f'tokenizer = {class_name}.from_pretrained("{repo_id}")',
        f"codes = tokenizer.semantic_ids(embeddings)  # float [items, {input_dim}] -> int64 [items, levels]",
        "rebuilt = tokenizer.reconstruct(embeddings)",
        "```",
        "",
    ]
    return "\n".join(lines)
