"""BC, behavior cloning: make the recorded actions likelier.

Every recorded step counts the same, so the credit is a constant:

    on ∇ log π(a|s)    1

That is maximum likelihood: cross-entropy of Discrete actions, and least squares, weighted by 1/σ², of continuous ones.
Rewards are not read.

Where it fails: a policy that errs comes to states that were not recorded, where it errs more; and it is as good as whoever
acted, at best, the mean of them where several acted differently.

Source: Pomerleau (1991), "Efficient training of artificial neural networks for autonomous navigation".
"""

from typing import ClassVar

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayAgent, ReplayBatch
from rlgrad.replay import Replay
from rlgrad.updates import Ascent, Update


class BC(ReplayAgent):
    """Behavior cloning."""

    needs_data: ClassVar[bool] = True

    replay: Replay | None = Replay(batch_size=256)
    """Recorded steps (`replay.data`), from which batches are drawn."""
    update: Update = Ascent(learning_rate=1e-3)
    """How the weights move."""

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        return {"log_prob": 1.0}

    def measure(self, batch: ReplayBatch, now: Outputs) -> dict[str, tf.Tensor]:
        """Return the log-likelihood of the recorded actions, in nats."""
        return {"log_likelihood": now.log_prob}
