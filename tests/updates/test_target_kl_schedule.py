"""How long the steps of the natural gradient and of the trust region are, as a run goes on."""

import numpy as np
import pytest
from gymnasium import spaces
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.rollouts import Rollout
from rlgrad.updates import Ascent, NaturalGradient, PerHead, TrustRegion

SPACES = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)


class Simple(rlgrad.Agent):
    """Advantages as they are."""

    num_envs: int = 2
    num_steps: int | None = 8

    def credit(self, batch, now):
        return {"log_prob": batch.advantages, "value": batch.returns - now.value}


def rollout():
    rng, shape = np.random.default_rng(0), (8, 2)
    return Rollout(
        observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        actions=rng.integers(2, size=shape),
        rewards=rng.normal(size=shape).astype(np.float32),
        terminations=np.zeros(shape, bool),
        truncations=np.zeros(shape, bool),
        final_observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        log_probs=np.full(shape, np.log(0.5), np.float32),
        mask=np.ones(shape, np.float32),
        values=np.zeros(shape, np.float32),
        next_values=np.zeros(shape, np.float32),
    )


def learn(update, *progresses):
    """The metrics of one update from the same weights at each share of the run."""
    agent = Simple(update=PerHead(policy=update, value=Ascent()))
    policy = rlgrad.make_policy(*SPACES, hidden_sizes=(8,), seed=0)
    learner, weights, metrics = rlgrad.Learner(agent, policy, num_envs=2), policy.get_weights(), []
    for progress in progresses:
        policy.set_weights(weights)
        metrics.append(learner.learn(rollout(), progress, [0, 0]))
    return metrics


@mostly_slow("kind", [NaturalGradient, TrustRegion])
def test_the_divergence_of_a_step_falls_linearly_to_zero_with_the_schedule(kind):
    """A quarter of the run left, so a quarter of the divergence and half of the step, which is the divergence's root."""
    (constant,) = learn(kind(target_kl=0.001), 0.75)
    linear, at_the_start = learn(kind(target_kl=0.001, target_kl_schedule="linear"), 0.75, 0.0)
    assert linear["step_size"] == pytest.approx(0.5 * constant["step_size"], rel=1e-4)
    assert linear["kl"] <= 0.00025 * 1.05
    assert at_the_start["step_size"] == pytest.approx(constant["step_size"], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate_schedule": "linear"}, "learning_rate_schedule needs a learning_rate"),
        (
            {"target_kl": None, "learning_rate": 0.1, "target_kl_schedule": "linear"},
            "target_kl_schedule needs a target_kl",
        ),
    ],
)
def test_a_schedule_of_what_does_not_decide_the_step_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NaturalGradient(**settings)
