"""MinAtar's Breakout: a paddle keeps a ball in play that breaks three rows of bricks (Young & Tian, 2019).

On a grid of 10 × 10, row 0 at the top, the bricks fill rows 1 to 3 and the paddle is one cell of row 9. At each step the paddle
moves first, then the ball moves diagonally, to (x + dx, y + dy), or is reflected:

    beyond a side wall   it stays in its column, dx turns, and the rules below apply from there
    above the top        it stays in row 0, dy turns
    onto a brick         the brick breaks and earns 1, it stays in its row, dy turns; but if its last move met a brick too,
                         it flies through this one
    onto row 9           if it was above the paddle, it stays in its row and dy turns; else, if it comes down on the paddle,
                         it stays in its row, dx and dy turn; else the ball is lost and the episode over. If no brick is
                         left, the wall is built anew

With probability `sticky_action_prob` the last action is played again instead. The ball starts in row 3, at the left end or at
the right, going down and inwards, with the paddle in column 4. The observation is four pictures: paddle, ball, trail (the place
of the ball a step before) and bricks, true or false: stored as a byte a cell, they reach networks as 0.0 and 1.0.

Source: Young & Tian (2019), "MinAtar: an Atari-inspired testbed for thorough and reproducible reinforcement learning
experiments". Equal to the package `minatar`, step by step and exactly (a test replays 12,000 of its steps), with one exception:
there an episode's first step can repeat the last action of the episode before; here it can repeat "do nothing".
The difficulty of this game does not grow, so there is no `difficulty_ramping`.

MinAtar has no time limit. Here an episode is truncated after 1000 steps, as in gymnax and the results published with it: the
evaluation of an agent that never loses a ball would never end.
"""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.experimental.functional import FuncEnv

from rlgrad import random
from rlgrad.envs import pictures

_SIZE, _LAST = 10, 9
_LEFT = 1
_WALL = np.zeros((_SIZE, _SIZE), bool)
_WALL[1:4] = True


class State(NamedTuple):
    """The state of one game of Breakout.

    Attributes:
        paddle: int32 (…), its column.
        x: int32 (…), the ball's column.
        y: int32 (…), the ball's row; 9 once it is lost.
        dx: int32 (…), −1 or 1.
        dy: int32 (…), −1 or 1.
        trail_x: int32 (…), the ball's column a step before.
        trail_y: int32 (…), its row.
        struck: bool (…), the ball's last move met a brick.
        bricks: bool (…, 10, 10).
        last_action: int32 (…), as it was played.
    """

    paddle: Any
    x: Any
    y: Any
    dx: Any
    dy: Any
    trail_x: Any
    trail_y: Any
    struck: Any
    bricks: Any
    last_action: Any


class Breakout(FuncEnv[Any, Any, Any, Any, Any, Any, Any]):
    """State: `State`. Observation: bool (…, 10, 10, 4), as MinAtar's. Reward: 1 a brick.

    Args:
        use_minimal_action_set: actions 0 nothing, 1 left, 2 right (`MinAtar/Breakout-v1`), else MinAtar's six for all of its
            games, of which 1 is left, 3 is right and the others do nothing (`MinAtar/Breakout-v0`).
        sticky_action_prob: how likely the last action is played again.
    """

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (_SIZE, _SIZE, 4), bool)
    action_space = gymnasium.spaces.Discrete(3)
    max_episode_steps = 1000
    reward_threshold = None

    def __init__(self, use_minimal_action_set: bool = True, sticky_action_prob: float = 0.1) -> None:
        super().__init__()
        self.sticky_action_prob = sticky_action_prob
        self.action_space = gymnasium.spaces.Discrete(3 if use_minimal_action_set else 6)
        self._right = 2 if use_minimal_action_set else 3

    def initial(self, rng: Any, params: Any = None) -> State:
        """Return a state with the ball at one end of row 3 and all bricks."""
        side = random.integers(rng, 2)
        zero = tf.zeros_like(side)
        x, y = _LAST * side, zero + 3
        bricks = tf.broadcast_to(_WALL, tf.concat([tf.shape(side), _WALL.shape], axis=0))
        return State(zero + 4, x, y, 1 - 2 * side, zero + 1, x, y, tf.zeros_like(side, tf.bool), bricks, zero)

    def transition(self, state: State, action: Any, rng: Any, params: Any = None) -> State:
        """Move the paddle, then the ball."""
        action = self._played(state, action, rng)
        way = tf.cast(tf.equal(action, self._right), tf.int32) - tf.cast(tf.equal(action, _LEFT), tf.int32)
        paddle = tf.clip_by_value(state.paddle + way, 0, _LAST)

        x, y = state.x + state.dx, state.y + state.dy
        dx = tf.where((x < 0) | (x > _LAST), -state.dx, state.dx)
        x = tf.clip_by_value(x, 0, _LAST)
        cell = _cell(x, y)
        meets = tf.reduce_any(state.bricks & cell, axis=(-2, -1))
        breaks = meets & ~state.struck
        down = tf.equal(y, _LAST)
        above = down & tf.equal(state.x, paddle)
        aslant = down & ~above & tf.equal(x, paddle)
        stays = breaks | above | aslant
        cleared = down & ~tf.reduce_any(state.bricks, axis=(-2, -1))
        return State(
            paddle=paddle,
            x=x,
            y=tf.maximum(tf.where(stays, state.y, y), 0),
            dx=tf.where(aslant, -dx, dx),
            dy=tf.where(stays | (y < 0), -state.dy, state.dy),
            trail_x=state.x,
            trail_y=state.y,
            struck=meets,
            bricks=(state.bricks & ~(cell & _of_grid(breaks))) | (_WALL & _of_grid(cleared)),
            last_action=action,
        )

    def observation(self, state: State, rng: Any, params: Any = None) -> tf.Tensor:
        """Return the pictures of paddle, ball, trail and bricks."""
        ball, trail = _cell(state.x, state.y), _cell(state.trail_x, state.trail_y)
        return tf.stack(
            [_cell(state.paddle, tf.fill(tf.shape(state.paddle), _LAST)), ball, trail, state.bricks], axis=-1
        )

    def reward(self, state: State, action: Any, next_state: State, rng: Any, params: Any = None) -> tf.Tensor:
        """Return 1 if a brick broke."""
        return tf.cast(tf.reduce_any(state.bricks & ~next_state.bricks, axis=(-2, -1)), tf.float32)

    def terminal(self, state: State, rng: Any, params: Any = None) -> tf.Tensor:
        """Return True if the ball is lost."""
        return tf.equal(state.y, _LAST)

    def _played(self, state: State, action: Any, rng: Any) -> tf.Tensor:
        action = tf.cast(action, tf.int32)
        if self.sticky_action_prob == 0.0:
            return action
        return tf.where(random.uniform(rng) < self.sticky_action_prob, state.last_action, action)

    def render(self, state: State) -> pictures.Picture:
        """Return a picture of a state: paddle, ball, its trail and the bricks."""
        layers = self.observation(tf.nest.map_structure(tf.convert_to_tensor, state), None)
        return pictures.of_grid(layers, [(255, 255, 255), (255, 220, 0), (90, 80, 0), (200, 60, 40)])


def _cell(x: Any, y: Any) -> tf.Tensor:
    """Return a picture of one cell, bool (…, 10, 10), all False for a cell outside of the grid."""
    cells = tf.range(_SIZE)
    return tf.equal(cells[:, None], y[..., None, None]) & tf.equal(cells, x[..., None, None])


def _of_grid(flag: Any) -> tf.Tensor:
    """Return a flag (…) as (…, 1, 1), to be combined with pictures."""
    return flag[..., None, None]
