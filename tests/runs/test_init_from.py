"""A run begins with another run's weights: what fits is taken, and what does not is said."""

import keras
import numpy as np
import pytest

import rlgrad
from rlgrad.agents import A2C, DQN

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")
QUICK = {"num_envs": 2, "num_steps": 8, "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}
SMALL = {"hidden_sizes": (4,), "total_timesteps": 64}


class First(rlgrad.Callback):
    """Keeps the weights that a run begins with."""

    def on_start(self, run):
        self.weights = {v.path: v.numpy() for v in run.policy.variables}


def weights(run):
    return {v.path: v.numpy() for v in run.policy.variables}


@pytest.fixture
def source():
    return rlgrad.train(A2C(normalize_observations=True), "CartPole-v1", run_dir="source", **QUICK | SMALL)


def test_all_weights_are_taken_the_normalizer_too_and_nothing_else(source, caplog):
    first = First()
    agent = A2C(normalize_observations=True)
    with caplog.at_level("INFO", "rlgrad"):
        run = rlgrad.train(agent, "CartPole-v1", init_from="source", seed=1, callbacks=first, **QUICK | SMALL)
    np.testing.assert_equal(first.weights, weights(source))
    assert "All 11 variables begin with the weights of source." in caplog.text
    assert (run.timesteps, run.updates) == (64, 4)
    assert run.config.init_from == "source"


def test_what_does_not_fit_is_said_and_keeps_its_own_values(source, caplog):
    first, fresh = First(), First()
    options = QUICK | SMALL | {"num_envs": 2}
    rlgrad.train("a2c", "Acrobot-v1", callbacks=fresh, **options)
    rlgrad.train("a2c", "Acrobot-v1", init_from="source", callbacks=first, **options)
    (said,) = [record.message for record in caplog.records if "Weights of source" in record.message]
    # 4 observations against 6, for two networks; 2 actions against 3.
    assert "4 of this run's 8 variables were taken" in said
    assert "counterpart there: policy/hidden_1/kernel (6, 4), policy/output/kernel (4, 3), policy/output/bias" in said
    assert "Not taken: policy/hidden_1/kernel (4, 4)" in said
    theirs = weights(source)
    for path, value in first.weights.items():
        taken = path in theirs and theirs[path].shape == value.shape
        np.testing.assert_array_equal(value, theirs[path] if taken else fresh.weights[path])


def test_models_of_one_shape_fit_whatever_their_layers_are_called():
    def model(*names):
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(5, name=names[0]), keras.layers.Dense(2, name=names[1])]
        )

    first = First()
    source = rlgrad.train("a2c", "CartPole-v1", model=model("a", "b"), run_dir="source", **QUICK | SMALL)
    rlgrad.train("a2c", "CartPole-v1", model=model("c", "d"), init_from="source", callbacks=first, **QUICK | SMALL)
    for mine, theirs in zip(first.weights.values(), weights(source).values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_target_weights_begin_with_them_too():
    agent, options = DQN(num_envs=1), {"num_steps": 8, "evaluation_episodes": 0, "verbose": False, **SMALL}
    source = rlgrad.train(agent, "CartPole-v1", run_dir="source", **options)
    run = rlgrad.train(agent, "CartPole-v1", init_from="source", **options | {"total_timesteps": 8})
    for mine, theirs in zip(run.learner.memories["target"], source.policy.variables, strict=False):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_a_checkpoint_may_be_named_and_a_loaded_run_keeps_its_own_weights():
    source = rlgrad.train("a2c", "CartPole-v1", run_dir="source", **QUICK | SMALL | {"total_timesteps": 640})
    oldest = min((source.path / "checkpoints").glob("0*.npz"))
    first = First()
    run = rlgrad.train("a2c", "CartPole-v1", init_from=oldest, run_dir="run", callbacks=first, **QUICK | SMALL)
    with source.weights_at(int(oldest.stem)):
        np.testing.assert_equal(first.weights, weights(source))
    assert any((first.weights[path] != value).any() for path, value in weights(source).items())
    for file in source.path.rglob("*.npz"):
        file.unlink()  # what a run began with is not asked again
    loaded = rlgrad.load("run", verbose=False)
    np.testing.assert_equal(weights(loaded), weights(run))
    assert loaded.config.init_from == str(oldest.resolve())


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere", "init_from: .*nowhere"),
        ("source/checkpoints/7.npz", "init_from: there is no checkpoint 'source/checkpoints/7.npz'"),
        (
            "source",
            r"init_from: nothing of source fits. Its variables: policy/hidden_1/kernel \(4, 4\).*This run's: .*\(2,",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_before_a_folder_is_made(source, says, tmp_path):
    rlgrad.train("a2c", "CartPole-v1", run_dir="source", **QUICK | SMALL)
    options = QUICK | {"total_timesteps": 64, "hidden_sizes": (3,)}
    with pytest.raises(ValueError, match=says):
        rlgrad.train(DQN(), "MountainCar-v0", init_from=source, run_dir="r", **options)
    assert not (tmp_path / "r").exists()


def test_init_from_is_an_option():
    from rlgrad.cli.commands.train import parse_command

    assert parse_command(["cartpole", "--init-from", "runs/a"])[0].init_from == "runs/a"
