"""A run that continues in environments which are stepped in another way; and rows to which more is added than is logged."""

import logging

import gymnasium
import pytest

import rlgrad
from rlgrad.callbacks import Callback

ENVIRONMENTS = {
    "vector_entry_point": "CartPole-v1",
    "compiled": "rlgrad/CartPole-v1",
    "sync": lambda: gymnasium.make("CartPole-v1"),
}
QUICK = {
    "num_envs": 2,
    "num_steps": 10,
    "evaluation_episodes": 0,
    "verbose": False,
    "hidden_sizes": (4,),
    "logs": ("csv",),
}


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def left(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("left") / "run"
    run = rlgrad.train("a2c", ENVIRONMENTS[request.param], total_timesteps=40, run_dir=folder, **QUICK)
    assert run.collector.vectorization_mode == request.param
    run.close()
    return request.param, folder, [weight.copy() for weight in run.policy.get_weights()]


@pytest.mark.parametrize("other", ENVIRONMENTS)
def test_a_run_continues_in_environments_that_are_stepped_in_another_way(left, other, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    before, folder, weights = left
    run = rlgrad.load(folder, env=ENVIRONMENTS[other], verbose=False)
    assert all((mine == theirs).all() for mine, theirs in zip(weights, run.policy.get_weights(), strict=True))
    run.path = tmp_path  # its own folder stays as it was
    assert run.collector.vectorization_mode == other
    rollout = run.collector.collect(run.policy)
    assert rollout.rewards.shape == (10, 2)
    run.close()
    assert ("new episodes" in caplog.text) == (before != other)


def test_another_number_of_environments_is_refused_with_what_to_do(left):
    _, folder, _ = left
    run = rlgrad.load(folder, env=ENVIRONMENTS[left[0]], verbose=False)
    agent = run.config.agent
    run.close()
    with pytest.raises(ValueError, match=r"begin a new run, with this run's policy as its model|another model"):
        rlgrad.load(folder, env=ENVIRONMENTS[left[0]], agent=type(agent)(num_envs=3, num_steps=10), verbose=False)


class Adds(Callback):
    """Adds one number that it declares, and one that it does not."""

    metrics = ("mine/declared",)

    def on_update(self, run, metrics):
        metrics["mine/declared"], metrics["mine/other"] = 1.0, 2.0


def test_a_number_that_no_callback_declares_is_told_of_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    run = rlgrad.train("a2c", "CartPole-v1", total_timesteps=100, callbacks=Adds(), run_dir=tmp_path / "run", **QUICK)
    assert run.history["mine/declared"] == [1.0] * 5
    assert "mine/other" not in run.history
    said = [record.getMessage() for record in caplog.records if "mine/other" in record.getMessage()]
    assert len(said) == 1
    assert "metrics = ('mine/other',)" in said[0]


def test_a_finished_run_has_nothing_left_to_train(tmp_path, caplog):
    """So a script that is started once more after a kill need not know how far it had come."""
    caplog.set_level(logging.INFO)
    rlgrad.train("a2c", "CartPole-v1", total_timesteps=45, run_dir=tmp_path / "run", **QUICK).close()
    content = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    run = rlgrad.load(tmp_path / "run", verbose=False)
    assert run.train() is run
    assert run.timesteps == 40
    assert "nothing is left to train" in caplog.text
    run.close()
    assert {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()} == content
    with pytest.raises(ValueError, match="leaves no room"):
        rlgrad.load(tmp_path / "run", verbose=False).train(45)
