"""Hyper-parameters that change while a run goes on, as functions of the share of it that is done."""

from typing import Any, Literal

Schedule = Literal["constant", "linear"]


def scheduled(value: Any, schedule: Schedule, progress: Any) -> Any:
    """`value`, or with `"linear"` value · (1 − progress), which is 0 at the end of training.

    Args:
        value: at the start.
        schedule: how it goes on.
        progress: share of the run's environment steps already taken, 0 … 1: `batch.progress`.
    """
    return value * (1.0 - progress) if schedule == "linear" else value
