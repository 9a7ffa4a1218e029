"""Reference values that a refactoring must not change: losses, files and ranks on the dataset of `tests/tiny.py`.

After an intended change, rewrite them with `python -m tests.golden.figures`.
"""

import hashlib
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from rqrec.data.splits import leave_one_out, temporal
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.registry import BASELINES, fit_baseline
from rqrec.models.architectures import ARCHITECTURES, build_model
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.artifact import read_retrieval
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.fit_rqkmeans import FitRqKMeansConfig, fit_rqkmeans
from rqrec.stages.join import JoinConfig, join
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec
from rqrec.tokenizer.quantize import QuantizeMode
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.decoder_task import DecoderTask
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.rqvae_task import RqVaeTask
from rqrec.training.sasrec_task import SasRecTask
from tests.tiny import DIM, tiny_dataset, tiny_vectors, train_tiny, write_inputs

FIGURES_FILE = Path(__file__).with_name("figures.json")
CPU_INFO = Path("/proc/cpuinfo")
STEPS = LoopConfig(20, learning_rate=2e-3, warmup=2, log_every=1, seed=3)
SIZES: dict[str, Any] = {
    "max_items": 5,
    "decoder_embed_dim": 16,
    "attn_embed_dim": 24,
    "attn_heads": 2,
    "attn_layers": 2,
    "attn_dropout": 0.2,
    "label_smoothing": 0.1,
    "user_buckets": 10,
    "time_gaps": 8,
}


def machine() -> str:
    """The processor and library versions on which floating-point sums are bit-identical.

    Instruction sets alone do not tell: libraries of matrix products have code of their own for each processor.
    """
    cpu = f"{processor()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{cpu} torch {torch.__version__} numpy {np.__version__}"


def processor() -> str:
    """Vendor, family and model, where the system tells; elsewhere the kind of machine."""
    if not CPU_INFO.exists():
        return f"{platform.machine()} {platform.processor()}"
    first = CPU_INFO.read_text().split("\n\n")[0]
    facts = dict(line.replace("\t", "").split(":", 1) for line in first.splitlines() if ":" in line)
    return " ".join(
        [platform.machine(), *(facts.get(name, "?").strip() for name in ("vendor_id", "cpu family", "model"))]
    )


def figures() -> dict[str, Any]:
    """All reference values, as JSON values, computed with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run, small = Path(folder) / "tiny", Path(folder) / "small"
            train_tiny(run, iterations=60)
            files = make_small_run(small)
            return {
                "losses": decoder_losses(run) | rqvae_losses() | sasrec_losses(),
                "files": {f"tiny/{name}": hashed for name, hashed in files_of(run).items()}
                | {f"small/{name}": hashed for name, hashed in files.items()},
                "ranks": ranks(run, small),
            }
    finally:
        torch.set_num_threads(threads)


def losses_of(task: Any) -> list[float]:
    """The loss of each of the first 20 steps."""
    return [record["loss"] for record in fit(task, STEPS, "Training for golden figures").training]


def decoder_losses(run: Path) -> dict[str, list[float]]:
    split, table = leave_one_out(tiny_dataset().sequences), SemanticIdTable.read(run / "semantic_ids")
    found = {}
    for name, architecture in ARCHITECTURES.items():
        torch.manual_seed(STEPS.seed)
        model = build_model(architecture.config(table.level_sizes, **SIZES))
        found[name] = losses_of(DecoderTask(model, table, split, 16, STEPS.seed))
    return found


def rqvae_losses() -> dict[str, list[float]]:
    found = {}
    for mode in QuantizeMode:
        torch.manual_seed(STEPS.seed)
        sizes: dict[str, Any] = {"embed_dim": 8, "hidden_dims": (16,), "codebook_size": 8, "n_layers": 2}
        model = RqVae(RqVaeConfig(DIM, mode=mode, **sizes))
        task = RqVaeTask(model, tiny_vectors(), 16, STEPS.seed, reset_every=5)
        task.start()
        found[f"rqvae {mode.name}"] = losses_of(task)
    return found


def sasrec_losses() -> dict[str, list[float]]:
    dataset = tiny_dataset()
    torch.manual_seed(STEPS.seed)
    model = SasRec(SasRecConfig(len(dataset.catalog), 5, 24, 2, 2, 0.2))
    return {"sasrec": losses_of(SasRecTask(model, leave_one_out(dataset.sequences), 16, STEPS.seed))}


def make_small_run(run: Path) -> dict[str, str]:
    """Collaborative embeddings, balanced RQ-k-means, models that read content, joined; hashes of the files."""
    write_inputs(run)
    np.save(run / "vectors.npy", tiny_vectors())
    dataset, embeddings = run / "dataset", run / "joined"
    embed(EmbedConfig(collaborative=8), dataset, embeddings, vectors=run / "vectors.npy")
    fitted = FitRqKMeansConfig({"codebook_size": 8, "n_layers": 2, "balance": 1.5})
    fit_rqkmeans(fitted, embeddings, run / "rqkmeans")
    tokenize(TokenizeConfig(), run / "rqkmeans", embeddings, run / "semantic_ids", dataset=dataset)
    train_decoder(
        TrainDecoderConfig(
            loop=LoopConfig(40, learning_rate=5e-3, full_eval_every=20, model_ema_decay=0.9, seed=1),
            checkpoints=CheckpointConfig(run),
            architecture="hierarchical",
            model=SIZES | {"user_buckets": 0, "time_gaps": 0},
            batch_size=32,
            validation_users=100,
            content_input=True,
        ),
        dataset=dataset,
        semantic_ids=run / "semantic_ids",
        embeddings=embeddings,
    )
    train_sasrec(
        TrainSasRecConfig(
            loop=LoopConfig(40, learning_rate=5e-3, full_eval_every=20, seed=1),
            checkpoints=CheckpointConfig(run),
            model={"max_items": 6, "width": 16, "dropout": 0.2},
            content_input=True,
        ),
        dataset=dataset,
        embeddings=embeddings,
    )
    join(JoinConfig(), [run, run / "sasrec"], dataset, run / "ensemble" / "retrieval", embeddings=embeddings)
    return files_of(run)


def files_of(run: Path) -> dict[str, str]:
    """SHA-256 over the arrays of each file, regardless of their names."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(
            "".join(sorted(arrays_of(path))).encode()
        ).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.suffix in (".npy", ".npz", ".parquet", ".safetensors")
    }


def arrays_of(path: Path) -> list[str]:
    """SHA-256 of each array of a file, including its dtype and shape; a table is one array."""
    if path.suffix == ".parquet":
        return [hashlib.sha256(path.read_bytes()).hexdigest()]
    loaded: Any = load_file(path) if path.suffix == ".safetensors" else np.load(path)
    arrays = {"": loaded} if path.suffix == ".npy" else loaded
    return [
        hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()
        for array in (np.ascontiguousarray(arrays[name]) for name in arrays)
    ]


def ranks(run: Path, small: Path) -> dict[str, list[int]]:
    """The rank of each test target: for the models of both runs, and for the baselines under both protocols."""
    sequences = tiny_dataset().sequences
    found = {}
    for name, folder in (("decoder_only", run), ("joined", small / "ensemble")):
        checkpoint = read_retrieval(folder)
        recommender = checkpoint.ensemble(checkpoint.retriever(20))
        found[name] = evaluate(recommender, leave_one_out(sequences).test).ranks_C
    for name in BASELINES:
        for protocol in (leave_one_out, temporal):
            split = protocol(sequences)
            recommender = fit_baseline(name, split, len(tiny_vectors()), tiny_vectors())
            found[f"{name} {protocol.__name__}"] = evaluate(recommender, split.test).ranks_C
    return {name: np.minimum(ranks_C, 99).tolist() for name, ranks_C in found.items()}


if __name__ == "__main__":
    FIGURES_FILE.write_text(json.dumps({"machine": machine(), **figures()}, indent=1) + "\n")
