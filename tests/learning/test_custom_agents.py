"""Agents written outside of the package, in a few lines each: they lack nothing that a shipped one has."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import learned, literal_rollout, policy_of

import rlgrad
from rlgrad import estimators
from rlgrad.agents import A2C, PPO, Reinforce
from rlgrad.metrics import read_csv
from rlgrad.updates import Ascent

STEPS = Ascent(learning_rate=0.02, num_epochs=3, num_minibatches=2)


class MyReinforce(rlgrad.Agent):
    num_steps: int | None = None

    def credit(self, batch, now):
        return {"log_prob": batch.returns}


class MyPPO(rlgrad.Agent):
    """PPO with another clip above than below."""

    clip_below: float = 0.2
    clip_above: float = 0.2
    update: Ascent = STEPS

    def credit(self, batch, now):
        advantages = estimators.standardize(batch.advantages, batch.weights)
        ratio = tf.exp(now.log_prob - batch.log_probs)
        flat = tf.where(advantages > 0, ratio > 1 + self.clip_above, ratio < 1 - self.clip_below)
        return {"log_prob": tf.where(flat, 0.0, advantages * ratio), "value": batch.returns - now.value}


def weights_after(agent, **changes):
    policy = policy_of("discrete", value=agent != MyReinforce())
    learned(agent, policy, literal_rollout_of(policy)._replace(**changes))
    return [v.numpy() for v in policy.network.trainable_variables]


def literal_rollout_of(policy):
    if policy.value_network is not None:
        return literal_rollout(policy)
    return literal_rollout(policy_of("discrete"))


def test_reinforce_in_two_lines_is_the_shipped_one_without_a_baseline():
    mine, theirs = weights_after(MyReinforce()), weights_after(Reinforce(baseline="none", update=Ascent()))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ppo_in_four_lines_is_the_shipped_one_and_its_twist_another():
    mine, theirs, twisted = (weights_after(a) for a in (MyPPO(), PPO(update=STEPS), MyPPO(clip_above=0.01)))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert max(np.abs(a - b).max() for a, b in zip(mine, twisted, strict=True)) > 1e-4


class RewardModel(A2C):
    """A2C that also learns to foretell the reward's sign with a head of its own model, and says how well."""

    outputs = {"aux": "aux"}
    num_envs: int = 2
    update: Ascent = Ascent(optimizer="sgd", learning_rate=0.1)

    def credit(self, batch, now):
        return super().credit(batch, now) | {"aux": batch.td_errors - now.aux}

    def measure(self, batch, now):
        return {"aux_error": tf.square(batch.td_errors - now.aux), "constant": 3.0}


def model_with_aux():
    x = keras.Input((2,))
    h = keras.layers.Dense(4, "tanh", name="trunk")(x)
    heads = {name: keras.layers.Dense(units, name=name)(h) for name, units in (("policy", 3), ("value", 1), ("aux", 1))}
    return keras.Model(x, heads)


def aux_policy():
    policy = policy_of("discrete")
    return policy, policy_of("discrete", model=model_with_aux())


def test_an_output_of_the_agents_own_moves_by_its_credit():
    """A linear head by plain ascent: Δ kernel = rate · Σ w (δ − aux) h, with h and aux from Keras itself."""
    original, policy = aux_policy()
    rollout = literal_rollout(original)
    x = rollout.observations.reshape(-1, 2)
    model = policy.network
    h, before = model.get_layer("trunk")(x).numpy(), model.get_layer("aux").kernel.numpy()
    heads, after = model(x), model(rollout.final_observations.reshape(-1, 2))
    v, v_next = heads["value"].numpy()[:, 0], after["value"].numpy()[:, 0]
    delta = rollout.rewards.ravel() + 0.99 * (1 - rollout.terminations.ravel()) * v_next - v
    error = delta - heads["aux"].numpy()[:, 0]
    w = rollout.mask.ravel() / rollout.mask.sum()
    metrics = learned(RewardModel(), policy, rollout)
    np.testing.assert_allclose(model.get_layer("aux").kernel - before, 0.1 * (h.T @ (w * error))[:, None], atol=1e-6)
    assert metrics["aux_error"] == pytest.approx((w * error**2).sum(), rel=1e-4)
    assert metrics["constant"] == pytest.approx(3.0)


def test_an_output_that_is_only_looked_at_moves_nothing():
    class Looks(RewardModel):
        def credit(self, batch, now):
            return A2C.credit(self, batch, now)

    original, policy = aux_policy()
    before = policy.network.get_layer("aux").kernel.numpy()
    metrics = learned(Looks(), policy, literal_rollout(original))
    np.testing.assert_array_equal(policy.network.get_layer("aux").kernel, before)
    assert metrics["aux_error"] > 0


def test_an_output_may_be_a_function_of_what_the_model_returns():
    class Sharpness(A2C):
        outputs = {"spread": lambda heads: tf.math.reduce_std(heads["policy"], axis=-1)}

        def credit(self, batch, now):
            return {"log_prob": 0.0, "value": 0.0, "spread": -1.0}

    policy = policy_of("discrete")
    x = literal_rollout(policy).observations
    before = np.std(policy(x)["policy"], axis=-1).mean()
    learned(Sharpness(update=Ascent(optimizer="sgd", learning_rate=0.1)), policy, literal_rollout(policy))
    assert np.std(policy(x)["policy"], axis=-1).mean() < before


def test_measures_are_means_over_the_steps_of_an_update_and_over_rows_that_count():
    """Rows of weight 0 hold NaN here; the second number is the minibatch's number of rows, 4 of 8."""

    class Counts(PPO):
        def measure(self, batch, now):
            held = tf.where(batch.weights > 0, 2.0, np.nan)
            return {"held": held, "size": tf.cast(tf.shape(batch.weights)[0], tf.float32)}

    policy = policy_of("discrete")
    metrics = learned(Counts(update=STEPS), policy, literal_rollout(policy))
    assert metrics["held"] == pytest.approx(2.0)
    assert metrics["size"] == pytest.approx(4.0)


@pytest.mark.parametrize("name", ["entropy", "gradient_norm", "explained_variance", "return", "nonfinite_step"])
def test_a_metric_whose_name_is_taken_is_refused(name):
    mine = type("Mine", (A2C,), {"measure": lambda self, batch, now: {name: 1.0}})
    with pytest.raises(ValueError, match=f"measure returns '{name}', which is logged already"):
        rlgrad.Learner(mine(), policy_of("discrete"), num_envs=8)


def test_a_model_without_the_agents_head_is_refused_with_the_heads_that_it_has():
    with pytest.raises(ValueError, match=r"'aux'.*policy.*value"):
        rlgrad.Learner(RewardModel(), policy_of("discrete"), num_envs=2)


def test_a_run_logs_what_its_agent_measures(tmp_path):
    class Watched(RewardModel):
        num_steps: int | None = 16

    def build():
        x = keras.Input((4,))
        h = keras.layers.Dense(8, "tanh")(x)
        heads = {name: keras.layers.Dense(n, name=name)(h) for name, n in (("policy", 2), ("value", 1), ("aux", 1))}
        return keras.Model(x, heads)

    options = {"total_timesteps": 128, "evaluation_episodes": 0, "verbose": False, "run_dir": tmp_path / "run"}
    run = rlgrad.train(Watched(), "CartPole-v1", model=build, vectorization_mode="sync", **options)
    columns = read_csv(tmp_path / "run" / "metrics.csv")
    assert columns["train/constant"] == [3.0] * 4
    assert np.isfinite(columns["train/aux_error"]).all()
    np.testing.assert_allclose(columns["train/aux_error"], run.history["train/aux_error"], rtol=1e-6)
    assert run.learner.credited == ("log_prob", "value", "aux")
