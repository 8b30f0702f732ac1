"""What an agent of a user's gets told when it is wrong, and what it gets for free."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import rlgrad
from rlgrad.agent import Agent
from rlgrad.learning.contract import batch_signature, dry_run

SIGNATURE = batch_signature(tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64))


def credited(credit, **attributes):
    return dry_run(type("Mine", (Agent,), {"credit": credit, **attributes})(), SIGNATURE).credited


def test_the_credited_outputs_are_found_by_a_dry_run():
    found = credited(lambda self, batch, now: {"value": batch.returns - now.value, "log_prob": 1.0})
    assert found == ("log_prob", "value")


def test_credit_may_look_at_everything_that_a_batch_holds():
    def credit(self, batch, now):
        first = batch.observations[:, 0] * tf.cast(batch.actions, tf.float32)
        return {"log_prob": first + batch.td_errors * batch.progress * batch.weights}

    assert credited(credit) == ("log_prob",)


def branching(self, batch, now):
    return {"log_prob": batch.advantages if tf.reduce_sum(batch.returns) > 0 else batch.returns}


@pytest.mark.parametrize(
    ("credit", "message"),
    [
        (lambda self, batch, now: {"log_prob": batch.advantage}, "no 'advantage'. Did you mean 'advantages'"),
        (lambda self, batch, now: {"log_prob": now.values}, "no output 'values'. Did you mean 'value'"),
        (lambda self, batch, now: {"log_probs": 1.0}, "'log_probs' that does not exist. Did you mean 'log_prob'"),
        (lambda self, batch, now: batch.advantages, "returns a dict"),
        (lambda self, batch, now: {}, "returns a dict"),
        (branching, "write tf.where"),
    ],
)
def test_a_wrong_credit_is_answered_with_what_was_meant(credit, message):
    with pytest.raises(ValueError, match=message):
        credited(credit)


def test_an_agent_without_credit_is_told_to_write_one():
    with pytest.raises(NotImplementedError, match=r"needs a method `credit\(self, batch, now\)`"):
        dry_run(Agent(), SIGNATURE)


def constant(self, batch, now):
    return {"log_prob": 1.0}


def test_an_agents_own_outputs_are_credited_under_their_names():
    def credit(self, batch, now):
        return {"log_prob": 1.0, "aux": batch.returns - now.aux}

    assert credited(credit, outputs={"aux": "head", "unused": "other"}) == ("log_prob", "aux")


def test_what_an_agent_measures_is_found_by_the_dry_run_too():
    def measure(self, batch, now):
        return {"ratio": now.log_prob - batch.log_probs, "one": 1.0}

    assert dry_run(type("Mine", (Agent,), {"credit": constant, "measure": measure})(), SIGNATURE).measured == (
        "ratio",
        "one",
    )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"outputs": {"value": "aux"}}, "outputs has 'value', which every policy has already"),
        ({"credit": lambda self, batch, now: {"aux": now.aux}}, "credit: There is no output 'aux'"),
        (
            {"credit": lambda self, batch, now: {"auks": 1.0}, "outputs": {"aux": "aux"}},
            "'auks' that does not exist. Did you mean 'aux'",
        ),
        (
            {"measure": lambda self, batch, now: {"size": batch.advantage}},
            "Mine.measure: A batch has no 'advantage'. Did you mean 'advantages'",
        ),
        ({"measure": lambda self, batch, now: now.log_prob}, "measure returns a dict"),
        ({"measure": lambda self, batch, now: {"any": 1.0 if now.log_prob[0] > 0 else 2.0}}, "measure is traced once"),
    ],
)
def test_an_output_or_a_metric_that_cannot_be_is_answered_with_what_was_meant(attributes, message):
    agent = type("Mine", (Agent,), {"credit": constant, **attributes})()
    with pytest.raises(ValueError, match=message):
        dry_run(agent, SIGNATURE)


def test_without_a_value_there_is_none_to_credit():
    agent = type("Mine", (Agent,), {"credit": lambda self, batch, now: {"value": 1.0}})()
    with pytest.raises(ValueError, match=r"'value' that does not exist\. Known: entropy, log_prob"):
        dry_run(agent, SIGNATURE, value=False)


def test_a_subclass_is_a_frozen_dataclass_of_its_annotated_attributes():
    class Mine(Agent):
        temperature: float = 1.0

    agent = Mine(temperature=0.5, gamma=0.9)
    assert (agent.temperature, agent.gamma, agent.gae_lambda) == (0.5, 0.9, 0.95)
    assert dataclasses.replace(agent, gamma=0.8).temperature == 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        agent.temperature = 2.0


def test_an_override_without_its_type_is_refused_instead_of_ignored():
    with pytest.raises(TypeError, match=r"write `gamma: float = 0.5`"):
        type("Mine", (Agent,), {"gamma": 0.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.1}, "gamma is between 0 and 1, got 1.1"),
        ({"gae_lambda": -0.1}, "gae_lambda is between 0 and 1"),
        ({"num_envs": 0}, "num_envs is at least 1"),
        ({"num_steps": 0}, "num_steps is at least 1"),
        ({"episodes_per_env": 2}, "set num_steps to None"),
    ],
)
def test_hyper_parameters_are_checked_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Agent(**options)


def test_without_values_the_estimate_is_reward_to_go_and_a_time_limit_ends_the_task():
    ones, zeros = np.ones((3, 1), np.float32), np.zeros((3, 1), bool)
    cut = np.array([[0], [1], [0]], bool)
    rollout = rlgrad.Rollout(ones, ones, ones, zeros, cut, ones, ones, ones, None, None)
    estimates = Agent(gamma=0.5, gae_lambda=0.3).estimate(rollout)
    np.testing.assert_allclose(estimates.returns[:, 0], [1.5, 1.0, 1.0])
    np.testing.assert_allclose(estimates.advantages, estimates.returns)


def test_with_values_the_estimate_bootstraps_at_a_cut_and_not_at_a_termination():
    ones, values = np.ones((2, 2), np.float32), np.full((2, 2), 10.0, np.float32)
    terminations = np.array([[0, 0], [1, 0]], bool)
    truncations = np.array([[0, 0], [0, 1]], bool)
    rollout = rlgrad.Rollout(ones, ones, ones, terminations, truncations, ones, ones, ones, values, 2 * values)
    estimates = Agent(gamma=0.5, gae_lambda=0.0).estimate(rollout)
    # One-step targets: 1 + 0.5·20 = 11, but 1 at the termination.
    np.testing.assert_allclose(estimates.returns, [[11.0, 11.0], [1.0, 11.0]])
    np.testing.assert_allclose(estimates.td_errors, [[1.0, 1.0], [-9.0, 1.0]])
