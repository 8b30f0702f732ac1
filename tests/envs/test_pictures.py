"""Pictures of the environments that are written in TensorFlow: Gymnasium's own renderer of the same state, or the class's."""

import gymnasium
import numpy as np
import pytest

import rlgrad
from rlgrad.environments.drawing import can_be_seen, make_drawn
from rlgrad.environments.functional import FunctionalEnv
from rlgrad.environments.ids import load_class
from rlgrad.envs import Acrobot, Breakout, CartPole, MountainCar, MountainCarContinuous, Pendulum, ShortCorridor

TWINS = {
    "CartPole-v1": (CartPole, [0.5, 0.1, -0.1, 0.2]),
    "Acrobot-v1": (Acrobot, [0.5, -1.0, 0.1, 0.2]),
    "MountainCar-v0": (MountainCar, [-0.9, 0.01]),
    "MountainCarContinuous-v0": (MountainCarContinuous, [0.2, 0.01]),
    "Pendulum-v1": (Pendulum, [1.0, 0.5]),
}
OWN = '''
import numpy as np, tensorflow as tf
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv

class Walk(FuncEnv):
    """Its picture is as grey as the walk is far."""
    observation_space, action_space = spaces.Box(0.0, 9.0, (1,), np.float32), spaces.Discrete(2)
    max_episode_steps, render_fps = 4, 12
    def initial(self, rng, params=None): return tf.zeros(tf.shape(rng)[:-1], tf.int32)
    def transition(self, state, action, rng, params=None): return state + 1
    def observation(self, state, rng, params=None): return tf.cast(state, tf.float32)[..., None]
    def reward(self, state, action, next_state, rng, params=None): return tf.ones(tf.shape(state), tf.float32)
    def terminal(self, state, rng, params=None): return tf.zeros(tf.shape(state), tf.bool)
    def render(self, state): return np.full((6, 8, 3), 20 * state, np.uint8)

class Blind(FuncEnv):
    observation_space, action_space = Walk.observation_space, Walk.action_space
    initial, transition, observation, reward, terminal = (
        Walk.initial, Walk.transition, Walk.observation, Walk.reward, Walk.terminal)

class Odd(Walk):
    def transition(self, state, action, rng, params=None): raise KeyError("lost")
'''


@pytest.mark.parametrize("env_id", TWINS)
def test_the_picture_of_a_state_is_gymnasiums(env_id):
    cls, state = TWINS[env_id]
    twin = gymnasium.make(env_id, render_mode="rgb_array")
    twin.reset(seed=0)
    twin.unwrapped.state = np.array(state)
    picture = cls().render(np.array(state, np.float32))
    np.testing.assert_allclose(picture, twin.render(), atol=1)  # of a state in float32
    assert not np.array_equal(picture, cls().render(np.array(state, np.float32) - 0.4))
    twin.close()


@pytest.mark.parametrize("cls", [Breakout, ShortCorridor])
def test_grids_are_drawn_by_their_class(cls):
    env = FunctionalEnv(cls(), "rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    env.step(1)
    assert not np.array_equal(first, env.render())


def test_every_cell_of_a_grid_has_the_colour_of_what_is_there():
    black, white, green = (0, 0, 0), (255, 255, 255), (0, 120, 0)
    for state in range(4):
        picture = ShortCorridor().render(np.int32(state))
        colours = [tuple(picture[30, 60 * cell + 30].tolist()) for cell in range(4)]
        assert colours == [white if cell == state else green if cell == 3 else black for cell in range(4)]
    nothing = np.zeros((10, 10), bool)
    bricks = nothing.copy()
    bricks[2, 7] = True
    numbers = {name: np.int32(n) for name, n in (("x", 5), ("y", 6), ("trail_x", 4), ("trail_y", 5), ("paddle", 3))}
    blank = Breakout().initial(np.zeros(2, np.int32))._replace(bricks=bricks, **numbers)
    picture = Breakout().render(blank)
    size = picture.shape[0] // 10
    cells = picture[size // 2 :: size, size // 2 :: size]
    expected = {(9, 3): white, (6, 5): (255, 220, 0), (5, 4): (90, 80, 0), (2, 7): (200, 60, 40)}
    for row in range(10):
        for column in range(10):
            assert tuple(cells[row, column].tolist()) == expected.get((row, column), black), (row, column)


def test_a_class_of_ones_own_is_drawn_to_its_end(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    assert can_be_seen(f"{tmp_path}/own.py:Walk")
    env = make_drawn(f"{tmp_path}/own.py:Walk", "rgb_array", {}, (), None)
    assert env.metadata["render_fps"] == 12
    env.reset(seed=0)
    greys, over = [env.render()[0, 0, 0]], False
    while not over:
        over = env.step(0)[3]
        greys.append(env.render()[0, 0, 0])
    assert greys == [0, 20, 40, 60, 80]


def test_what_has_no_picture_is_not_offered_and_says_what_it_lacks(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    place = f"{tmp_path}/own.py:Blind"
    assert not can_be_seen(place)
    assert not can_be_seen(lambda: None)
    with pytest.raises(ValueError, match=r"a method render\(self, state\) of its class, which Blind lacks"):
        make_drawn(place, "rgb_array", {}, (), None)


def test_what_a_function_raises_is_told_with_its_name_and_its_own_traceback(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    env = FunctionalEnv(load_class(f"{tmp_path}/own.py:Odd")())
    with pytest.raises(rlgrad.EnvironmentFault, match=r"Odd.transition raised KeyError: 'lost'") as caught:
        env.reset(seed=0)
    assert isinstance(caught.value.__cause__, KeyError)
    assert 'raise KeyError("lost")' in caught.value.trace
