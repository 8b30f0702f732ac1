import re
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from helpers.scripted import TERMINATE, RandomPolicy, ScriptedEnv, ScriptedPolicy
from helpers.slow import mostly_slow

from rlgrad.rollouts import GymCollector


def refused(message, env="CartPole-v1", error=ValueError, **options):
    with pytest.raises(error, match=message) as caught:
        GymCollector(env, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def vector(count=2, make=CartPoleEnv, **options):
    return SyncVectorEnv([make] * count, **options)


@pytest.mark.parametrize("name", ["num_envs", "num_steps", "episodes_per_env", "max_episode_steps"])
@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_counts_are_integers_from_one(name, count):
    refused(rf"{name} is an integer ≥ 1, got {count}", **{name: count})


def test_options_that_contradict_each_other_are_refused():
    refused("give one of them", num_steps=4, episodes_per_env=1)
    refused("seed is an integer", seed=-1)
    refused("one of auto, sync, async, vector_entry_point; got 'thread'", vectorization_mode="thread")
    refused("needs an id", CartPoleEnv, vectorization_mode="vector_entry_point", num_steps=2)
    refused("num_envs=3 slots: pass a function that makes one", CartPoleEnv(), num_envs=3, num_steps=2)
    refused("An instance runs in sync only", CartPoleEnv(), vectorization_mode="async", num_steps=2)
    refused(
        "env_kwargs are for an environment that is still to be made", CartPoleEnv(), env_kwargs={"x": 1}, num_steps=2
    )
    refused("env_kwargs are for an environment that is still to be made", vector(), env_kwargs={"x": 1}, num_steps=2)
    refused("to the collector itself", env_kwargs={"max_episode_steps": 3}, num_steps=2)
    refused("num_envs=3, but the vector environment has 2", vector(), num_envs=3, num_steps=2)
    refused("vectorized already", vector(), vectorization_mode="async", num_steps=2)
    refused("a time limit of its own", vector(), max_episode_steps=9, num_steps=2)


def test_an_unknown_id_is_answered_with_close_names():
    assert refused("No environment is registered as 'CartPol-v1': did you mean CartPole-v1", "CartPol-v1").endswith("?")
    refused("did you mean CartPole-v1", "cartpole-v1")
    refused("did you mean .*CartPole-v1", "CartPole")
    refused("did you mean .*Pendulum-v1", "Pendulum-v7")
    refused("pprint_registry.. lists them", "Qwertyuiop")
    refused("the module 'no_such_module'", "no_such_module:CartPole-v1")
    refused("pprint_registry.. lists them", "nowhere/Qwertyuiop-v0")


def test_an_id_whose_package_has_to_be_imported_first_is_answered_with_how_to_write_it(monkeypatch):
    for name in ("ALE/Pong-v5", "MiniGrid-Empty-5x5-v0"):
        monkeypatch.delitem(gymnasium.registry, name, raising=False)
    refused("write 'ale_py:ALE/Pong-v5', which imports the package", "ALE/Pong-v5")
    refused("write 'minigrid:MiniGrid-Empty-5x5-v0', which imports", "MiniGrid-Empty-5x5-v0")


def test_an_environment_that_has_left_gymnasium_says_where_it_is():
    refused("Ant-v3 needs a package that is not installed: .*gymnasium-robotics", "Ant-v3", error=ImportError)
    refused(
        "GymV21Environment-v0 needs a package .*shimmy",
        "GymV21Environment-v0",
        error=ImportError,
        env_kwargs={"env_id": "CartPole-v1"},
    )


def test_a_module_can_be_named_with_the_id():
    with GymCollector("gymnasium:CartPole-v1", num_envs=1, num_steps=2) as c:
        assert c.collect(RandomPolicy()).observations.shape == (2, 1, 4)


@pytest.mark.parametrize(
    ("module", "env_id", "command"),
    [
        ("Box2D", "LunarLander-v3", r"pip install 'gymnasium\[box2d\]'"),
        ("mujoco", "HalfCheetah-v5", r"pip install 'gymnasium\[mujoco\]'"),
    ],
)
def test_a_missing_dependency_is_answered_with_the_command_that_installs_it(monkeypatch, module, env_id, command):
    monkeypatch.setitem(sys.modules, module, None)
    for loaded in [name for name in sys.modules if name.startswith(f"gymnasium.envs.{module.lower()}")]:
        monkeypatch.delitem(sys.modules, loaded)
    refused(f"{env_id} needs a package that is not installed: {command}", env_id, error=ImportError, num_envs=1)


def test_a_missing_package_of_another_environment_is_named(monkeypatch):
    def needs_a_package():
        raise ModuleNotFoundError("No module named 'simulator'")

    gymnasium.register("Needs-v0", entry_point=needs_a_package, max_episode_steps=3)
    try:
        refused("Needs-v0 needs a package .*: No module named 'simulator'", "Needs-v0", error=ImportError)
    finally:
        del gymnasium.registry["Needs-v0"]


def test_a_file_that_a_package_should_have_brought_is_named():
    class NeedsAFile(ScriptedEnv):
        def reset(self, *, seed=None, options=None):
            return open("maze.png")

    gymnasium.register("Needs-v0", entry_point=NeedsAFile, max_episode_steps=3)
    try:
        refused("Needs-v0 needs a file .*: .*maze.png", "Needs-v0", error=FileNotFoundError)
    finally:
        del gymnasium.registry["Needs-v0"]


def test_what_is_no_environment_is_refused():
    refused("got a int", 5, error=TypeError)
    refused("it returned a int", lambda: 5, error=TypeError, num_steps=2)
    refused("pass the vector environment itself", lambda: vector(), error=TypeError, num_steps=2)
    shared = CartPoleEnv()
    refused("the same environment twice", lambda: shared, num_steps=2)


def test_a_vector_environment_that_does_not_say_how_it_resets_is_refused():
    env = vector()
    del env.metadata["autoreset_mode"]
    refused(r"does not say in metadata\['autoreset_mode'\].*AutoresetMode", env, num_steps=2)
    env.metadata["autoreset_mode"] = "whenever"
    refused(r"does not say in metadata\['autoreset_mode'\]", env, num_steps=2)
    env.metadata["autoreset_mode"] = "NextStep"  # the value of the enumeration's member
    GymCollector(env, num_steps=2)


def test_an_environment_without_the_final_observation_that_its_mode_promises_is_refused():
    class Silent(SyncVectorEnv):
        def step(self, actions):
            *rest, _ = super().step(actions)
            return (*rest, {})

    c = GymCollector(Silent([ScriptedEnv], autoreset_mode=AutoresetMode.SAME_STEP), num_steps=4)
    with pytest.raises(ValueError, match="final_obs"):
        c.collect(ScriptedPolicy([(2, 1)]))


class Spaces(ScriptedEnv):
    def __init__(self, observation_space=None, action_space=None):
        super().__init__()
        self.observation_space = observation_space or ScriptedEnv.observation_space
        self.action_space = action_space or ScriptedEnv.action_space


def test_an_observation_space_that_is_not_supported_is_named():
    space = spaces.Dict(text=spaces.Text(5))
    refused(r"Text.* is not supported: encode the text", lambda: Spaces(observation_space=space), num_steps=2)


class Instructed(ScriptedEnv):
    """Its observation has a text beside its numbers."""

    observation_space = spaces.Dict(x=ScriptedEnv.observation_space, instruction=spaces.Text(9))

    def _observation(self):
        return {"x": super()._observation(), "instruction": "go"}


def test_what_is_supported_of_an_observation_is_kept_by_the_wrapper_that_the_refusal_names():
    text = refused(r"Text.* is not supported: leave it out, with the wrapper .*, or encode", Instructed, num_steps=2)
    advised = re.search(r'the wrapper "(.*)",', text).group(1)
    with GymCollector(Instructed, num_envs=1, num_steps=2, wrappers=[advised]) as c:
        assert set(c.collect(RandomPolicy()).observations) == {"x"}


class OfTwoAgents(ScriptedEnv):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, (reward, reward), terminated, truncated, info


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_several_rewards_in_a_step_are_refused(mode):
    c = GymCollector(OfTwoAgents, num_envs=2, num_steps=2, vectorization_mode=mode)
    with c, pytest.raises(ValueError, match=r"slot 0 .* step 0: expected a number, came \(1, 1\).* several agents"):
        c.collect(RandomPolicy())


@mostly_slow("mode", ["sync", "vector_entry_point", "async"], quick=2)
def test_an_ids_time_limit_is_the_specifications_unless_the_argument_replaces_it(mode):
    options = {"num_envs": 2, "vectorization_mode": mode}
    with GymCollector("CartPole-v1", **options) as c:
        assert c.shape == (500, 2)
        assert c.reward_threshold == 475.0
    for limit in (3, 600):
        with GymCollector("CartPole-v1", max_episode_steps=limit, episodes_per_env=2, **options) as c:
            assert c.shape == (limit, 4)
    with GymCollector("CartPole-v1", max_episode_steps=3, num_steps=7, **options) as c:
        rollout = c.collect(RandomPolicy())
        ends = [2, 6] if mode == "vector_entry_point" else [2, 5]  # after an autoreset step, or without one
        assert np.flatnonzero(rollout.truncations[:, 0]).tolist() == ends


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_functions_environment_keeps_its_own_limit(mode):
    def make():
        return gymnasium.make("CartPole-v1", max_episode_steps=4)

    for limit, rows in ((None, 4), (3, 3), (9, 4)):
        with GymCollector(make, num_envs=1, max_episode_steps=limit, vectorization_mode=mode) as c:
            assert c.shape == (rows, 1)
            assert c.reward_threshold == 475.0
            rollout = c.collect(RandomPolicy())
            assert rollout.mask.all()
            assert rollout.truncations[-1].all()


def test_whole_episodes_need_no_time_limit():
    policy = ScriptedPolicy([(3, TERMINATE)], [(2, TERMINATE)])
    for env, lengths in ((ScriptedEnv, [3, 2]), (ScriptedEnv(), [3]), (vector(make=ScriptedEnv), [3, 2])):
        with GymCollector(env, num_envs=len(lengths)) as collector:
            assert collector.collect(policy).mask.sum(axis=0).tolist() == lengths


def limited(*limits, env=ScriptedEnv):
    """An environment with time limits around it, the first one innermost, and another wrapper between and around them."""
    made = env()
    for limit in limits:
        made = gymnasium.wrappers.TimeLimit(gymnasium.wrappers.RecordEpisodeStatistics(made), limit)
    return gymnasium.wrappers.RecordEpisodeStatistics(made)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_time_limit_anywhere_around_an_environment_is_seen(mode):
    for limits in ((7,), (5, 9), (9, 5)):
        with GymCollector(lambda limits=limits: limited(*limits), num_envs=2, vectorization_mode=mode) as collector:
            assert collector.shape == (min(limits), 2)
    assert GymCollector(limited(6)).shape == (6, 1)
    assert GymCollector(limited(6), max_episode_steps=4).shape == (4, 1)
    assert GymCollector(ScriptedEnv, num_envs=1, wrappers=["TimeLimit(max_episode_steps=8)"]).shape == (8, 1)
    assert GymCollector(SyncVectorEnv([lambda: limited(3), lambda: limited(5)])).shape == (5, 2)
    assert GymCollector(limited(6, env=lambda: gymnasium.make("CartPole-v1"))).shape == (6, 1)


def test_a_vector_environments_limit_is_found_where_it_is_kept():
    made = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    assert GymCollector(made).shape == (500, 2)
    made = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point", max_episode_steps=9)
    assert GymCollector(made).shape == (9, 2)
    assert GymCollector(made, max_episode_steps=4).shape == (4, 2)
    made = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync", max_episode_steps=9)
    assert GymCollector(made, max_episode_steps=40).shape == (9, 2)
    assert GymCollector(made, num_steps=3).reward_threshold == 475.0


def test_the_longest_of_different_limits_counts():
    makers = [lambda limit=limit: gymnasium.make("CartPole-v1", max_episode_steps=limit) for limit in (3, 5)]
    rollout = GymCollector(SyncVectorEnv(makers)).collect(RandomPolicy())
    assert rollout.mask.sum(axis=0).tolist() == [3, 5]


def test_a_vector_entry_point_without_a_limit_is_cut_in_whole_episodes_and_refused_by_steps():
    gymnasium.register("Unlimited-v0", vector_entry_point=CartPoleVectorEnv)
    options = {"num_envs": 2, "max_episode_steps": 4, "vectorization_mode": "vector_entry_point"}
    try:
        with GymCollector("Unlimited-v0", episodes_per_env=2, **options) as c:
            rollout = c.collect(RandomPolicy())
            assert rollout.truncations[-1].all()
            assert rollout.mask.shape == (4, 4)
            assert rollout.mask.all()
        refused("a time limit of its own", "Unlimited-v0", num_steps=4, **options)
        refused("makes vector environments only", "Unlimited-v0", num_steps=4, vectorization_mode="sync")
    finally:
        del gymnasium.registry["Unlimited-v0"]
    refused("has no vector entry point", "Acrobot-v1", vectorization_mode="vector_entry_point", num_steps=2)


def test_auto_takes_a_vector_entry_point_where_it_means_the_same():
    def resolved(env, num_envs=2, **options):
        with GymCollector(env, num_envs=num_envs, num_steps=2, **options) as c:
            return c.vectorization_mode

    assert resolved("CartPole-v1") == resolved("CartPole-v1", max_episode_steps=9) == "vector_entry_point"
    assert resolved("CartPole-v1", env_kwargs={"sutton_barto_reward": True}) == "vector_entry_point"
    assert resolved("CartPole-v1", num_envs=1) == resolved("Acrobot-v1") == "sync"
    assert resolved("CartPole-v1", wrappers=["TimeAwareObservation"]) == resolved(CartPoleEnv) == "sync"
    assert resolved("CartPole-v1", vectorization_mode="sync") == "sync"
    assert resolved(CartPoleEnv(), None) == "sync"
    assert resolved(vector()) == "given"
    others = {
        "Unlimited-v0": ({"max_episode_steps": 9}, CartPoleVectorEnv),  # which nobody could cut
        "Preprocessing-v0": ({}, Preprocessing),
        "Choosy-v0": ({}, lambda num_envs, max_episode_steps: CartPoleVectorEnv(num_envs)),
    }
    for name, (options, entry_point) in others.items():
        limit = None if options else 500
        gymnasium.register(name, CartPoleEnv, vector_entry_point=entry_point, max_episode_steps=limit)
        try:
            kwargs = {"sutton_barto_reward": True} if name == "Choosy-v0" else {}
            assert resolved(name, env_kwargs=kwargs, **options) == "sync", name
        finally:
            del gymnasium.registry[name]


class Preprocessing(CartPoleVectorEnv):
    def __init__(self, num_envs, max_episode_steps=500):
        super().__init__(num_envs, max_episode_steps)
        self.single_observation_space = gymnasium.spaces.Box(-1, 1, (4,))


def test_an_atari_vector_environment_has_its_limit_in_frames():
    ale_py = pytest.importorskip("ale_py")
    gymnasium.register_envs(ale_py)
    options = {"num_envs": 2, "vectorization_mode": "vector_entry_point"}
    with GymCollector("ale_py:ALE/Pong-v5", **options) as c:
        assert c.observation_space.shape == (4, 84, 84)
        assert c.shape == (27_000, 2)
    with GymCollector("ale_py:ALE/Pong-v5", max_episode_steps=20, **options) as c:
        assert c.collect(RandomPolicy(6)).mask.sum(axis=0).tolist() == [20, 20]
    with GymCollector("ale_py:ALE/Pong-v5", num_steps=45, max_episode_steps=20, **options) as c:
        rollout = c.collect(RandomPolicy(6))
        assert rollout.truncations.sum(axis=0).tolist() == [2, 2]
        assert rollout.mask.sum() == 2 * 43  # a step after each episode only resets


def test_an_instance_fills_one_slot():
    with GymCollector(TimeLimit(ScriptedEnv(), 4), max_episode_steps=3) as c:
        assert c.num_envs == 1
        assert c.shape == (3, 1)
        assert c.observation_space == ScriptedEnv.observation_space
        assert c.action_space == ScriptedEnv.action_space
        assert c.reward_threshold is None
        assert c.collect(ScriptedPolicy([(9, 1)])).truncations[:, 0].tolist() == [False, False, True]


def test_a_functions_keyword_arguments_and_an_ids_come_from_env_kwargs():
    def make(reward):
        return gymnasium.wrappers.TransformReward(ScriptedEnv(), lambda _: reward)

    with GymCollector(make, num_envs=2, num_steps=2, env_kwargs={"reward": 7}) as c:
        assert c.collect(RandomPolicy(1)).rewards.tolist() == [[7, 7], [7, 7]]
    for mode in ("sync", "vector_entry_point"):
        options = {"env_kwargs": {"sutton_barto_reward": True}, "vectorization_mode": mode}
        with GymCollector("CartPole-v1", num_envs=2, num_steps=2, **options) as c:
            assert not c.collect(RandomPolicy()).rewards.any()


def test_eight_slots_are_the_default():
    with GymCollector("CartPole-v1", num_steps=2) as c:
        assert c.shape == (2, 8)


def test_a_vector_environment_may_have_a_specification_that_is_not_gymnasiums():
    vector = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    vector.unwrapped.spec = object()
    with GymCollector(vector, num_steps=2) as collector:
        assert collector.reward_threshold is None
