"""Small variables side by side in one vector: the same steps, and checkpoints of earlier versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.streams import traces_in

import rlgrad
from rlgrad.agents import A2C
from rlgrad.updates import Ascent, PerHead, Traces, weight_blocks
from rlgrad.updates.base import slots_in
from rlgrad.updates.weight_blocks import Blocks

OPTIMIZERS = {
    "sgd": keras.optimizers.SGD(0.1),
    "momentum": keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": keras.optimizers.Adam(0.1),
    "adamw": keras.optimizers.AdamW(0.1),
    "rmsprop": keras.optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    "adagrad": keras.optimizers.Adagrad(0.1),
    "adadelta": keras.optimizers.Adadelta(1.0),
    "adamax": keras.optimizers.Adamax(0.1),
    "nadam": keras.optimizers.Nadam(0.1),
    "lion": keras.optimizers.Lion(0.1),
}
SHAPES = [(5, 3), (3,), (3, 4), (4,), (2, 2, 2)]
ONE_VECTOR, APART = float("inf"), -1


def variables():
    return [keras.Variable(tf.random.stateless_normal(s, [i, 7]), name="v") for i, s in enumerate(SHAPES)]


def gradients_of(step, found, lead=()):
    return [tf.random.stateless_normal((*lead, *v.shape), [step, i]) for i, v in enumerate(found)]


def steps(state, found, begin, end):
    for step in range(begin, end):
        state.apply_gradient(dict(zip("abcde", gradients_of(step, found), strict=True)))


@pytest.fixture
def largest(monkeypatch):
    """Say which variables are large: those with more numbers."""

    def choose(most):
        monkeypatch.setattr(weight_blocks, "LARGEST", most)

    choose(10)
    return choose


def test_blocks_are_a_vector_of_the_small_and_each_large_one_by_itself():
    found = variables()
    parted = Blocks(found, 10)
    assert (parted.side_by_side, parted.alone, parted.shapes) == ([1, 3, 4], [0, 2], [(15,), (5, 3), (3, 4)])
    for lead in ((), (6,)):
        tensors = gradients_of(0, found, lead)
        joined = parted.join(tensors, lead)
        assert [tuple(x.shape) for x in joined] == [(*lead, *shape) for shape in parted.shapes]
        for there, back in zip(tensors, parted.split(joined, lead), strict=True):
            np.testing.assert_array_equal(there, back)
    assert Blocks(found, ONE_VECTOR).shapes == [(42,)]
    assert Blocks(found, APART).shapes == SHAPES


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_in_blocks_are_those_of_the_optimizer(largest, name):
    found, expected = variables(), variables()
    state = Ascent(optimizer=OPTIMIZERS[name]).build(found)
    assert [tuple(v.shape) for v in state.flat.moved] == [(15,), (5, 3), (3, 4)]
    steps(state, found, 0, 5)
    optimizer = type(OPTIMIZERS[name]).from_config(OPTIMIZERS[name].get_config())
    for step in range(5):
        optimizer.apply([-g for g in gradients_of(step, expected)], expected)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("before", [ONE_VECTOR, APART, 13])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_of_a_checkpoint_of_an_earlier_version_go_on(largest, name, before):
    largest(before)
    found = variables()
    state = Ascent(optimizer=OPTIMIZERS[name]).build(found)
    steps(state, found, 0, 4)
    kept, values = [slot.numpy() for slot in state.slots], [v.numpy() for v in found]
    steps(state, found, 4, 8)

    largest(10)
    again = variables()
    later = Ascent(optimizer=OPTIMIZERS[name]).build(again)
    read = slots_in(later, kept)
    if before == 13:  # of no version
        assert read is None or [x.shape for x in read] == [x.shape for x in kept]
        return
    for variable, array in zip([*again, *later.slots], [*values, *read], strict=True):
        variable.assign(array)
    steps(later, again, 4, 8)
    for mine, theirs in zip(again, found, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_moments_of_variables_that_are_all_large_now_go_on_from_the_vector_that_they_were(largest):
    largest(ONE_VECTOR)
    found = variables()
    state = Ascent().build(found)
    steps(state, found, 0, 2)
    kept = [slot.numpy() for slot in state.slots]
    largest(APART)
    later = Ascent().build(found)
    assert later.flat is None
    read = slots_in(later, kept)
    assert [x.shape for x in read] == [tuple(slot.shape) for slot in later.slots]
    np.testing.assert_array_equal(np.concatenate([x.reshape(-1) for x in read[2::2]]), kept[2])
    assert slots_in(Ascent(optimizer=keras.optimizers.Adam(0.1, clipnorm=1.0)).build(found), kept) is None


@pytest.mark.parametrize("rule", ["obgd", "adaptive_obgd"])
def test_traces_of_a_checkpoint_of_an_earlier_version_go_on(largest, rule):
    largest(ONE_VECTOR)
    update, found = Traces(step=rule), variables()
    state = update.build(found, 3)
    for step in range(3):
        rows = dict(zip("abcde", gradients_of(step, found, (3,)), strict=True))
        state.apply_gradient(rows, error=[1.0, -0.5, 2.0], decay=0.9)
    largest(10)
    later = update.build(found, 3)
    kept = [slot.numpy() for slot in state.slots]
    assert [x.shape for x in kept] != [tuple(slot.shape) for slot in later.slots]
    for slot, array in zip(later.slots, slots_in(later, kept), strict=True):
        slot.assign(array)
    np.testing.assert_array_equal(traces_in(later), traces_in(state))
    before, ends = [v.numpy() for v in found], []
    for each in (state, later):
        for variable, value in zip(found, before, strict=True):
            variable.assign(value)
        each.apply_gradient(rows, error=[0.5, 1.0, -1.0], decay=0.9, ends=[True, False, False])
        ends.append([v.numpy() for v in found])
    for mine, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert slots_in(later, kept[:-1]) is None


def test_a_run_with_large_layers_resumes_from_a_checkpoint_of_an_earlier_version(tmp_path, largest):
    """Whose policy and value had an optimizer each; the slots of both are told apart."""
    update = PerHead(policy=Ascent(optimizer="adam", learning_rate=0.01), value=Ascent(optimizer="sgd"))
    settings = {"hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False}

    def begin(name):
        agent = A2C(update=update, num_envs=2, num_steps=5)
        return rlgrad.train(agent, "CartPole-v1", total_timesteps=50, run_dir=tmp_path / name, **settings)

    weights = []
    for before in (ONE_VECTOR, 10):
        largest(before)
        run = begin(str(before))
        kept = [tuple(slot.shape) for slot in run.learner.state.slots]
        largest(10)
        again = rlgrad.load(run.path, verbose=False)
        assert (kept == [tuple(slot.shape) for slot in again.learner.state.slots]) == (before == 10)
        again.train(100)
        weights.append([v.numpy() for v in again.policy.trainable_variables])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
