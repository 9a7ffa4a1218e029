"""Commands that measure this machine."""

from enum import StrEnum
from typing import Annotated, Literal

import typer

from rqrec.cli.command import AsJson, command, command_group, emit


class Precision(StrEnum):
    """Precision of the matrix products of a training step."""

    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


@command_group
def bench() -> None:
    """Measure how fast this machine trains."""


@command("rqrec bench train --architecture hierarchical --batch 256", group=bench)
def train(
    architecture: Annotated[
        Literal["decoder_only", "encoder_decoder", "hierarchical"],
        typer.Option(help="Architecture of the model."),
    ] = "hierarchical",
    width: Annotated[
        int,
        typer.Option(min=0, help="Of embeddings and transformer, with heads of 32; 0: the default sizes."),
    ] = 0,
    layers: Annotated[int, typer.Option(min=1, help="Depth of the transformer.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Sequences per step.")] = 256,
    precision: Annotated[Precision, typer.Option(help="Of matrix products; no: fp32.")] = Precision.no,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to profile.")] = 10,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's default.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Profile training steps of a retrieval model, on random sequences as long as those of Amazon Beauty."""
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
    total = sum(measured.parts.values())
    result = {
        "architecture": architecture,
        "parameters": parameter_count(workload.model),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision": precision.value,
        "batch": batch,
        "milliseconds_per_step": round(measured.milliseconds, 2),
        "parts": {name: round(ms / total, 4) for name, ms in measured.parts.items()},
        "operators_ms": {name: round(ms, 3) for name, ms in measured.operators.items()},
    }
    emit(result, as_json, _text(result))


def _text(result: dict) -> str:
    first, second = list(result["parts"])[:2]
    lines = [
        f"A step of {result['architecture']} ({result['parameters'] / 1e6:.2f} M parameters, batch "
        f"{result['batch']}, {result['device']}, {result['threads']} threads) takes "
        f"{result['milliseconds_per_step']:.1f} ms. "
        f"The largest parts are {first} ({result['parts'][first]:.0%}) and {second} "
        f"({result['parts'][second]:.0%}); the data path takes {result['parts']['data path']:.1%}.",
        "",
        *(f"{name:<26}{share:7.1%}" for name, share in result["parts"].items()),
        "",
        "Largest operators, ms per step:",
        *(f"{name.removeprefix('aten::'):<48}{ms:9.2f}" for name, ms in result["operators_ms"].items()),
    ]
    return "\n".join(lines)
