"""How many steps a training takes, counted in passes over the data."""

from dataclasses import replace

from rqrec.training.loop_config import LoopConfig


def scheduled(loop: LoopConfig, epochs: int, validations: int, steps_per_epoch: int) -> LoopConfig:
    """The loop's settings for this many passes over the training data and validations (0: those of `loop`).

    At least `loop.iterations` steps are taken, and the warm-up takes at most a tenth of them.
    """
    if epochs:
        iterations = max(epochs * steps_per_epoch, loop.iterations)
        loop = replace(loop, iterations=iterations, warmup=min(loop.warmup, iterations // 10))
    if validations:
        loop = replace(loop, full_eval_every=max(loop.iterations // validations, 1))
    return loop
