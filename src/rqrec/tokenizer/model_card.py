"""Model card (README) of a tokenizer on the Hugging Face Hub."""

from collections.abc import Mapping
from typing import Any

from rqrec.core import hub


def model_card(
    repo_id: str,
    class_name: str,
    module: str,
    settings: Mapping[str, Any],
    *,
    data: str,
    figures: Mapping[str, float],
) -> str:
    """Markdown with the YAML metadata of the hub; `figures` are metrics by name, `data` describes the data set."""
    input_dim = settings["input_dim"]
    return hub.model_card(
        repo_id,
        f"An item tokenizer ({class_name} of rqrec): item embeddings of {input_dim} dimensions become "
        "semantic IDs, tuples of codes of which similar items share a prefix (arXiv 2305.05065).",
        data=data,
        metrics=figures,
        settings=settings,
        use=[
            f"from {module} import {class_name}",
            "",
            f'tokenizer = {class_name}.from_pretrained("{repo_id}")',
            f"codes = tokenizer.semantic_ids(embeddings)  # float [items, {input_dim}] -> int64 [items, levels]",
            "rebuilt = tokenizer.reconstruct(embeddings)",
        ],
        limits=[
            "It reads embeddings of the encoder that it was fitted to. Those of another one have other meanings, "
            "even if they are as wide.",
            "Several items may get the same codes: a further code, which this tokenizer does not give, makes their "
            "semantic IDs unique.",
            "Codes say what the embeddings say: nothing of what the encoder cannot read, such as another language.",
        ],
    )
