"""Schedules of Keras as learning rates, and the rate that is logged: that of the last step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rlgrad.agents import A2C
from rlgrad.config import from_mapping, to_yaml
from rlgrad.core.yaml_documents import load
from rlgrad.updates import Ascent, PerHead

BASE = {"env": "CartPole-v1", "total_timesteps": 100}
HALVING = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)  # 0.5, 0.25, 0.125, …


def steps(ascent, count):
    """Weight and logged rate after each of `count` steps along a gradient of 1."""
    weight = keras.Variable(0.0)
    state = ascent.build([weight])
    for _ in range(count):
        state.apply_gradient({"weight": tf.constant(1.0)})
        yield float(weight.value), float(state.last_rate)


@pytest.mark.parametrize(
    "ascent",
    [
        Ascent(optimizer="sgd", learning_rate=HALVING),
        Ascent(optimizer=keras.optimizers.SGD(HALVING)),
    ],
)
def test_each_step_is_taken_and_logged_at_the_rate_of_the_schedule(ascent):
    assert list(steps(ascent, 3)) == [(0.5, 0.5), (0.75, 0.25), (0.875, 0.125)]


def test_a_constant_rate_is_logged_as_it_is():
    assert [rate for _, rate in steps(Ascent(optimizer="sgd", learning_rate=0.25), 2)] == [0.25, 0.25]


def test_a_schedule_keeps_the_other_options_of_the_optimizer_and_is_written_down():
    update = Ascent(optimizer="rmsprop", optimizer_options={"rho": 0.5}, learning_rate=HALVING)
    assert update.optimizer.rho == 0.5
    config = from_mapping(BASE | {"agent": {"name": "a2c"}})
    written = to_yaml(from_mapping(BASE | {"agent": {"name": "a2c"}}, A2C(update=update)), {})
    again = from_mapping(load(written)).agent.update
    assert again.optimizer.get_config() == update.optimizer.get_config()
    assert config.agent.update.optimizer_options == A2C().update.optimizer_options


def test_a_person_writes_optimizers_and_schedules_by_their_names_alone():
    schedule = {
        "class_name": "ExponentialDecay",
        "config": {"initial_learning_rate": 0.5, "decay_steps": 1, "decay_rate": 0.5},
    }
    optimizer = {"class_name": "SGD", "config": {"learning_rate": schedule}}
    ascent = from_mapping(BASE | {"agent": {"name": "a2c", "update": {"optimizer": optimizer}}}).agent.update
    assert [rate for _, rate in steps(ascent, 2)] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"learning_rate": lambda progress: progress}, "a schedule of keras.optimizers.schedules or None"),
        ({"learning_rate": HALVING, "optimizer": keras.optimizers.SGD(0.1)}, "set it there, and here to None"),
        ({"learning_rate": HALVING, "learning_rate_schedule": "linear"}, "schedule of its own"),
        ({"learning_rate": HALVING, "optimizer": "sgdd"}, "Did you mean 'sgd'"),
        (
            {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1))},
            "give the optimizer inside it, Adam",
        ),
    ],
)
def test_what_cannot_be_a_rate_is_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Ascent(**options)


def test_an_update_of_several_takes_schedules_in_each():
    update = PerHead(policy=Ascent(learning_rate=HALVING), value=Ascent(learning_rate=np.float64(0.5)))
    assert update.policy.learning_rate is None
    assert type(update.value.learning_rate) is float
