"""Commands that measure this machine."""

from enum import StrEnum
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, app, command, emit


class Precision(StrEnum):
    """What a step can be profiled in."""

    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


bench = typer.Typer(help="Measure this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")


@command("rqrec bench train --architecture hierarchical --batch 256", group=bench)
def train(
    architecture: Annotated[
        str, typer.Option(help="decoder_only, encoder_decoder or hierarchical.")
    ] = "hierarchical",
    width: Annotated[
        int,
        typer.Option(min=0, help="Of embeddings and transformer, 32 a head; 0: the sizes it has by default."),
    ] = 0,
    layers: Annotated[int, typer.Option(min=1, help="Depth of the transformer.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of a step.")] = 256,
    precision: Annotated[Precision, typer.Option(help="Of matrix products; no: fp32.")] = Precision.no,
    steps: Annotated[int, typer.Option(min=1, help="How many are profiled.")] = 10,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as many as torch takes.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Profile training steps of a retrieval model on sequences as long as Beauty's: where the time goes."""
    import torch

    from rqrec.models.architectures import architecture as named
    from rqrec.models.retrieval_model import parameter_count
    from rqrec.training.profile import LEVEL_SIZES, Workload, profile_steps, sizes_of

    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = named(architecture).config(level_sizes=LEVEL_SIZES, attn_layers=layers, **sizes_of(width))
    workload = Workload(config, batch, precision.value, device)
    measured = profile_steps(workload, steps)
    whole = sum(measured.parts.values())
    facts = {
        "architecture": architecture,
        "parameters": parameter_count(workload.model),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision": precision.value,
        "batch": batch,
        "milliseconds_per_step": round(measured.milliseconds, 2),
        "parts": {name: round(ms / whole, 4) for name, ms in measured.parts.items()},
        "operators_ms": {name: round(ms, 3) for name, ms in measured.operators.items()},
    }
    emit(facts, as_json, _words(facts))


def _words(facts: dict) -> str:
    first, second = list(facts["parts"])[:2]
    lines = [
        f"A step of {facts['architecture']} ({facts['parameters'] / 1e6:.2f} M parameters, batch {facts['batch']}, "
        f"{facts['device']}, {facts['threads']} threads) takes {facts['milliseconds_per_step']:.1f} ms. "
        f"Most of it goes into {first} ({facts['parts'][first]:.0%}) and {second} "
        f"({facts['parts'][second]:.0%}); the data path takes {facts['parts']['data path']:.1%}.",
        "",
        *(f"{name:<26}{share:7.1%}" for name, share in facts["parts"].items()),
        "",
        "Largest operators, ms a step:",
        *(f"{name.removeprefix('aten::'):<48}{ms:9.2f}" for name, ms in facts["operators_ms"].items()),
    ]
    return "\n".join(lines)
