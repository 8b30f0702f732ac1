"""Copies of a policy, as self-play needs them, and what takes the place of Keras's saving."""

import copy

import keras
import numpy as np
import pytest
from gymnasium import spaces

import rlgrad
from rlgrad.core.reach import walk_over

OBSERVATIONS, ACTIONS = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(2)


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(2)

    def call(self, x):
        return self.out(x)


class Fixed(keras.Model):
    """A model that Keras cannot make anew."""

    def __init__(self, table):
        super().__init__()
        self.table, self.out = table, keras.layers.Dense(2)

    def call(self, x):
        return self.out(x)


def functional():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": functional},
        {"model": Own},
        {"shared_trunk": True},
        {"memory": "gru", "normalize_observations": True},
        {"memory": "lstm"},
    ],
    ids=["default", "functional", "subclassed", "shared", "gru", "lstm"],
)
def test_a_copy_acts_alike_and_stays_as_it_was(options):
    policy = rlgrad.make_policy(OBSERVATIONS, ACTIONS, hidden_sizes=(4,), memory_size=4, seed=3, **options)
    for variable in policy.variables:  # statistics too
        variable.assign(variable + 0.1 if "float" in variable.dtype else variable)
    opponent = copy.deepcopy(policy)
    assert type(opponent) is type(policy)
    assert [v.shape for v in opponent.variables] == [v.shape for v in policy.variables]
    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(20, 3)
    np.testing.assert_array_equal(opponent.player()(x), policy.player()(x))  # the random numbers go on alike
    kept = [weight.copy() for weight in opponent.get_weights()]
    for variable in policy.trainable_variables:
        variable.assign(variable * 2.0 + 1.0)
    for one, other in zip(opponent.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_copy_of_a_continuous_policy_keeps_its_deviations():
    policy = rlgrad.make_policy(OBSERVATIONS, spaces.Box(-1.0, 1.0, (2,)), hidden_sizes=(4,), initial_log_std=-0.5)
    np.testing.assert_array_equal(copy.deepcopy(policy).log_std.numpy(), [-0.5, -0.5])


def test_what_keras_cannot_copy_is_said():
    policy = rlgrad.make_policy(OBSERVATIONS, ACTIONS, model=Fixed(object()), hidden_sizes=(4,))
    with pytest.raises(ValueError, match="Keras cannot copy Fixed"):
        copy.deepcopy(policy)


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (lambda policy: policy.save("policy.keras"), r"rlgrad.export\(policy, 'policy.keras'\)"),
        (keras.models.clone_model, r"copy.deepcopy\(policy\)"),
        (lambda policy: policy.to_json(), r"copy.deepcopy\(policy\)"),
    ],
)
def test_what_keras_would_do_is_answered_with_what_to_do(attempt, sentence):
    policy = rlgrad.make_policy(OBSERVATIONS, ACTIONS, hidden_sizes=(4,))
    with pytest.raises(NotImplementedError, match=sentence):
        attempt(policy)


def test_a_mask_that_is_missing_is_asked_for():
    space = spaces.Dict({"observation": OBSERVATIONS, "action_mask": spaces.Box(0, 1, (2,), np.int8)})
    policy = rlgrad.make_policy(space, ACTIONS, hidden_sizes=(4,))
    for given in (np.zeros(3, np.float32), {"observation": np.zeros(3, np.float32)}):
        with pytest.raises(ValueError, match=r"act\(\{'observation': …, 'action_mask': …\}\)"):
            policy.act(given)
    mask = np.array([0, 1], np.int8)
    assert policy.act({"observation": np.zeros(3, np.float32), "action_mask": mask}) == 1


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (spaces.Discrete(10**10), ACTIONS),
        (spaces.MultiDiscrete([10**10, 2]), ACTIONS),
        (OBSERVATIONS, spaces.Discrete(10**10)),
    ],
)
def test_a_space_that_fills_the_memory_is_refused_with_its_size(observations, actions):
    with pytest.raises(ValueError, match=r"shape .*10000000.* take [\d.]+ GiB"):
        rlgrad.make_policy(observations, actions)


def test_the_cause_of_what_keras_cannot_call_is_not_cut_off():
    wrong = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 5"):
        rlgrad.make_policy(OBSERVATIONS, ACTIONS, model=wrong)

    class Wrong(Own):
        def call(self, x):
            return keras.ops.matmul(x, np.zeros((4, 2), np.float32))

    with pytest.raises(ValueError, match=r"model does not take .*(?i:incompatible|size)"):
        rlgrad.make_policy(OBSERVATIONS, ACTIONS, model=Wrong)


def test_that_a_policy_can_be_copied_costs_its_gradients_nothing():
    policy = rlgrad.make_policy(OBSERVATIONS, ACTIONS, hidden_sizes=(4,))
    assert len(walk_over(policy).readers) < 200  # and not all that the code of `copy` and of Keras's saving can read
