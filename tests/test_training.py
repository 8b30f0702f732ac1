"""A run from its first step to its folder, and what it refuses."""

import json
import subprocess
import sys

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

import rlgrad
from rlgrad import gradients
from rlgrad.agents import A2C, Reinforce
from rlgrad.gradients import Entropy, LogProb
from rlgrad.reporting import METRICS
from rlgrad.updates import Ascent

QUICK = {"total_timesteps": 1024, "num_envs": 4, "num_steps": 32, "evaluation_episodes": 4, "verbose": False}
QUICK |= {"vectorization_mode": "sync"}  # in which every step counts


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path_factory.mktemp("runs") / "a", **QUICK)


def test_a_run_leaves_everything_it_promises(run):
    names = {p.name.split(".")[0] + p.suffix for p in run.path.iterdir()}
    assert {"config.yaml", "run.json", "metrics.csv", "checkpoints", "learning_curve.png", "evaluation.json"} <= names
    assert list(run.path.glob("events.out.tfevents.*"))
    assert list((run.path / "checkpoints").glob("*.npz"))
    assert (run.path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((run.path / "evaluation.json").read_text())
    assert set(results["greedy"]) == set(results["sampled"]) == {"mean_return", "std_return", "episodes"}
    assert results["reward_threshold"] == 475.0
    assert results["solved"] is (results["greedy"]["mean_return"] >= 475)


def test_the_config_says_what_was_resolved(run):
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["agent"]["name"] == "reinforce"
    assert (config["agent"]["num_envs"], config["agent"]["num_steps"]) == (4, 32)
    assert config["resolved"]["vectorization_mode"] == "sync"
    assert config["resolved"]["actor"] == "numpy"


def test_the_history_the_csv_and_tensorboard_hold_the_same_metrics(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from rlgrad.reporting import read_csv

    csv = read_csv(run.path / "metrics.csv")
    learned = tuple(f"train/{name}" for name in run.learner.metrics)
    assert "train/gradient_norm" in learned
    assert tuple(csv) == tuple(run.history) == METRICS + learned
    np.testing.assert_allclose(csv["train/entropy"], run.history["train/entropy"], rtol=1e-6)
    assert run.history["time/timesteps"][-1] == 1024
    events = EventAccumulator(str(run.path)).Reload()
    scalars = {e.step: e.tensor_proto.float_val[0] for e in events.Tensors("train/entropy")}
    np.testing.assert_allclose(list(scalars.values()), run.history["train/entropy"], rtol=1e-6)


def test_a_run_is_never_written_over(run):
    with pytest.raises(FileExistsError, match="never writes over another"):
        rlgrad.train("reinforce", "CartPole-v1", run_dir=run.path, **QUICK)


def test_the_default_folder_is_a_new_one_under_runs():
    first = rlgrad.train("reinforce", "CartPole-v1", **QUICK | {"evaluation_episodes": 0})
    second = rlgrad.train("reinforce", "CartPole-v1", **QUICK | {"evaluation_episodes": 0})
    assert first.path.parent.name == second.path.parent.name == "runs"
    assert first.path != second.path


def test_the_same_seed_gives_the_same_weights_to_the_bit(run, tmp_path):
    again = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "b", **QUICK)
    other = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "c", seed=1, **QUICK)
    assert all(np.array_equal(a, b) for a, b in zip(run.policy.get_weights(), again.policy.get_weights(), strict=True))
    assert not all(
        np.array_equal(a, b) for a, b in zip(run.policy.get_weights(), other.policy.get_weights(), strict=True)
    )


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


def test_convolutions_are_trained_without_xla_on_a_cpu_and_to_the_bit_as_well(run):
    class Picture(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (10, 10, 4), np.uint8)
        action_space = gymnasium.spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self._observation(), {}

        def step(self, action):
            return self._observation(), float(action), False, False, {}

        def _observation(self):
            return self.np_random.integers(0, 256, (10, 10, 4), np.uint8)

    quick = QUICK | {"total_timesteps": 256, "evaluation_episodes": 0}
    first, second = (rlgrad.train("ppo", Picture, run_dir=name, **quick) for name in "ab")
    for one, other in zip(first.policy.variables, second.policy.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert run.learner.xla
    assert first.learner.xla is bool(tf.config.list_physical_devices("GPU"))
    assert (run.policy.acts_in, first.policy.acts_in) == ("numpy", "xla" if first.learner.xla else "graph")


def test_sync_and_async_give_the_same_weights_to_the_bit(run, tmp_path):
    again = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "b", **QUICK | {"vectorization_mode": "async"})
    again.close()
    assert all(np.array_equal(a, b) for a, b in zip(run.policy.get_weights(), again.policy.get_weights(), strict=True))


def test_a_loaded_run_acts_as_before_and_goes_on(tmp_path):
    original = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "a", **QUICK)
    loaded = rlgrad.load(tmp_path / "a", verbose=False)
    observations = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_array_equal(
        original.policy.act(observations, greedy=True), loaded.policy.act(observations, greedy=True)
    )
    assert loaded.timesteps == 1024
    original.train(2048)
    loaded.train(2048)
    assert loaded.timesteps == 2048
    assert loaded.updates == original.updates == 16
    assert loaded.learner.state.optimizer.iterations.numpy() == 16
    # The one that was loaded took back what the other had written meanwhile, and knows what was written before.
    assert len((tmp_path / "a" / "metrics.csv").read_text().splitlines()) == 1 + 8 + 8
    assert loaded.history["time/timesteps"] == original.history["time/timesteps"]


def test_a_user_model_is_rebuilt_when_the_run_is_loaded(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "elu"), keras.layers.Dense(2)])
    run = rlgrad.train("reinforce", "CartPole-v1", model=model, run_dir=tmp_path / "a", **QUICK)
    loaded = rlgrad.load(tmp_path / "a", verbose=False)
    for a, b in zip(run.policy.get_weights(), loaded.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_runs_through_the_public_primitive(run, tmp_path, monkeypatch):
    """Replacing it changes what is learned: here, every gradient has its sign turned."""
    original = gradients.Linearization.gradient
    turned = lambda self, credit=None: {k: -g for k, g in original(self, credit).items()}
    monkeypatch.setattr(gradients.Linearization, "gradient", turned)
    other = rlgrad.train("reinforce", "CartPole-v1", run_dir=tmp_path / "b", **QUICK)
    assert not np.array_equal(run.policy.get_weights()[0], other.policy.get_weights()[0])


def test_the_three_pieces_by_hand_end_with_the_weights_of_train(tmp_path):
    agent = Reinforce(baseline="none", num_envs=4, episodes_per_env=2, update=Ascent(learning_rate=3e-3))
    stop = StopAfter(3)
    run = rlgrad.train(
        agent, "CartPole-v1", total_timesteps=10_000, callbacks=[stop], evaluation_episodes=0, verbose=False
    )

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


class StopAfter(rlgrad.Callback):
    """A callback of a user's."""

    def __init__(self, updates):
        self.updates, self.seen = updates, []

    def on_update(self, run, metrics):
        self.seen.append(metrics["time/updates"])
        run.stop = run.updates >= self.updates


def test_a_callback_can_stop_a_run(tmp_path):
    stop = StopAfter(3)
    run = rlgrad.train("reinforce", "CartPole-v1", callbacks=[stop], **QUICK)
    assert run.updates == 3
    assert stop.seen == [1, 2, 3]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent": "reinforc"}, "Did you mean 'reinforce'"),
        ({"env": "CartPol-v1"}, "CartPole-v1"),
        ({"total_timesteps": 100}, "leaves no room for a rollout of 128 steps"),
        ({"total_timesteps": 0}, "total_timesteps is at least 1"),
        ({"seed": -1}, "integer ≥ 0"),
        ({"num_envs": 0}, "num_envs is at least 1"),
        ({"agent": Reinforce(baseline="none")}, "needs whole episodes"),
        ({"hidden_sizes": (0,)}, "hidden_sizes"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_training(options, message):
    settings = {"agent": "reinforce", "env": "CartPole-v1"} | QUICK | options
    with pytest.raises(ValueError, match=message):
        rlgrad.train(settings.pop("agent"), settings.pop("env"), **settings)


# Steps, settings, what the compiled program is called, and how many MiB memory may grow once a fifth is done.
LONG = {
    "a thousand updates": (
        64_000,
        "env='CartPole-v1', num_envs=4, num_steps=16, vectorization_mode='sync'",
        "learn",
        10,
    ),
    "ten million compiled steps": (10_000_000, "env='rlgrad/CartPole-v1', num_envs=64, num_steps=64", "program", 30),
}


@pytest.mark.parametrize(
    ("steps", "settings", "program", "growth"),
    [pytest.param(*v, id=k, marks=pytest.mark.slow if v[0] > 1e6 else ()) for k, v in LONG.items()],
)
def test_a_run_makes_one_trace_and_one_compilation_and_leaves_memory_flat(tmp_path, steps, settings, program, growth):
    code = f"""
import psutil, rlgrad
class Memory(rlgrad.Callback):
    sizes = []
    def on_update(self, run, metrics):
        self.sizes.append(psutil.Process().memory_info().rss)
memory = Memory()
run = rlgrad.train("reinforce", {settings}, total_timesteps={steps}, callbacks=[memory],
                   run_dir={str(tmp_path / "run")!r}, evaluation_episodes=0, verbose=False)
assert run.timesteps > {steps} * 0.99 and run.learner.traces == 1, (run.timesteps, run.learner.traces)
print((memory.sizes[-1] - memory.sizes[len(memory.sizes) // 5]) / 2**20)
"""
    dump = tmp_path / "xla"
    environment = {"XLA_FLAGS": f"--xla_dump_to={dump} --xla_dump_hlo_as_text", "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert float(result.stdout.split()[-1]) < growth
    assert len([p for p in dump.glob("*.before_optimizations.txt") if program in p.name]) == 1


def cart(**kwargs):
    return gymnasium.make("CartPole-v1", **kwargs)


@pytest.mark.parametrize(
    ("env", "options"),
    [
        (cart, {"env_kwargs": {"sutton_barto_reward": True}}),
        ("CartPole-v1", {"vectorization_mode": "vector_entry_point"}),
        (lambda: gymnasium.make("CartPole-v1", max_episode_steps=30), {}),
    ],
)
def test_an_environment_may_be_an_id_or_a_function(env, options):
    run = rlgrad.train("reinforce", env, **QUICK | options)
    assert run.timesteps == 1024 or options.get("vectorization_mode")
    assert run.evaluate(episodes=2).episodes == 2


def test_an_environment_that_is_given_is_the_only_one_and_is_left_to_training():
    env = cart()
    run = rlgrad.train("reinforce", env, total_timesteps=256, num_steps=32, evaluation_episodes=2, verbose=False)
    assert run.collector.num_envs == 1
    steps = env.unwrapped.state
    run.evaluate(episodes=2)
    np.testing.assert_array_equal(env.unwrapped.state, steps)


def test_a_vector_environment_that_is_given_is_used_as_it_is():
    vector = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
    run = rlgrad.train("reinforce", vector, total_timesteps=960, num_steps=32, evaluation_episodes=4, verbose=False)
    assert run.collector.num_envs == 3
    assert run.evaluate(episodes=4).episodes == 4


def test_continuous_actions_and_whole_episodes_train_too():
    run = rlgrad.train(
        Reinforce(num_envs=2, normalize_observations=True),
        "Pendulum-v1",
        total_timesteps=800,
        evaluation_episodes=2,
        verbose=False,
    )
    assert run.updates == 2
    assert run.policy.act(np.zeros(3)).shape == (1,)
    assert -2.0 <= run.policy.act(np.zeros(3))[0] <= 2.0


def test_one_model_with_two_heads_trains_on_one_trunk():
    x = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh", name="trunk")(x)
    model = keras.Model(x, {"policy": keras.layers.Dense(2)(h), "value": keras.layers.Dense(1)(h)})
    run = rlgrad.train("reinforce", "CartPole-v1", model=model, **QUICK)
    assert [v.path for v in run.learner.variables][:2] == ["trunk/kernel", "trunk/bias"]
    assert len(run.learner.variables) == 6


def test_an_optimizer_may_be_given_by_name_or_as_an_object_and_is_kept_in_the_config():
    run = rlgrad.train("reinforce", "CartPole-v1", optimizer=keras.optimizers.RMSprop(1e-4, rho=0.95), **QUICK)
    loaded = rlgrad.load(run.path, verbose=False)
    assert loaded.config.agent.update.optimizer.rho == 0.95
    assert float(loaded.learner.state.optimizer.learning_rate) == pytest.approx(1e-4)
    named = rlgrad.train("reinforce", "CartPole-v1", optimizer="sgd", **QUICK)
    assert isinstance(named.learner.state.optimizer, keras.optimizers.SGD)


def test_the_default_network_gives_way_to_a_function_that_builds_one_reproducibly():
    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(2)])

    first, second = (rlgrad.train("reinforce", "CartPole-v1", model=build, **QUICK) for _ in range(2))
    for a, b in zip(first.policy.get_weights(), second.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_class_of_an_environment_makes_as_many_as_the_agent_wants(tmp_path):
    from gymnasium.envs.classic_control import CartPoleEnv

    agent = A2C(num_envs=3, num_steps=8)
    run = rlgrad.train(
        agent,
        CartPoleEnv,
        total_timesteps=48,
        max_episode_steps=20,
        run_dir=tmp_path / "run",
        evaluation_episodes=0,
        verbose=False,
    )
    assert run.collector.num_envs == 3
    assert run.evaluate(4).episodes == 4
