"""`rqrec reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rqrec.cli.command import (
    AsJson,
    CustomInteractions,
    CustomItems,
    CustomVectors,
    DataDir,
    command,
    emit,
)
from rqrec.cli.next_steps import say_next_after
from rqrec.data.sources.custom import CustomFiles
from rqrec.experiments.reproduce_config import ReproduceConfig


@command(
    "rqrec reproduce amazon-beauty --data-dir dataset/amazon --max-minutes 30 --json", section="reproduce"
)
def reproduce(
    source: Annotated[
        str,
        typer.Argument(help="amazon-beauty, -sports, -toys; movielens-100k, -1m, -latest-small; or custom."),
    ],
    config: ReproduceConfig,
    data_dir: DataDir = Path("dataset"),
    interactions: CustomInteractions = None,
    items: CustomItems = None,
    embeddings: CustomVectors = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default out/SOURCE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the recipe behind the result tables on any dataset: embeddings, semantic IDs, experts, test metrics."""
    from rqrec.experiments.reproduce import AGAINST, COMPARED_WITH, METRICS, ROWS, TABLES
    from rqrec.experiments.reproduce import reproduce as run

    if source == "custom" and interactions is None:
        raise typer.BadParameter("custom needs --interactions, a log of user_id, item_id and timestamp.")
    if source != "custom" and (interactions or items or embeddings):
        raise typer.BadParameter(f"--interactions, --items and --embeddings are for custom, not {source}.")
    files = CustomFiles(interactions, items, embeddings) if interactions else data_dir
    folder = out or Path("out") / source
    result = run(config, source, files, folder)
    lines = []
    for name, choice in TABLES.items():
        lines.append(f"{f'test, seen items {choice}':<30}" + "  ".join(f"{metric:>9}" for metric in METRICS))
        for row in ROWS:
            cells = "  ".join(_cell(result[name][row][metric]) for metric in METRICS)
            lines.append(f"  {row:<28}{cells}")
    lines.append(f"against {COMPARED_WITH}, seen items excluded")
    for row, differences in result[AGAINST].items():
        found = (f"{name} {one['mean']:+.4f} (p = {one['p_value']:.4f})" for name, one in differences.items())
        lines.append(f"  {row:<28}{', '.join(found)}")
    model = folder / "seed_0" / "retrieval"
    emit(result, as_json, "\n".join([*lines, f"\nModel: {model}"]))
    if not as_json:
        say_next_after(model)


def _cell(metric: dict[str, Any]) -> str:
    return f"{metric['mean']:9.4f}" + (f" ± {metric['deviation']:.4f}" if "deviation" in metric else "")
