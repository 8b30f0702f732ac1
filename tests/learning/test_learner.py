"""The compiled update: guards, minibatches, masks."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.agents import A2C, DQN, PPO, StreamAC
from rlgrad.rollouts import Rollout
from rlgrad.updates import Ascent

RNG = np.random.default_rng(0)
SPACES = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)


class Simple(rlgrad.Agent):
    """Advantages as they are."""

    num_envs: int = 2
    num_steps: int | None = 8

    def credit(self, batch, now):
        return {"log_prob": batch.advantages, "value": batch.returns - now.value}


def rollout(steps=8, columns=2, **changes):
    shape = (steps, columns)
    filled = Rollout(
        observations=RNG.normal(size=(*shape, 3)).astype(np.float32),
        actions=RNG.integers(2, size=shape),
        rewards=RNG.normal(size=shape).astype(np.float32),
        terminations=np.zeros(shape, bool),
        truncations=np.zeros(shape, bool),
        final_observations=RNG.normal(size=(*shape, 3)).astype(np.float32),
        log_probs=np.zeros(shape, np.float32),
        mask=np.ones(shape, np.float32),
    )
    return filled._replace(**changes)


def learner(agent=None, **options):
    agent = agent or Simple(update=Ascent(optimizer="sgd", learning_rate=0.1))
    return rlgrad.Learner(
        agent, rlgrad.make_policy(*SPACES, hidden_sizes=(8,), seed=0), num_envs=agent.num_envs, **options
    )


def weights(learner):
    return np.concatenate([v.numpy().ravel() for v in learner.variables])


@mostly_slow("xla", [True, False], quick=[False])
def test_a_step_that_is_not_finite_is_not_taken_and_is_named(xla):
    """Under XLA too, where check_numerics and Assert do nothing."""
    learn = learner(Simple(update=Ascent(optimizer="adam", learning_rate=0.1)), xla=xla)
    before = weights(learn)
    bad = rollout()
    bad.rewards[3, 1] = np.inf
    with pytest.raises(
        rlgrad.NonFiniteError, match=r"step 0 .*log_prob \(its credit, .*policy/hidden_1/kernel.*value \("
    ):
        learn.learn(bad, 0.0, [0, 0])
    np.testing.assert_array_equal(weights(learn), before)
    assert int(learn.state.optimizer.iterations) == 0
    learn.learn(rollout(), 0.0, [0, 0])
    assert np.isfinite(weights(learn)).all()
    assert not np.array_equal(weights(learn), before)


def test_the_actor_that_the_program_hands_out_is_the_one_at_the_new_weights():
    for space in (SPACES[1], spaces.Box(-1, 1, (2,))):
        agent = Simple(normalize_observations=True)
        policy = rlgrad.make_policy(SPACES[0], space, normalize_observations=True)
        learn = rlgrad.Learner(agent, policy, num_envs=2)
        actions = RNG.normal(size=(8, 2, 2)).astype(np.float32)
        filled = rollout() if space is SPACES[1] else rollout(actions=actions)
        for _ in range(2):
            learn.learn(filled, 0.0, [0, 0])
        handed, read = (actor(filled.observations[0]) for actor in (learn.actor(), policy.actor()))
        tf.nest.map_structure(np.testing.assert_array_equal, handed, read)


def test_a_rollout_of_another_shape_is_refused():
    learn = learner()
    learn.learn(rollout(), 0.0, [0, 0])
    with pytest.raises(ValueError, match=r"compiled for arrays float32 \(8, 2, 3\), and got float32 \(4, 2, 3\)"):
        learn.learn(rollout(steps=4), 0.0, [0, 0])


@pytest.mark.xla
def test_whether_a_learner_compiles_convolutions_is_its_own_rule():
    picture = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    made = rlgrad.Learner(Simple(), rlgrad.make_policy(picture, SPACES[1]), num_envs=2)
    assert made.xla is bool(tf.config.list_physical_devices("GPU"))
    assert learner().xla
    assert rlgrad.Learner(Simple(), rlgrad.make_policy(picture, SPACES[1]), num_envs=2, xla=True).xla


@pytest.mark.xla
@pytest.mark.parametrize(
    ("agent", "options", "compiled"),
    [
        (Simple(), {"hidden_sizes": (512, 511)}, True),
        (Simple(), {"hidden_sizes": (512, 512)}, False),
        (DQN(), {"hidden_sizes": (512, 512), "action_values": DQN().action_values}, False),
        (StreamAC(num_envs=2), {"hidden_sizes": (512, 512)}, True),
        (Simple(), {"hidden_sizes": (512, 512), "memory": "gru", "memory_size": 4}, True),
    ],
    ids=["smaller", "ascent", "replay", "traces", "memory"],
)
def test_whether_a_learner_compiles_large_weights_is_its_own_rule(agent, options, compiled):
    policy = rlgrad.make_policy(*SPACES, **options)
    made = rlgrad.Learner(agent, policy, num_envs=2)
    assert made.xla is (compiled or bool(tf.config.list_physical_devices("GPU")))


def test_an_output_that_is_not_finite_is_named():
    learn = learner()
    learn.policy.value_network.layers[-1].bias.assign([np.nan])
    with pytest.raises(rlgrad.NonFiniteError, match=r"value \(the output itself"):
        learn.learn(rollout(), 0.0, [0, 0])


def test_training_that_fails_leaves_its_last_checkpoint(tmp_path):
    class Explodes(rlgrad.Agent):
        num_envs: int = 2
        num_steps: int | None = 16

        def credit(self, batch, now):
            return {"log_prob": tf.where(batch.progress > 0.4, np.nan, 1.0), "value": batch.returns - now.value}

    options = {"run_dir": tmp_path / "run", "vectorization_mode": "sync", "verbose": False}
    with pytest.raises(rlgrad.NonFiniteError, match="log_prob"):
        rlgrad.train(Explodes(), "CartPole-v1", total_timesteps=320, **options)
    loaded = rlgrad.load(tmp_path / "run", agent=Explodes(), verbose=False)
    assert loaded.timesteps == 160
    assert all(np.isfinite(w).all() for w in loaded.policy.get_weights())


def test_rows_of_mask_zero_change_neither_weights_nor_metrics():
    """They may hold other observations and actions, and as log-probabilities no numbers."""
    first, second = rollout(), None
    first.mask[5:, 1] = 0
    first.terminations[4, 1] = True
    first.rewards[5:, 1] = 0
    second = first._replace(
        observations=np.where(first.mask[..., None] > 0, first.observations, 0.0).astype(np.float32),
        actions=np.where(first.mask > 0, first.actions, 0),
        log_probs=np.where(first.mask > 0, first.log_probs, np.nan).astype(np.float32),
    )
    learn = learner()
    start = learn.policy.get_weights()
    told = learn.learn(first, 0.0, [0, 0])
    moved = weights(learn)
    learn.policy.set_weights(start)
    assert learn.learn(second, 0.0, [0, 0]) == pytest.approx(told, rel=1e-6), "metrics"
    np.testing.assert_allclose(weights(learn), moved, atol=1e-7, err_msg="weights")


def test_one_pass_of_small_steps_over_minibatches_moves_as_far_as_as_many_steps_on_the_whole():
    """To first order: a minibatch's gradient has the scale of the whole rollout's, and every row is in exactly one."""
    data = rollout()
    moved = {}
    for count in (1, 4):
        learn = learner(Simple(update=Ascent(optimizer="sgd", learning_rate=1e-3, num_minibatches=count)))
        start = weights(learn)
        learn.learn(data, 0.0, [0, 0])
        moved[count] = weights(learn) - start
    assert np.abs(moved[1]).max() > 2e-4
    np.testing.assert_allclose(moved[4], 4 * moved[1], atol=1e-5)


def test_epochs_and_minibatches_run_in_one_program_with_the_same_shuffle_for_the_same_seed():
    update = Ascent(optimizer="adam", learning_rate=0.01, num_epochs=3, num_minibatches=4)
    learn, data, ends = learner(Simple(update=update), xla=True), rollout(), []
    start, slots = learn.policy.get_weights(), [slot.numpy() for slot in learn.state.slots]
    for seed in ([1, 2], [1, 2], [3, 4]):
        learn.policy.set_weights(start)
        for slot, value in zip(learn.state.slots, slots, strict=True):
            slot.assign(value)
        learn.learn(data, 0.0, seed)
        assert int(learn.state.optimizer.iterations) == 12
        ends.append(weights(learn))
    assert learn.traces == 1
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


@mostly_slow(
    "agent",
    {
        "a2c": A2C(scale_rewards=True, normalize_observations=True),
        "ppo": PPO(value_clip="sb3", update=Ascent(learning_rate=1e-3, num_epochs=2, num_minibatches=4)),
    },
)
def test_an_update_through_xla_is_that_of_the_plain_graph(agent):
    """Which is why most other tests may run as plain graphs."""
    agent, ends, data = dataclasses.replace(agent, num_envs=2, num_steps=8), [], rollout()
    for xla in (True, False):
        policy = rlgrad.make_policy(
            *SPACES, hidden_sizes=(8,), seed=0, normalize_observations=agent.normalize_observations
        )
        learn = rlgrad.Learner(agent, policy, num_envs=2, xla=xla)
        metrics = [learn.learn(data, 0.5, [i, 2]) for i in range(3)]
        ends.append((np.concatenate([w.ravel() for w in policy.get_weights()]), metrics))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(ends[0][1], ends[1][1], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_a_bad_minibatch_stops_the_steps_after_it():
    update = Ascent(optimizer="sgd", learning_rate=0.01, num_epochs=2, num_minibatches=4)
    learn = learner(Simple(gae_lambda=0.0, update=update))
    bad = rollout()
    bad.rewards[0, 0] = np.nan
    with pytest.raises(rlgrad.NonFiniteError):
        learn.learn(bad, 0.0, [1, 2])
    assert int(learn.state.optimizer.iterations) < 4
    assert np.isfinite(weights(learn)).all()


def test_minibatches_that_do_not_divide_the_rollout_are_refused():
    learn = learner(Simple(update=Ascent(num_minibatches=3)))
    with pytest.raises(ValueError, match="does not divide the 16 steps"):
        learn.learn(rollout(), 0.0, [0, 0])


def test_the_linear_schedule_follows_progress():
    learn = learner(Simple(update=Ascent(learning_rate=0.5, learning_rate_schedule="linear")))
    assert learn.learn(rollout(), 0.0, [0, 0])["learning_rate"] == pytest.approx(0.5)
    assert learn.learn(rollout(), 0.75, [0, 0])["learning_rate"] == pytest.approx(0.125)


def test_an_agent_without_a_value_output_needs_whole_episodes():
    class NoValue(Simple):
        def credit(self, batch, now):
            return {"log_prob": batch.advantages}

    with pytest.raises(ValueError, match="collect whole episodes"):
        learner(NoValue())
    assert learner(dataclasses.replace(NoValue(), num_steps=None)).credited == ("log_prob",)


@pytest.mark.xla
def test_a_model_that_xla_cannot_compile_trains_as_a_plain_graph(caplog):
    class Eager(keras.layers.Layer):
        def call(self, x):
            out = tf.py_function(lambda y: y, [x], tf.float32)
            return x + 0.0 * tf.stop_gradient(tf.ensure_shape(out, x.shape))

    model = keras.Sequential([keras.Input((3,)), Eager(), keras.layers.Dense(2)])
    agent = Simple()
    learn = rlgrad.Learner(agent, rlgrad.make_policy(*SPACES, model=model), num_envs=2)
    learn.learn(rollout(), 0.0, [0, 0])
    assert learn.xla is False
    assert "plain graph" in caplog.text


def test_an_output_whose_weights_are_all_frozen_is_left_as_it_is():
    value = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    value.trainable = False
    policy = rlgrad.make_policy(*SPACES, hidden_sizes=(8,), value_model=value)
    learn = rlgrad.Learner(Simple(), policy, num_envs=2)
    before = value.get_weights()
    learn.learn(rollout(), 0.0, [0, 0])
    assert [v.path for v in learn.variables] == [v.path for v in policy.network.trainable_variables]
    for a, b in zip(value.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
