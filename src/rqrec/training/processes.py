"""One process or several that train one model: `accelerate launch --num_processes 2 train_decoder.py ...`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import slice_tensors

from rqrec.core.progress import console, log

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=24)  # while the first process prepares the data


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `count`, on `device`. Only the first one writes and shows progress.

    `shards`: the launcher was told to divide models among the processes (FSDP).
    """

    rank: int
    count: int
    device: torch.device
    shards: bool = False

    @classmethod
    def join(cls) -> "Processes":
        """Meet the other processes that the launcher started; alone where it did not."""
        _tell_of_a_launch_that_starts_one()
        # Processes of a machine without accelerators talk through gloo: accelerate wants to be told so.
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        cpu = several and not torch.cuda.is_available() and not torch.xpu.is_available()
        if cpu:
            os.environ["ACCELERATE_USE_CPU"] = "true"
        state = PartialState(cpu=cpu, timeout=LONGEST_WAIT)
        shards = several and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        joined = cls(state.process_index, state.num_processes, state.device, shards)
        console.quiet = not joined.is_first
        return joined

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process, which alone calls it (it may write files), for all."""
        if self.count == 1:
            return make()
        made: list[Any] = [make() if self.is_first else None]
        torch.distributed.broadcast_object_list(made)
        return made[0]

    def wait(self) -> None:
        """Go on when every process has come here."""
        PartialState().wait_for_everyone()

    def global_batch_size(self, batch_size: int, *, split_batches: bool) -> int:
        """Rows of an optimizer step over all processes: `batch_size` is that, or that of each process."""
        return batch_size if split_batches else batch_size * self.count

    def share(self, batch: Any) -> Any | None:
        """Rows rank, rank + count, ... of a batch (a tensor or a tuple of them); None where that is no row."""
        if self.count == 1:
            return batch
        rows = len(batch[0]) if isinstance(batch, tuple) else len(batch)
        return slice_tensors(batch, slice(self.rank, None, self.count)) if self.rank < rows else None

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.count == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return summed.tolist()


def _tell_of_a_launch_that_starts_one() -> None:
    """`accelerate launch --num_processes 2` starts one process where it finds no two GPUs, and says nothing."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    parent = psutil.Process().parent()
    command = [] if parent is None else parent.cmdline()
    asked = [right for left, right in pairwise(command) if left == "--num_processes"]
    if asked and asked[0] not in ("0", "1"):
        log(
            f"accelerate launch was asked for {asked[0]} processes and started one, as it does without as many "
            f"GPUs. Add --multi_gpu, which also works on CPUs, or use torchrun --nproc_per_node {asked[0]}."
        )
