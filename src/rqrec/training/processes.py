"""The processes that train one model together: `accelerate launch --num_processes 2 train_decoder.py ...`."""

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed.nn  # before there is a group: defaults of its functions would hold the group for ever
from accelerate import PartialState
from accelerate.utils import slice_tensors

from rqrec.core.progress import console, log

T = TypeVar("T")
TIMEOUT = timedelta(hours=24)  # of collectives: the others wait while the first process prepares the data


@dataclass(frozen=True)
class Processes:
    """This process, one of `count`. Only the first process writes files and shows progress."""

    rank: int
    """The index of this process, from 0."""
    count: int
    """The number of processes."""
    device: torch.device
    """The device of this process."""
    shards: bool = False
    """Whether the launcher asked for sharded models (FSDP)."""

    @classmethod
    def join(cls) -> "Processes":
        """Join the processes that the launcher started; without a launcher there is only one."""
        _warn_if_launched_as_one()
        # On a machine without accelerators, accelerate uses the gloo backend only if ACCELERATE_USE_CPU is set.
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        cpu = several and not torch.cuda.is_available() and not torch.xpu.is_available()
        if cpu:
            os.environ["ACCELERATE_USE_CPU"] = "true"
        state = PartialState(cpu=cpu, timeout=TIMEOUT)
        if several:
            # A process that ends while it still holds gloo's connections can end with a failure.
            atexit.unregister(_leave)
            atexit.register(_leave)
        shards = several and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        joined = cls(state.process_index, state.num_processes, state.device, shards)
        console.quiet = not joined.is_first
        return joined

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    @property
    def numbers(self) -> dict[str, int]:
        """The numbers of processes and of threads per process, which change the last digits of what is trained."""
        return {"processes": self.count, "threads": torch.get_num_threads()}

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process only (it may write files), and return its result in every process."""
        if self.count == 1:
            return make()
        made: list[Any] = [make() if self.is_first else None]
        torch.distributed.broadcast_object_list(made)
        return made[0]

    def wait(self) -> None:
        """Wait until every process has called this."""
        PartialState().wait_for_everyone()

    def global_batch_size(self, batch_size: int, *, split_batches: bool) -> int:
        """Rows per batch over all processes: `batch_size` if it is split among them, else that many for each."""
        return batch_size if split_batches else batch_size * self.count

    def share(self, batch: Any) -> Any | None:
        """Rows rank, rank + count, ... of a batch (a tensor or a tuple of tensors); None if there are none."""
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


def _leave() -> None:
    """Close the connections to the other processes."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _warn_if_launched_as_one() -> None:
    """Warn if `accelerate launch --num_processes 2` started one process, as it does silently without two GPUs."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    parent = psutil.Process().parent()
    command = [] if parent is None else parent.cmdline()
    requested = [right for left, right in pairwise(command) if left == "--num_processes"]
    if requested and requested[0] not in ("0", "1"):
        log(
            f"accelerate launch was asked for {requested[0]} processes but started one, because it found fewer "
            f"GPUs. Add --multi_gpu, which also works on CPUs, or use torchrun --nproc_per_node {requested[0]}."
        )
