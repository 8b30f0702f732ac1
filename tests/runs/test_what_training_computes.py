"""What training computes, computed in another way: by hand, by a tape, by the other actor."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from helpers.quick import QUICK

import rlgrad
from rlgrad import gradients
from rlgrad.agents import Reinforce
from rlgrad.gradients import Entropy, LogProb
from rlgrad.updates import Ascent

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


@pytest.mark.slow
@pytest.mark.xla
def test_both_actors_learn_the_same_weights_from_the_same_rollout(tmp_path):
    def build(name):
        x = keras.Input((4,))
        h = keras.layers.Dense(16, "tanh", kernel_initializer=keras.initializers.Orthogonal(seed=0))(x)
        h = h if name == "numpy" else keras.ops.add(h, 0.0)
        return keras.Model(x, keras.layers.Dense(2, kernel_initializer=keras.initializers.Orthogonal(seed=1))(h))

    runs = []
    for name in ("numpy", "xla"):
        options = QUICK | {"total_timesteps": 128, "evaluation_episodes": 0, "model": build(name)}
        runs.append(rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / name, **options))
        assert yaml.safe_load((tmp_path / name / "config.yaml").read_text())["resolved"]["actor"] == name
    assert runs[0].updates == 1
    for one, other in zip(*(run.policy.network.get_weights() for run in runs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_three_pieces_by_hand_end_with_the_weights_of_train(tmp_path):
    class Thrice(rlgrad.Callback):
        def on_update(self, run, metrics):
            run.stop = run.updates == 3

    agent = Reinforce(baseline="none", num_envs=4, episodes_per_env=2, update=Ascent(learning_rate=3e-3))
    quiet = {"total_timesteps": 10_000, "evaluation_episodes": 0, "verbose": False}
    run = rlgrad.train(agent, "CartPole-v1", callbacks=[Thrice()], **quiet)

    collector = rlgrad.GymCollector("CartPole-v1", num_envs=4, episodes_per_env=2, seed=0)
    policy = rlgrad.make_policy(collector.observation_space, collector.action_space, value=False, seed=0)
    ascent = Ascent(learning_rate=3e-3).build(policy.trainable_variables)
    for _ in range(3):
        rollout = collector.collect(policy)
        ends = rollout.terminations | rollout.truncations
        returns = rlgrad.estimators.reward_to_go(rollout.rewards, ends, gamma=0.99)
        credit = returns * rollout.mask / rollout.mask.shape[1]
        score = gradients.gradient(policy, rollout.observations, output=LogProb(rollout.actions), sample_weight=credit)
        ascent.apply_gradient(score)
    for mine, theirs in zip(policy.trainable_variables, run.policy.trainable_variables, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


def test_the_credit_gradient_equals_the_gradient_of_the_surrogate_loss():
    """The other way to compute the same thing, written with a stop-gradient in each place that needs one."""
    collector = rlgrad.GymCollector("CartPole-v1", num_envs=3, num_steps=20, seed=1)
    policy = rlgrad.make_policy(collector.observation_space, collector.action_space, seed=1)
    rollout = collector.collect(policy)
    observations, actions = rollout.observations.reshape(60, 4), rollout.actions.reshape(60)
    rng = np.random.default_rng(0)
    advantages, returns = rng.normal(size=(2, 60)).astype(np.float32)
    outputs = {"log_prob": LogProb(actions), "entropy": Entropy(), "value": "value"}
    lin = gradients.linearize(policy, observations, output=outputs)
    credit = {
        "log_prob": advantages,
        "entropy": np.full(60, 0.01, np.float32),
        "value": 0.5 * (returns - lin.outputs["value"]),
    }
    got = lin.gradient(credit)
    with tf.GradientTape() as tape:
        heads = policy(observations)
        log_probs = tf.nn.log_softmax(heads["policy"])
        chosen = tf.gather(log_probs, actions, batch_dims=1)
        entropy = -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1)
        loss = -tf.reduce_sum(advantages * chosen + 0.01 * entropy - 0.25 * tf.square(returns - heads["value"]))
    expected = tape.gradient(loss, [v.value for v in policy.trainable_variables])
    for g, e in zip(got.values(), expected, strict=True):
        np.testing.assert_allclose(g, -e, rtol=1e-4, atol=1e-5)


def test_the_policy_is_frozen_from_acting_to_the_update_so_that_the_ratio_is_one():
    agent = Reinforce(num_envs=3, num_steps=16, normalize_observations=True)
    run = rlgrad.train(agent, "CartPole-v1", **QUICK | {"num_envs": 3, "num_steps": 16, "evaluation_episodes": 0})
    rollout = run.collector.collect(run.policy)
    assert float(run.policy.preparation.normalizers[0].count) == run.timesteps
    now = gradients.linearize(run.policy, rollout.observations, output=LogProb(rollout.actions)).outputs
    np.testing.assert_allclose(np.exp(now - rollout.log_probs), 1.0, atol=1e-5)


def test_only_weights_that_a_credited_output_depends_on_are_trained():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    value = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    agent = Reinforce(baseline="none")
    run = rlgrad.train(
        agent, "CartPole-v1", model=model, value_model=value, total_timesteps=300, evaluation_episodes=0, verbose=False
    )
    assert [v.path for v in run.learner.variables] == [v.path for v in model.trainable_variables]


def test_weights_that_a_callback_changes_or_a_checkpoint_brings_are_acted_on(tmp_path):
    class Meddles(rlgrad.Callback):
        seen = ()

        def on_update(self, run, metrics):
            run.policy.network.layers[-1].bias.assign([0.0, 50.0])

    run = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "a", callbacks=[Meddles()], **QUICK)
    collect, actions = run.collector.collect, []

    def watched(*arguments, **options):
        rollout = collect(*arguments, **options)
        actions.append(rollout.actions)
        return rollout

    run.collector.collect = watched
    run.train(2048)
    assert all((part == 1).all() for part in actions)  # each update is a logged row, so each follows a change
    run.policy.network.layers[-1].bias.assign([50.0, 0.0])
    run.save()
    run.policy.network.layers[-1].bias.assign([0.0, 50.0])
    run.restore()
    actions.clear()
    run.callbacks.clear()
    run.train(2048 + 128)
    assert (actions[0] == 0).all()
