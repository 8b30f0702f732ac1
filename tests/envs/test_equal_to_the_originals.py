"""Each environment is the original, transition by transition: Gymnasium's classic control and MinAtar's Breakout.

The originals of classic control compute in float64, but for MountainCarContinuous, which keeps its state in float32; ours
compute in float32. What is discrete (over or not, a reward that depends on it) must agree wherever the original is further from
the border than the tolerance. Half of the states are drawn from all over the state space, half from near the borders where
episodes end.
"""

import importlib.util
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from helpers.slow import mostly_slow
from record_minatar import RECORDING, record

from rlgrad import envs, random

PI = np.pi
COUNT = 10_000
RNG = np.zeros((COUNT, 2), np.int32)


def fallen(s):
    return np.maximum(np.abs(s[:, 0]) - 2.4, np.abs(s[:, 2]) - np.radians(12))


def arrived(place, velocity=0.0):
    return lambda s: np.minimum(s[:, 0] - place, s[:, 1] - velocity)


def risen(s):
    return -np.cos(s[:, 0]) - np.cos(s[:, 0] + s[:, 1]) - 1.0


def upside_down(s):
    """Pendulum's episodes never end, but here its angle is wrapped."""
    return s[:, 0] % (2 * PI) - PI


class Case(NamedTuple):
    """An original and what is known of it.

    Attributes:
        original: its id.
        ours: the class that must be equal to it.
        kwargs: the arguments of both.
        high: where states are drawn from, on the upper side.
        border: of states (M, …), how far they are beyond the border where an episode ends.
        low: as `high`, on the lower side; else its negative.
        angles: how many of the state's first numbers are angles, which are the same a turn later.
        tolerance: for 99 in 100 states, and for all.
        reward_tolerance: for rewards.
    """

    original: str
    ours: Any
    kwargs: dict[str, Any]
    high: list[float]
    border: Any
    low: list[float] | None = None
    angles: int = 0
    tolerance: tuple[float, float] = (1e-6, 1e-6)
    reward_tolerance: float = 0.0


CARTPOLE = Case("CartPole-v1", envs.CartPole, {}, [2.6, 4.0, 0.25, 4.0], fallen)
ACROBOT = Case("Acrobot-v1", envs.Acrobot, {}, [PI, PI, 4 * PI, 9 * PI], risen, angles=2, tolerance=(1e-4, 5e-3))
CAR = Case("MountainCar-v0", envs.MountainCar, {}, [0.6, 0.07], arrived(0.5), low=[-1.2, -0.07])
CONTINUOUS = Case(
    "MountainCarContinuous-v0",
    envs.MountainCarContinuous,
    {},
    [0.6, 0.07],
    arrived(0.45),
    low=[-1.2, -0.07],
    reward_tolerance=1e-5,
)
PENDULUM = Case("Pendulum-v1", envs.Pendulum, {}, [3 * PI, 8.0], upside_down, angles=1, reward_tolerance=1e-5)
DEFAULTS = [CARTPOLE, ACROBOT, CAR, CONTINUOUS, PENDULUM]
CASES = [
    *DEFAULTS,
    CARTPOLE._replace(kwargs={"sutton_barto_reward": True}),
    CAR._replace(kwargs={"goal_velocity": 0.02}, border=arrived(0.5, 0.02)),
    CONTINUOUS._replace(kwargs={"goal_velocity": 0.02}, border=arrived(0.45, 0.02)),
    PENDULUM._replace(kwargs={"g": 9.81}),
]


def name(case):
    return "-".join([case.original, *case.kwargs])


@pytest.mark.parametrize("case", DEFAULTS, ids=name)
def test_what_is_registered_is_the_same(case):
    ours, original = gymnasium.make(f"rlgrad/{case.original}"), gymnasium.make(case.original)
    assert ours.observation_space == original.observation_space
    assert ours.action_space == original.action_space
    assert ours.spec.max_episode_steps == original.spec.max_episode_steps
    assert ours.spec.reward_threshold == original.spec.reward_threshold


def states_and_actions(case, original):
    """float32 (10_000, …) and actions, of a Box up to half as much again as it allows."""
    rng = np.random.default_rng(0)
    high = np.array(case.high)
    low = -high if case.low is None else np.array(case.low)
    drawn = rng.uniform(low, high, (60_000, len(high)))
    near = drawn[np.argsort(np.abs(case.border(drawn)))[: COUNT // 2]]
    space = original.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        actions = rng.integers(space.n, size=COUNT)
    else:
        actions = rng.uniform(1.5 * space.low, 1.5 * space.high, (COUNT, *space.shape)).astype(np.float32)
    return np.concatenate([drawn[: COUNT // 2], near]).astype(np.float32), actions


def steps_of(original, states, actions):
    """Next states, observations, rewards and ends: float64 (M, …) and bool."""
    kept = np.float32 if original.spec.id == "MountainCarContinuous-v0" else np.float64
    original.reset(seed=0)
    rows = []
    for state, action in zip(states.astype(kept), actions, strict=True):
        original.state, original.steps_beyond_terminated = state, None
        observation, reward, over, _, _ = original.step(action)
        rows.append((np.array(original.state, np.float64), observation, float(reward), over))
    return map(np.array, zip(*rows, strict=True))


def steps_of_ours(env, states, actions):
    following = env.transition(states, actions, RNG)
    reward = env.reward(states, actions, following, RNG)
    return following, env.observation(following, RNG), reward, env.terminal(following, RNG)


def between(ours, theirs, angles=0):
    """The absolute differences, of angles at most half a turn."""
    difference = np.abs(np.asarray(ours, np.float64) - theirs)
    difference[:, :angles] = np.abs((difference[:, :angles] + PI) % (2 * PI) - PI)
    return difference


@mostly_slow("case", {name(case): case for case in CASES}, quick=[name(case) for case in DEFAULTS])
def test_transitions_equal_the_originals_eager_and_compiled(case):
    original, env = gymnasium.make(case.original, **case.kwargs).unwrapped, case.ours(**case.kwargs)
    states, actions = states_and_actions(case, original)
    following, observations, rewards, over = steps_of(original, states, actions)
    clear = np.abs(case.border(following)) > case.tolerance[1]
    assert clear.mean() > 0.99
    if case.ours is not envs.Pendulum:
        assert 0.05 < over.mean() < 0.95  # both happen

    tensors = tf.constant(states), tf.constant(actions)
    compiled = tf.function(lambda *arguments: steps_of_ours(env, *arguments), jit_compile=True, autograph=False)
    for run in (lambda *arguments: steps_of_ours(env, *arguments), compiled):
        ours = [x.numpy() for x in run(*tensors)]
        assert [x.dtype for x in ours] == [np.float32, np.float32, np.float32, bool]
        apart = between(ours[0], following, case.angles).max(axis=1), between(ours[1], observations).max(axis=1)
        for difference in apart:
            assert np.quantile(difference, 0.99) <= case.tolerance[0]
            assert difference.max() <= case.tolerance[1]
        np.testing.assert_allclose(ours[2][clear], rewards[clear], rtol=0, atol=case.reward_tolerance)
        np.testing.assert_array_equal(ours[3][clear], over[clear])


STRAIGHT = np.float32(np.radians(12))
BORDERS = {  # states exactly on the border of an episode's end, and whether that is an end
    "pole": (envs.CartPole(), [[2.4, 0, 0, 0], [-2.4, 0, 0, 0], [0, 0, STRAIGHT, 0], [0, 0, -STRAIGHT, 0]], False, 2),
    "tip": (envs.Acrobot(), [[PI, PI / 2, 0, 0]], False, 1),
    "car": (envs.MountainCar(), [[0.5, 0.0]], True, 2),
    "fast car": (envs.MountainCar(goal_velocity=0.02), [[0.5, 0.02]], True, 2),
    "throttle": (envs.MountainCarContinuous(), [[0.45, 0.0]], True, 2),
    "fast throttle": (envs.MountainCarContinuous(goal_velocity=0.02), [[0.45, 0.02]], True, 2),
}


@pytest.mark.parametrize(("env", "states", "is_end", "numbers"), BORDERS.values(), ids=BORDERS)
def test_on_the_border_itself_it_is_an_end_where_the_original_says_at_least_and_else_not(env, states, is_end, numbers):
    """One float32 further out, in each of the numbers that decide, it is the other way round."""
    states = np.float32(states)
    over = lambda s: env.terminal(tf.constant(s), RNG[: len(s)]).numpy().tolist()
    assert over(states) == [is_end] * len(states)
    for state in states:
        for number in np.flatnonzero(state) if numbers > 1 else []:
            moved = state.copy()
            moved[number] = np.nextafter(
                state[number], np.float32(-np.inf if is_end else np.sign(state[number]) * np.inf)
            )
            assert over(moved[None]) == [not is_end], f"{moved} beside {state}"


def test_the_wall_stops_the_mountain_car():
    states = tf.constant([[-1.19, -0.05], [-1.2, -0.07], [-1.2, 0.0]])
    actions = tf.constant([0, 0, 2])
    np.testing.assert_allclose(
        envs.MountainCar().transition(states, actions, RNG[:3]),
        [[-1.2, 0.0], [-1.2, 0.0], [-1.1967582, 0.0032418]],
        atol=1e-6,
    )


@pytest.mark.parametrize("case", DEFAULTS, ids=name)
def test_episodes_start_as_the_originals_do(case):
    original, env = gymnasium.make(case.original).unwrapped, case.ours()
    original.reset(seed=0)
    theirs = np.array([(original.reset(), np.array(original.state))[1] for _ in range(COUNT)])
    ours = env.initial(random.split(tf.constant([1, 2]), COUNT)).numpy().astype(np.float64)
    assert ours.shape == theirs.shape
    for mine, other in zip(ours.T, theirs.T, strict=True):
        # Kolmogorov and Smirnov's distance of two samples: beyond this once in 130,000 times.
        assert distance(mine, other) < 2.5 * np.sqrt(2 / COUNT)
    moving = ours[:, ours.std(axis=0) > 0]
    correlations = np.corrcoef(moving, rowvar=False).reshape(-1)
    assert (np.abs(correlations[correlations < 0.999]) < 5 / np.sqrt(COUNT)).all()  # five deviations


def distance(one, other):
    both = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (one, other)]
    return np.abs(shares[0] - shares[1]).max()


@pytest.fixture(scope="module")
def games():
    """MinAtar's games as they were recorded, and ours with the same actions from the same starts, in one XLA program."""
    with np.load(RECORDING) as recording:
        theirs = dict(recording)
    env = envs.Breakout(use_minimal_action_set=False, sticky_action_prob=0.0)
    # A seed of each start: the ball on the left, on the right.
    rng = random.split(tf.constant([0, 0]), 20)
    right = env.initial(rng).x.numpy() == 9
    starts = tf.stack([rng[int(np.argmin(right))], rng[int(np.argmax(right))]])
    sides = np.repeat(theirs["side"], np.diff([*np.flatnonzero(theirs["first"]), len(theirs["first"])])).astype(
        np.int32
    )
    length = len(sides)
    nothing = tf.zeros((2,), tf.int32)

    def choose(where, one, other):
        return tf.nest.map_structure(lambda x, y: tf.where(where, x, y), one, other)

    @tf.function(jit_compile=True, autograph=False)
    def play(actions, first, sides):
        def step(t, state, before, after):
            state = choose(first[t], env.initial(tf.gather(starts, sides[t])), state)
            following = env.transition(state, actions[t], nothing)
            write = tf.nest.map_structure(lambda array, x: array.write(t, x), (before, after), (state, following))
            return t + 1, following, *write

        state = env.initial(starts[0])
        arrays = [
            tf.nest.map_structure(lambda x: tf.TensorArray(x.dtype, length, element_shape=x.shape), state)
            for _ in range(2)
        ]
        _, _, before, after = tf.while_loop(lambda t, *_: t < length, step, (0, state, *arrays))
        return tf.nest.map_structure(lambda array: array.stack(), (before, after))

    before, after = play(tf.constant(theirs["actions"], tf.int32), tf.constant(theirs["first"]), tf.constant(sides))
    return env, before, after, theirs


def test_breakout_replays_whole_games_of_minatar(games):
    env, before, after, theirs = games
    rng = tf.zeros((len(theirs["actions"]), 2), tf.int32)
    seen = np.unpackbits(theirs["observations"], axis=1).reshape(-1, 10, 10, 4).astype(bool)
    np.testing.assert_array_equal(env.observation(after, rng), seen)
    np.testing.assert_array_equal(env.reward(before, None, after, rng), theirs["rewards"])
    np.testing.assert_array_equal(env.terminal(after, rng), theirs["terminals"])


def test_the_recorded_games_of_breakout_hold_every_case(games):
    _, before, after, theirs = games
    before, after = ({key: x.numpy() for key, x in state._asdict().items()} for state in (before, after))
    turned_x, turned_y = after["dx"] != before["dx"], after["dy"] != before["dy"]
    at_paddle, low = turned_y & (before["y"] == 8), ~theirs["terminals"]
    cases = {
        "a wall on the left": turned_x & (after["x"] == 0) & ~at_paddle,
        "a wall on the right": turned_x & (after["x"] == 9) & ~at_paddle,
        "the top": turned_y & (after["y"] == 0),
        "a corner at the top": turned_x & turned_y & (after["y"] == 0),
        "a broken brick": theirs["rewards"] == 1,
        "a brick flown through": after["struck"] & (theirs["rewards"] == 0),
        "the paddle from above": at_paddle & ~turned_x & low,
        "the paddle aslant": at_paddle & turned_x & (after["x"] != before["x"]) & low,
        "the paddle beside a wall": at_paddle & (after["x"] == before["x"]) & low,
        "a ball lost": theirs["terminals"],
        "a new wall": after["bricks"].sum((1, 2)) > before["bricks"].sum((1, 2)),
        "the paddle at the left end": (before["paddle"] == 0) & (theirs["actions"] == 1),
        "the paddle at the right end": (before["paddle"] == 9) & (theirs["actions"] == 3),
    }
    assert {case: int(rows.sum()) for case, rows in cases.items() if rows.sum() < 5} == {}
    assert len(theirs["actions"]) >= 10_000


def test_breakout_steps_the_same_eager_and_compiled(games):
    env, before, after, theirs = games
    rng = tf.zeros((len(theirs["actions"]), 2), tf.int32)
    eager = env.transition(before, tf.constant(theirs["actions"]), rng)
    tf.nest.map_structure(np.testing.assert_array_equal, eager, after)


@pytest.mark.skipif(importlib.util.find_spec("minatar") is None, reason="pip install --no-deps minatar==1.0.15")
def test_the_recording_is_what_minatar_plays():
    with np.load(RECORDING) as recording:
        theirs = record()
        assert set(theirs) == set(recording)
        for key, array in theirs.items():
            np.testing.assert_array_equal(array, recording[key])


def test_breakout_starts_on_either_side_alike():
    state = envs.Breakout().initial(random.split(tf.constant([3, 4]), COUNT))
    right = state.x.numpy() == 9
    assert abs(right.mean() - 0.5) < 5 * 0.5 / np.sqrt(COUNT)  # five deviations
    np.testing.assert_array_equal(state.x, np.where(right, 9, 0))
    np.testing.assert_array_equal(state.dx, np.where(right, -1, 1))
    for part, expected in {"paddle": 4, "y": 3, "dy": 1, "struck": False, "last_action": 0}.items():
        assert set(getattr(state, part).numpy()) == {expected}, part
    np.testing.assert_array_equal(state.trail_x, state.x)
    np.testing.assert_array_equal(state.trail_y, state.y)
    wall = np.zeros((10, 10), bool)
    wall[1:4] = True
    np.testing.assert_array_equal(state.bricks, np.broadcast_to(wall, (COUNT, 10, 10)))


def test_breakout_has_three_actions_or_minatars_six():
    assert [env.action_space.n for env in (envs.Breakout, envs.Breakout(), envs.Breakout(False))] == [3, 3, 6]


def test_the_last_action_of_breakout_is_played_again_with_the_probability_asked_for():
    env, rng = envs.Breakout(sticky_action_prob=0.1), random.split(tf.constant([5, 6]), COUNT)
    left, right = 1, 2
    state = env.transition(env.initial(rng), tf.fill((COUNT,), left), RNG + 1)._replace(
        last_action=tf.fill((COUNT,), left)
    )
    following = env.transition(state, tf.fill((COUNT,), right), rng)
    moved = (following.paddle - state.paddle).numpy()
    assert set(moved) == {-1, 1}
    assert abs((moved == -1).mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / COUNT)  # five deviations
    np.testing.assert_array_equal(following.last_action, np.where(moved == -1, left, right))


@pytest.mark.parametrize(("minimal", "moves"), [(True, [0, -1, 1]), (False, [0, -1, 0, 1, 0, 0])])
def test_actions_of_breakout_move_the_paddle_as_in_minatar(minimal, moves):
    env = envs.Breakout(use_minimal_action_set=minimal, sticky_action_prob=0.0)
    count = len(moves)
    assert env.action_space == gymnasium.spaces.Discrete(count)
    state = env.initial(RNG[:count])
    np.testing.assert_array_equal(env.transition(state, tf.range(count), RNG[:count]).paddle - state.paddle, moves)
