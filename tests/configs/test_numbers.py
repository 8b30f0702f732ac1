"""Numbers as people have them: of NumPy, `1e5` and "1000" for counts. What is no number is refused before anything is made."""

import numpy as np
import pytest
import yaml

import rlgrad
from rlgrad.agents import A2C, PPO
from rlgrad.cli import options
from rlgrad.config import Config, from_mapping, to_yaml
from rlgrad.hyperparameters import Record, fields
from rlgrad.updates import Ascent, NaturalGradient


def test_a_config_holds_pythons_own_numbers_whatever_came():
    given = Config(
        agent=A2C(
            gamma=np.linspace(0.9, 0.99, 2)[0],
            num_envs="8",
            num_steps=np.int32(5),
            update=Ascent(learning_rate=np.float32(0.5), num_epochs=1e0),
        ),
        env="Pendulum-v1",
        total_timesteps=1e5,
        seed=np.arange(3)[1],
        env_kwargs={"g": np.float64(9.81), "sizes": [np.int8(3)], "flag": np.bool_(True)},
        hidden_sizes=np.array([3, 4]),
        evaluation_interval="1e3",
        time_budget=np.int64(3),
        diagnose=np.bool_(True),
    )
    expected = Config(
        agent=A2C(gamma=0.9, num_envs=8, num_steps=5, update=Ascent(learning_rate=0.5)),
        env="Pendulum-v1",
        total_timesteps=100_000,
        seed=1,
        env_kwargs={"g": 9.81, "sizes": [3], "flag": True},
        hidden_sizes=(3, 4),
        evaluation_interval=1000,
        time_budget=3.0,
        diagnose=True,
    )
    assert given == expected
    assert repr(given) == repr(expected)  # np.int64(1) == 1, but YAML cannot write it
    assert from_mapping(yaml.safe_load(to_yaml(given, {}))) == expected


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: A2C(gamma=True), "gamma is a number, got True"),
        (lambda: A2C(num_envs=2.5), "num_envs is an integer, got 2.5"),
        (lambda: A2C(num_envs=np.bool_(True)), "num_envs is an integer, got True"),
        (lambda: PPO(num_steps="many"), "num_steps is an integer or null, got 'many'"),
        (lambda: NaturalGradient(target_kl=[0.1]), r"target_kl is a number or null, got \[0.1\]"),
        (lambda: Config(agent=A2C(), env="e", total_timesteps=True), "total_timesteps is an integer, got True"),
        (lambda: Config(agent=A2C(), env="e", total_timesteps=1000.5), "total_timesteps is an integer, got 1000.5"),
        (lambda: Config(agent=A2C(), env="e", total_timesteps=float("inf")), "total_timesteps is an integer, got inf"),
        (lambda: Config(agent=A2C(), env="e", total_timesteps=9, patience="3.5"), "patience is an integer or null"),
        (lambda: Config(agent=A2C(), env="e", total_timesteps=9, diagnose=1), "diagnose is true or false, got 1"),
    ],
)
def test_what_is_no_number_is_refused_where_it_is_given(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_large_counts_as_text_keep_all_their_digits():
    assert Config(agent=A2C(), env="e", total_timesteps=str(10**15 - 1)).total_timesteps == 10**15 - 1


def test_a_record_of_ones_own_takes_them_too_and_may_take_more():
    class Own(Record):
        sizes: tuple[int, ...] = (1,)
        rate: float = 0.0

        def __post_init__(self) -> None:
            assert type(self.rate) is float

    assert fields(Own(sizes=[np.int16(2), "3"], rate=np.float32(1))) == {"sizes": (2, 3), "rate": 1.0}


def test_the_command_line_takes_counts_as_people_write_them():
    config, _ = options.parse(
        {"agent": {"name": "ppo"}, "env": "e"}, ["--total-timesteps", "1e5", "--agent.num-envs=2e0"], prog="t"
    )
    assert (config.total_timesteps, config.agent.num_envs) == (100_000, 2)


def test_settings_that_no_file_holds_are_refused_before_the_folder_is_made(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=r"config\.yaml can hold, and one of them holds a ndarray"):
        rlgrad.train(
            A2C(), "Pendulum-v1", total_timesteps=400, env_kwargs={"g": np.zeros(3)}, run_dir=folder, verbose=False
        )
    assert not folder.exists()


def test_a_folder_of_a_call_that_failed_is_not_in_the_way(tmp_path, monkeypatch):
    folder, options_ = tmp_path / "run", {"total_timesteps": 64, "num_envs": 2, "num_steps": 16, "verbose": False}
    with monkeypatch.context() as patch:
        patch.setattr("rlgrad.runs.training.provenance.write", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rlgrad.train("a2c", "CartPole-v1", run_dir=folder, evaluation_episodes=0, **options_)
    assert not folder.exists()
