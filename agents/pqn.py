"""PQN: Q(λ) on rollouts of many environments, with neither a replay nor target weights.

Along each rollout, with the value of a state v(s) = max_a q(s)[a]:

    G_t = r_t + γ (1 − term_t) [(1 − λ) v(s_t+1) + λ G_t+1]

where at the rollout's end, and where time ran out, G_t+1 is v(s_t+1).
G is a target for q of the action that was taken, also where that action was a random one: it is Peng's Q(λ), which λ = 0 makes
one-step Q-learning. As credits, positive raising the output:

    on ∇ q(s_t)[a_t]    G_t − q(s_t)[a_t]

Several passes are made over each rollout. What the replay and the copies do for DQN, layer normalization and many environments
do here: use `layer_norm: true`.

Where it fails: rewards that a random walk does not meet within a rollout (MountainCar), and few environments, whose steps are
too much alike.

Source: Gallici et al. (2024), "Simplifying deep temporal difference learning".
"""

from rlgrad import Agent, Batch, Credit, Exploration, Linear, Outputs, search
from rlgrad.updates import Ascent, Update


class PQN(Agent):
    """Parallelized Q-network."""

    gae_lambda: float = 0.65
    """λ of the returns: 0 trusts the next state's value, 1 the sampled rewards."""
    num_envs: int = 32
    """Environments stepped side by side."""
    exploration: Exploration = Exploration(random=Linear(start=1.0, end=0.05, over=0.2))
    """How acting for training differs from the policy."""
    update: Update = Ascent(learning_rate=5e-4, max_grad_norm=10.0, num_epochs=4, num_minibatches=8)
    """How the weights move."""

    def credit(self, batch: Batch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        return {"q": batch.returns - now.q}

    def search_space(self) -> search.Space:
        """Return the ranges of every agent, and choices for the length of rollouts and the passes over each."""
        passes = {"update.num_epochs": [1, 2, 4], "update.num_minibatches": [4, 8, 16]}
        return {**super().search_space(), "num_steps": [16, 32, 64, 128], **passes}
