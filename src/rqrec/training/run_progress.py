"""How far a training run is, in steps or in time: the basis of every schedule."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunProgress:
    """How far a training run is."""

    step: int
    """Number of optimizer steps so far."""
    iterations: int
    """Number of optimizer steps of the whole run."""
    spent: float = 0.0
    """The fraction of the time limit that has passed; 0 without a limit."""

    @property
    def scheduled_step(self) -> float:
        """The step that schedules follow: `step`, or the time's fraction of `iterations` if that is ahead."""
        return max(float(self.step), min(1.0, self.spent) * self.iterations)

    @property
    def fraction(self) -> float:
        """The fraction of the run that has passed, 0 to 1: that of its steps, or of its time if that is ahead."""
        return min(1.0, self.scheduled_step / self.iterations)
