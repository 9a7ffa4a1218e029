"""`rqrec run-rqvae`."""

from rqrec.cli.command import AsJson, Bindings, Configs, command, emit
from rqrec.core.config import configured


@command("rqrec run-rqvae configs/custom.gin")
def run_rqvae(configs: Configs = None, bindings: Bindings = None, as_json: AsJson = False) -> None:
    """Write the semantic IDs of your own embeddings as one array."""
    from rqrec.stages.run_rqvae import GenerateSemanticIdsConfig, generate_semantic_ids

    config = configured(GenerateSemanticIdsConfig(), ["generate_semantic_ids"], configs or [], bindings or [])
    path = generate_semantic_ids(config)
    emit({"output": str(path)}, as_json, str(path))
