"""Search for better hyper-parameters: `tune` trains many short runs, and writes the best as a config."""

from rlgrad.tuning.studies import Measure, Study, Trial
from rlgrad.tuning.trials import declared, tune

__all__ = ["Measure", "Study", "Trial", "declared", "tune"]
