"""What an environment must not give: the error names slot, step and tensor, and what was expected."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.functionals import Clock
from helpers.scripted import RandomPolicy
from helpers.slow import mostly_slow

from rlgrad import EnvironmentFault, Learner, make_policy
from rlgrad.agents import A2C
from rlgrad.core.faults import OutputFault
from rlgrad.learning.fused import Fused
from rlgrad.rollouts import GymCollector
from rlgrad.rollouts.compiled import CompiledCollector

LATER = 3
SPACE = spaces.Dict(
    image=spaces.Box(0, 255, (2,), np.uint8),
    choice=spaces.Discrete(3),
    pair=spaces.Tuple([spaces.Box(-1, 1, (1,))] * 2),
)


class Faulty(gymnasium.Env):
    """Slot-wise alike: gives `what` instead of what it should, at step `at`, or in a reset."""

    observation_space, action_space = SPACE, spaces.Discrete(2)

    def __init__(self, what="nothing", value=None, at=0):
        self.what, self.value, self.at, self.count = what, value, at, 0

    def reset(self, *, seed=None, options=None):
        self.count = 0
        if self.what == "reset":
            return self.value
        return self._observation(), {}

    def step(self, action):
        now = self.count == self.at
        self.count += 1
        result = {"reward": 0.0, "terminated": False, "truncated": False, "info": {}}
        if now and self.what == "step":
            return self.value
        if now and self.what in result:
            result[self.what] = self.value
        return self._observation() if not now else self._faulty_observation(), *result.values()

    def _observation(self):
        return {"image": np.zeros(2, np.uint8), "choice": 1, "pair": (np.zeros(1, np.float32), np.ones(1, np.float32))}

    def _faulty_observation(self):
        observation = self._observation()
        if self.what in observation:
            observation[self.what] = self.value
        return self.value if self.what == "observation" else observation


def refused(message, mode="sync", env=Faulty, policy=None, num_steps=5, **options):
    made = iter([{}, options, options])  # the last one is looked at for a mask

    def create():
        return env(**(next(made) if mode == "sync" else options))

    with (
        GymCollector(create, num_envs=2, num_steps=num_steps, vectorization_mode=mode) as c,
        pytest.raises(EnvironmentFault, match=message) as caught,
    ):
        c.collect(policy or RandomPolicy())
    return caught.value


WRONG = [
    ("reward", "much", "wrong reward in step {step}: expected a number, came 'much'"),
    ("reward", None, "wrong reward in step {step}: expected a number, came None"),
    ("reward", np.ones(2), r"wrong reward in step {step}: expected a number, came float64 \(2,\): \[1.0, 1.0\]"),
    ("terminated", None, "wrong terminated in step {step}: expected a bool, came None.*bool"),
    ("truncated", "no", "wrong truncated in step {step}: expected a bool, came 'no'"),
    ("info", [], r"wrong info in step {step}: expected a dict, came \[\]"),
    ("observation", np.zeros(2), "wrong observation in step {step}: expected a dict with 'image', 'choice', 'pair'"),
    ("image", np.zeros(2), r"wrong observation\['image'\] in step {step}: expected uint8 \(2,\), came float64 \(2,\)"),
    (
        "image",
        np.zeros(3, np.uint8),
        r"wrong observation\['image'\] in step {step}: expected uint8 \(2,\), came uint8 \(3,\)",
    ),
    ("choice", 1.5, r"wrong observation\['choice'\] in step {step}: expected int64 \(\), came 1.5"),
    ("pair", (np.zeros(1),), r"wrong observation\['pair'\] in step {step}: expected a tuple of 2"),
    ("pair", (np.zeros(1), "x"), r"wrong observation\['pair'\]\[1\] in step {step}: expected float32 \(1,\), came 'x'"),
    ("step", (0, 0.0, False, {}), "wrong result in step {step}: expected a tuple"),
]


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("what", "value", "message"), WRONG)
def test_what_a_step_gives_is_named_with_slot_step_and_tensor(what, value, message, mode):
    # What NumPy takes without a word, SyncVectorEnv does: that is looked for in the first step alone.
    first_alone = mode == "sync" and (value is None or what in ("terminated", "truncated"))
    for step in (0,) if first_alone else (0, LATER):
        slot = 1 if mode == "sync" else 0
        refused(f"slot {slot} gave a {message.format(step=step)}", mode, what=what, value=value, at=step)


def test_none_in_the_place_of_a_reward_is_no_number_at_any_step():
    with (
        GymCollector(lambda: Faulty("reward", None, LATER), num_envs=1, num_steps=5) as c,
        pytest.raises(FloatingPointError, match=f"slot 0 gave a non-finite reward at step {LATER}"),
    ):
        c.collect(RandomPolicy())


@pytest.mark.parametrize("what", ["terminated", "truncated"])
def test_an_integer_in_the_place_of_a_bool_is_refused_at_the_first_step(what):
    fault = refused(f"slot 1 gave a wrong {what} in step 0: expected a bool, came 0", what=what, value=0)
    assert isinstance(fault, OutputFault)
    assert isinstance(fault, ValueError)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("value", [np.zeros(2), {"image": 0}, (Faulty()._observation(), 1.0), None, ()])
def test_a_reset_that_returns_something_else_than_observation_and_info_is_refused(value, mode):
    refused("wrong (result|info) in the reset before step 0", mode, what="reset", value=value)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_observation_that_is_none_of_the_choices_is_refused(mode):
    when = "(before|after|in)"
    for step in (0, LATER):
        message = rf"wrong observation\['choice'\] {when} step {step}: expected values from 0 to 2, came"
        refused(message, mode, what="choice", value=3, at=step)


def test_other_types_of_the_same_kind_are_taken_as_they_were():
    class Loose(Faulty):
        def _observation(self):
            return {"image": np.array([1, 2]), "choice": np.int8(2), "pair": (np.zeros(1), np.ones(1, np.int64))}

    with GymCollector(Loose, num_envs=1, num_steps=2, vectorization_mode="async") as c:
        rollout = c.collect(RandomPolicy())
    np.testing.assert_array_equal(rollout.observations["image"][0, 0], [1, 2])


class Masked(gymnasium.Env):
    """Allows both actions, but for the step `at`."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def __init__(self, mask=None, at=LATER):
        self.mask, self.at, self.count = mask, at, 0

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(1, np.float32), {"action_mask": np.ones(2, np.int8)}

    def step(self, action):
        self.count += 1
        now = self.mask is not None and self.count == self.at + 1
        return np.zeros(1, np.float32), 0.0, False, False, {"action_mask": self.mask if now else np.ones(2, np.int8)}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("step", [0, LATER])
def test_a_mask_of_another_width_or_that_forbids_everything_is_refused(mode, step):
    wide = rf"wrong info\['action_mask'\] in step {step}: expected one number for each of 2 actions"
    refused(wide, mode, Masked, mask=np.ones(3, np.int8), at=step)
    none = f"forbids every action before step {step + 1}"
    refused(none, mode, Masked, mask=np.zeros(2, np.int8), at=step)


class Batch(gymnasium.vector.VectorEnv):
    """A vector environment of one's own."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
    num_envs = 2
    single_observation_space, single_action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def __init__(self, **wrong):
        self.wrong = wrong

    def reset(self, *, seed=None, options=None):
        return self.wrong.get("first", np.zeros((2, 1), np.float32)), {}

    def step(self, actions):
        no = np.zeros(2, bool)
        right = {"observation": np.zeros((2, 1)), "reward": np.zeros(2), "terminated": no, "truncated": no, "info": {}}
        return tuple((right | self.wrong)[name] for name in right)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first": np.zeros(2)}, r"reset before step 0: expected float32 \(2, 1\), came float64 \(2,\)"),
        ({"observation": np.zeros(2)}, r"observation in step 0: expected float32 \(2, 1\), came float64 \(2,\)"),
        (
            {"reward": np.zeros((2, 1))},
            r"reward in step 0: expected a number for each of 2 slots, came float64 \(2, 1\)",
        ),
        ({"terminated": np.zeros(2)}, r"terminated in step 0: expected a bool for each of 2 slots"),
        ({"info": None}, "info in step 0: expected a dict, came None"),
    ],
)
def test_what_a_vector_environment_gives_is_looked_at_too(wrong, message):
    with pytest.raises(OutputFault, match=f"The vector environment gave a wrong .*{message}"):
        GymCollector(Batch(**wrong), num_steps=2).collect(RandomPolicy())


class ClockWithMask(Clock):
    """Forbids every action at step `at` of an episode, or tells a number that its space does not have."""

    observation_space = spaces.Dict(number=spaces.Discrete(100), action_mask=spaces.MultiBinary(2))

    def __init__(self, forbids_at=99, strange_at=99):
        super().__init__(length=50)
        self.forbids_at, self.strange_at = forbids_at, strange_at

    def observation(self, state, rng, params=None):
        allowed = tf.cast(state != self.forbids_at, tf.int8)
        number = tf.cast(tf.where(state == self.strange_at, 100, state), tf.int64)
        return {"number": number, "action_mask": tf.stack([allowed, allowed], axis=-1)}


COMPILED = [
    ({"forbids_at": 4}, "slot 0 forbids every action before step 4"),
    (
        {"strange_at": 4},
        r"slot 0 gave a wrong observation\['number'\] after step 3: expected values from 0 to 99, came 100",
    ),
]


@pytest.mark.parametrize(("options", "message"), COMPILED)
def test_a_compiled_collector_refuses_masks_that_forbid_everything_and_numbers_that_are_no_choice(options, message):
    collector = CompiledCollector(ClockWithMask(**options), num_envs=2, num_steps=6)
    policy = make_policy(collector.observation_space, collector.action_space, hidden_sizes=(4,))
    with pytest.raises(OutputFault, match=message):
        collector.collect(policy)


@mostly_slow("options, message", COMPILED)
def test_so_does_a_fused_update_which_then_moves_nothing(options, message):
    agent = A2C(num_envs=2, num_steps=6, normalize_observations=False, scale_rewards=True)
    collector = CompiledCollector(ClockWithMask(**options), num_envs=2, num_steps=6)
    policy = make_policy(collector.observation_space, collector.action_space, hidden_sizes=(4,))
    learner = Learner(agent, policy, num_envs=2)
    before = [v.numpy() for v in (*policy.variables, *learner.reward_scale.variables)]
    with pytest.raises(OutputFault, match=message):
        Fused(collector, learner, size=2).advance(2, 0, 1000, np.zeros((2, 2), np.int32))
    for a, v in zip(before, (*policy.variables, *learner.reward_scale.variables), strict=True):
        np.testing.assert_array_equal(a, v.numpy())


class NotANumber(Clock):
    """Its second observation is not a number."""

    def observation(self, state, rng, params=None):
        return tf.where(state == 2, np.nan, 0.5)[..., None]


def test_what_is_not_finite_does_not_get_into_the_normalizer():
    agent = A2C(num_envs=2, num_steps=4, normalize_observations=True)
    collector = CompiledCollector(NotANumber(), num_envs=2, num_steps=4)
    policy = make_policy(collector.observation_space, collector.action_space, normalize_observations=True)
    with pytest.raises(FloatingPointError, match="non-finite observation after step 1"):
        Fused(collector, Learner(agent, policy, num_envs=2), size=2).advance(2, 0, 1000, np.zeros((2, 2), np.int32))
    assert all(np.isfinite(v.numpy()).all() for v in policy.variables)


class Flat(Clock):
    def observation(self, state, rng, params=None):
        return tf.cast(state, tf.float32)


class Bent(Clock):
    def reward(self, state, action, next_state, rng, params=None):
        return tf.ones((3, 3))


class Unsure(Clock):
    def terminal(self, state, rng, params=None):
        return tf.cast(state, tf.float32)


class Drifting(Clock):
    def transition(self, state, action, rng, params=None):
        return tf.cast(state, tf.float32)


class Bare(ClockWithMask):
    def observation(self, state, rng, params=None):
        return tf.cast(state, tf.int64)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Flat, r"Flat.observation gives a wrong observation: expected numbers \(2, 1\), came float32 \(2,\)"),
        (Bent, r"Bent.reward gives a wrong reward: expected float32 \(2,\), came float32 \(3, 3\)"),
        (Unsure, r"Unsure.terminal gives a wrong terminal: expected bool \(2,\), came float32 \(2,\)"),
        (Drifting, r"Drifting.transition gives a state of another .* expected int32 \(2,\), came float32 \(2,\)"),
        (Bare, "Bare.observation gives another structure than its space"),
    ],
)
def test_shapes_and_dtypes_of_a_functional_environment_are_checked_before_it_runs(kind, message):
    collector = CompiledCollector(kind(), num_envs=2, num_steps=3)
    policy = make_policy(collector.observation_space, collector.action_space)
    with pytest.raises(ValueError, match=message):
        collector.collect(policy)
