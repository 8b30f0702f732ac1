"""Rows spread over learners: the sums of their gradients are the gradient of all rows, added in rank order."""

import os

import cloudpickle
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow
from numpy.testing import assert_allclose, assert_array_equal

import rlgrad
from rlgrad.agents import A2C, DQN, IMPALA, NPG, PPO, TRPO, Reinforce, StreamQ
from rlgrad.distributed.share import Share
from rlgrad.gradients import Output
from rlgrad.learning.spreading import Spread, SpreadLinearization
from rlgrad.rollouts import GymCollector
from rlgrad.updates import Ascent, PerHead, Update

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
# TensorFlow has a thread for each core, and one of them waits in the program that asks the learners.
pytestmark = pytest.mark.skipif(CORES < 2, reason="learners in one process compute while its program waits: two cores")

FEW = Ascent(learning_rate=1e-2, max_grad_norm=0.5, num_epochs=2, num_minibatches=2)


class Here:
    """Learners in this process, each of which was given what crosses to another one."""

    def __init__(self, count, disturb=lambda rank, gradients: gradients):
        self.count, self.disturb, self.rows = count, disturb, []

    def serve(self, linearize, policy):
        self.shares = [Share(cloudpickle.dumps((linearize, policy, "CPU:0"))) for _ in range(self.count - 1)]

    def begin(self, asked, weights, shares):
        self.rows.append([len(rows[0]) for rows in shares])
        self.found = [share.outputs(asked, weights, rows) for share, rows in zip(self.shares, shares, strict=True)]

    def outputs(self):
        return self.found

    def gradients(self, names, credits):
        found = [share.gradient(names, part) for share, part in zip(self.shares, credits, strict=True)]
        return [self.disturb(rank, gradients) for rank, gradients in enumerate(found)]

    def close(self):
        self.closed = True


def learner(agent, env, ranks=None, **options):
    own = {"num_steps": agent.num_steps} if agent.num_steps else {"episodes_per_env": 1, "max_episode_steps": 12}
    collector = GymCollector(env, num_envs=agent.num_envs, seed=1, vectorization_mode="sync", **own)
    box = collector.observation_space, collector.action_space
    policy = rlgrad.make_policy(
        *box,
        seed=0,
        normalize_observations=agent.normalize_observations,
        scalars=agent.scalars,
        **{"hidden_sizes": (8,), **options},
    )
    return rlgrad.Learner(agent, policy, num_envs=agent.num_envs, ranks=ranks, xla=False), collector


def learned(agent, env, ranks=None, updates=2, **options):
    """The weights and the metrics after some updates, of the same rollouts whatever the learners."""
    learn, collector = learner(agent, env, ranks, **options)
    for i in range(updates):
        rollout = collector.collect(learn.policy)
        metrics = learn.learn(rollout, 0.1 * i, np.array([i, 2], np.int32))
    return [v.numpy() for v in (*learn.policy.variables, *learn.state.slots)], metrics


class Extra(rlgrad.Agent):
    """Credits logits, a scalar and an output of its own."""

    num_envs: int = 2
    num_steps: int | None = 9
    scalars = {"shift": 0.5}
    outputs = {"square": Output.of(lambda heads: tf.square(heads["value"]))}

    def credit(self, batch, now):
        logits = -now.logits * batch.advantages[:, None]
        return {"logits": logits, "value": batch.returns - now.value, "shift": 1.0 - now.shift, "square": -0.1}


SMALL = {"num_envs": 2}
KINDS = {
    "a2c": (A2C(num_steps=7, **SMALL), "CartPole-v1", {}),
    "ppo": (PPO(num_steps=8, update=FEW, **SMALL), "CartPole-v1", {}),
    "target_kl": (PPO(num_steps=8, update=Ascent(num_epochs=4, target_kl=1e-5), **SMALL), "CartPole-v1", {}),
    "gaussian": (PPO(num_steps=8, update=FEW, normalize_observations=True, **SMALL), "Pendulum-v1", {}),
    "impala": (IMPALA(num_steps=6, **SMALL), "Acrobot-v1", {}),
    "whole episodes": (
        Reinforce(baseline="value", update=PerHead(value=Ascent(num_epochs=2)), **SMALL),
        "CartPole-v1",
        {},
    ),
    "recurrent": (PPO(num_envs=6, num_steps=5, update=FEW), "CartPole-v1", {"memory": "gru", "memory_size": 4}),
    "own outputs": (Extra(), "CartPole-v1", {}),
}


@mostly_slow(
    "kind, count",
    {f"{kind} {count}": (kind, count) for kind in KINDS for count in (2, 3)},
    quick=["ppo 2", "a2c 3"],
)
def test_several_learners_are_one_to_rounding(kind, count):
    agent, env, options = KINDS[kind]
    one, measured = learned(agent, env, **options)
    ranks = Here(count)
    several, found = learned(agent, env, ranks, **options)
    for some, all_rows in zip(several, one, strict=True):
        assert_allclose(some, all_rows, rtol=0, atol=1e-5 * max(np.abs(all_rows).max(), 1e-9))
    assert found.keys() == measured.keys()
    assert_allclose([*found.values()], [*measured.values()], rtol=1e-3, atol=1e-5)
    assert len(ranks.rows) >= 2
    assert all(sum(rows) for rows in ranks.rows)


@pytest.mark.parametrize(("gradients", "total"), [((1e8, 1.0, -1e8), 0.0), ((1e8, -1e8, 1.0), 1.0)])
def test_gradients_are_added_in_rank_order(gradients, total):
    """Of single precision 1e8 + 1 is 1e8."""
    own, *others = (np.float32([g]) for g in gradients)

    class Ranks(Here):
        def gradients(self, names, credits):
            assert [len(part[0]) for part in credits] == [2, 2]
            return [[g] for g in others]

    class Own:
        def gradient(self, credit):
            assert_array_equal(credit["value"], [0.0])
            return {"w": tf.constant(own)}

    agent = A2C(num_envs=1)
    policy = rlgrad.make_policy(spaces.Box(-1, 1, (1,)), spaces.Discrete(2), hidden_sizes=())
    spread = SpreadLinearization(Spread(agent, policy, Ranks(3)), Own(), [0, 1, 3, 5])
    assert spread.gradient({"value": tf.range(5.0)})["w"].numpy() == [total]
    with pytest.raises(AttributeError, match="add up gradients alone, and an update asks for 'gram'"):
        spread.gram()


def test_a_step_of_fewer_rows_than_learners_is_refused():
    with pytest.raises(
        ValueError, match="learns from 2 rows, too few for 3 learners: lower learners or num_minibatches"
    ):
        learned(PPO(num_envs=1, num_steps=4, update=FEW), "CartPole-v1", Here(3))


def test_what_fails_in_another_learner_is_raised_as_it_is():
    class Failing(Here):
        def outputs(self):
            raise KeyError("of a learner")

    with pytest.raises(KeyError, match="of a learner"):
        learned(A2C(num_envs=1), "CartPole-v1", Failing(2))


class Own(Update):
    """Asks for a gradient alone, and does not say so."""

    def apply(self, objective, state, seed):
        return objective.gradient()[1] | {"nonfinite_step": tf.constant(-1)}


class Saying(Own):
    @property
    def needs_only_gradients(self):
        return True


class Depends(A2C):
    def outputs(self, batch):
        return {"chosen": rlgrad.gradients.LogProb(batch.actions)}


def test_agents_whose_gradients_cannot_be_added_are_refused_and_why():
    def refused(agent, env="CartPole-v1"):
        with pytest.raises(ValueError, match="leave learners out") as error:
            learner(
                agent, env, Here(2), action_values=agent.action_values if isinstance(agent, DQN | StreamQ) else None
            )
        return str(error.value)

    assert "NaturalGradient asks for more than these" in refused(NPG())
    assert "TrustRegion asks for more than these" in refused(TRPO())
    assert "DQN learns from small batches of a replay" in refused(DQN())
    assert "StreamQ learns from each step as it comes" in refused(StreamQ(), "CartPole-v1")
    assert "Depends.outputs depends on the batch" in refused(Depends())
    assert "says so by needs_only_gradients" in refused(A2C(update=Own()))
    learned(A2C(update=Saying(), num_envs=2), "CartPole-v1", Here(2), updates=1)
