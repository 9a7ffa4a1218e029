"""The command line: every stage, and the demo that runs them all."""

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

# Read when torch loads: threads that wait for each other sleep instead of spinning. On a machine whose cores
# are busy with other work too, spinning makes a training step many times slower; on an idle one it gains little.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

P = ParamSpec("P")

app = typer.Typer(
    name="rqrec",
    help="Generative retrieval with semantic IDs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DataDir = Annotated[Path, typer.Option(help="Where raw data is kept, and downloaded to where it is missing.")]
Configs = Annotated[list[Path], typer.Argument(help="gin files; later ones win.")]
Bindings = Annotated[list[str], typer.Option("--gin", help='One more setting, such as "train.seed=1".')]


def sentence(command: Callable[P, None]) -> Callable[P, None]:
    """Tell a failure in a sentence and exit with status 1; a defect of ours still shows its traceback."""

    @functools.wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            print(f"rqrec: {_words(error)}", file=sys.stderr)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            print(
                "rqrec: interrupted. The same command goes on after the last finished stage.", file=sys.stderr
            )
            raise typer.Exit(130) from error

    return told


def _words(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}. Nothing that was saved before is lost."
    return str(error)


def emit(facts: dict[str, Any], as_json: bool, text: str) -> None:
    """The result on standard output: the facts as JSON, or the text for people. Of several processes, once."""
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(facts) if as_json else text)


def _table(rows: list[dict[str, Any]]) -> str:
    width = max((len(row["title"]) for row in rows), default=0)
    return "\n".join(
        f"{place:3d}. {row['title']:<{width}}  {row['score']:8.3f}  (item {row['item_id']})"
        for place, row in enumerate(rows, start=1)
    )


@app.command(epilog="Example: rqrec demo --output out/demo")
@sentence
def demo(
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("out/demo"),
    data_dir: DataDir = Path("dataset"),
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    as_json: AsJson = False,
) -> None:
    """MovieLens 100K from raw ratings to recommendations and a report, in minutes on a CPU."""
    from rqrec.demo import Demo

    facts = Demo(output, data_dir, seed).run()
    model, popularity = facts["model"], facts["popularity"]
    text = (
        f"\nTest        recall@10  ndcg@10\n"
        f"model       {model['recall@10']:9.4f}  {model['ndcg@10']:7.4f}\n"
        f"popularity  {popularity['recall@10']:9.4f}  {popularity['ndcg@10']:7.4f}\n\n"
        f"Recommended to user {facts['sample_user']}:\n{_table(facts['recommendations'])}\n\n"
        f"Report: {facts['report']}"
    )
    emit(facts, as_json, text)


@app.command(epilog="Example: rqrec prepare amazon --variant beauty --data-dir dataset/amazon")
@sentence
def prepare(
    source: Annotated[str, typer.Argument(help="amazon, movielens or custom.")],
    variant: Annotated[
        str,
        typer.Option("--variant", "--split", help="beauty, sports, toys; 100k, 1m, 32m, latest-small."),
    ] = "",
    data_dir: DataDir = Path("dataset"),
    interactions: Annotated[Path | None, typer.Option(help="custom: a log, .parquet or .csv.")] = None,
    items: Annotated[Path | None, typer.Option(help="custom: items, .parquet, .csv or .jsonl.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="custom: vectors of the items, .npy.")] = None,
    template: Annotated[str | None, typer.Option(help='Text of an item, such as "{title}; {brand}".')] = None,
    tie_break: Annotated[str, typer.Option(help="Order at equal times: keep or hash.")] = "keep",
    user_core: Annotated[int, typer.Option(min=1, help="Interactions of a user, at least.")] = 1,
    item_core: Annotated[int, typer.Option(min=1, help="Interactions of an item, at least.")] = 1,
    max_history: Annotated[int | None, typer.Option(min=1, help="Last interactions of a user kept.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the artefact.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it again.")] = False,
    as_json: AsJson = False,
) -> None:
    """From raw files to items with text and users' sequences; downloads what is missing."""
    from rqrec.data.prepare import Settings
    from rqrec.data.prepare import prepare as make
    from rqrec.data.sources.custom import CustomFiles

    start = time.monotonic()
    settings = Settings(source, variant, template, tie_break, user_core, item_core, max_history)
    raw = CustomFiles(interactions, items, embeddings) if interactions else data_dir
    folder = out or data_dir / "processed" / (variant or "own") / "dataset"
    facts = {
        "artifact": str(folder),
        **make(settings, raw, folder, force=force).facts(),
        "seconds": round(time.monotonic() - start, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    emit(
        facts,
        as_json,
        f"{facts['users']} users, {facts['items']} items, {facts['interactions']} interactions: {folder}",
    )


@app.command(epilog="Example: rqrec embed out/mine/dataset --out out/mine/embeddings --collaborative 64")
@sentence
def embed(
    dataset: Annotated[Path, typer.Argument(help="Folder of a dataset, or of its run.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    encoder: Annotated[str, typer.Option(help="A sentence-transformers model, by name or folder.")] = "",
    embeddings: Annotated[
        Path | None, typer.Option(help="Vectors of your own in place of text, .npy.")
    ] = None,
    collaborative: Annotated[
        int, typer.Option(min=0, help="Width of vectors of who took what together, to append; 0: none.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Make it again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Item texts as vectors."""
    from rqrec.data.text import DEFAULT_MODEL, Collaborative, embed_catalog

    joined = Collaborative(collaborative) if collaborative else None
    vectors = embed_catalog(
        dataset, out, encoder or DEFAULT_MODEL, collaborative=joined, vectors=embeddings, force=force
    ).vectors
    items, dim = vectors.shape
    facts = {"artifact": str(out), "items": items, "dim": dim}
    emit(facts, as_json, f"{items} vectors of {dim} dimensions: {out}")


@app.command(epilog="Example: rqrec recommend --artifact out/demo --history 50,181,172 --k 10")
@sentence
def recommend(
    artifact: Annotated[Path, typer.Option(help="Folder of a trained retrieval model, or of its run.")],
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")],
    k: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Items of the history may return.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The next items for a history."""
    from rqrec.serving.recommender import Recommender

    ids = [item_id.strip() for item_id in history.split(",") if item_id.strip()]
    (found,) = Recommender.load(artifact).recommend([ids], k, exclude_seen=not allow_seen)
    rows = [
        {
            "item_id": item.item_id,
            "title": item.title,
            "score": item.score,
            "semantic_id": list(item.semantic_id),
        }
        for item in found
    ]
    facts = {"history": ids, "k": k, "recommendations": rows}
    note = f"\nOnly {len(rows)} items are allowed." if len(rows) < k else ""
    emit(facts, as_json, _table(rows) + note)


def _configured(name: str, configs: list[Path], bindings: list[str]) -> Callable[[], Path]:
    """The function `name` bound by the configuration; both of a shared file's functions are known to gin."""
    from rqrec.config import configured
    from rqrec.scripts import run_rqvae, train_decoder, train_rqvae

    functions: dict[str, Callable[..., Path]] = {
        "train": train_decoder.train if name == "train_decoder" else train_rqvae.train,
        "generate_semantic_ids": run_rqvae.generate_semantic_ids,
    }
    bound = configured(functions, configs, bindings)
    return bound["generate_semantic_ids" if name == "generate_semantic_ids" else "train"]


@app.command("train-rqvae", epilog="Example: rqrec train-rqvae configs/rqvae_ml100k.gin")
@sentence
def train_rqvae(configs: Configs, bindings: Bindings = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Train the RQ-VAE that turns items into semantic IDs."""
    folder = _configured("train_rqvae", configs, bindings)()
    emit({"artifact": str(folder), **_facts(folder)}, as_json, str(folder))


@app.command("train-decoder", epilog="Example: rqrec train-decoder configs/decoder_ml100k.gin")
@sentence
def train_decoder(configs: Configs, bindings: Bindings = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Train the retrieval model that generates the next item's semantic ID."""
    folder = _configured("train_decoder", configs, bindings)()
    emit({"artifact": str(folder), **_facts(folder)}, as_json, str(folder))


@app.command("run-rqvae", epilog="Example: rqrec run-rqvae configs/custom.gin")
@sentence
def run_rqvae(configs: Configs, bindings: Bindings = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Write the semantic IDs of own embeddings as one array."""
    path = _configured("generate_semantic_ids", configs, bindings)()
    emit({"output": str(path)}, as_json, str(path))


def _facts(folder: Path) -> dict[str, Any]:
    from rqrec.artifact import read_manifest

    return read_manifest(folder).facts


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
