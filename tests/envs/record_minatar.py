"""Records games of the package `minatar` in minatar_breakout.npz: what the Breakout of rlgrad must play again.

    pip install --no-deps minatar==1.0.15 && python tests/envs/record_minatar.py

The package itself would bring pandas, SciPy and seaborn, which its rules do not need. Actions are never sticky. The player of a
game follows the ball a part of the time that is drawn for the game, in some games only when the ball comes down, and else goes
on with what it drew before: so there are short games, games that clear the wall, and paddles that push against the ends. It
meets the ball straight or aslant, which is drawn too, or the ball would go in circles.
"""

from pathlib import Path

import numpy as np

RECORDING = Path(__file__).with_name("minatar_breakout.npz")
TRANSITIONS = 12_000


def record(seed=0):
    """Games one after another.

    Returns:
        A dict of arrays, a row a step but for the first, which has a row a game:
        `side`: bool (G,), the ball starts at the right. `first`: bool (T,), the step is a game's first.
        `actions`: uint8 (T,), of all six. `rewards`: uint8 (T,). `terminals`: bool (T,).
        `observations`: uint8 (T, 50), the bits of the (10, 10, 4) seen after the step.
    """
    from minatar import Environment

    rng = np.random.default_rng(seed)
    env = Environment("breakout", sticky_action_prob=0.0)
    env.seed(seed)
    sides, rows, new, care, lazy, habit = [], [], True, 0.0, False, 0
    while len(rows) < TRANSITIONS:
        if new:
            env.reset()
            sides.append(env.env.ball_x == 9)
            care, lazy = rng.choice([0.0, 0.5, 0.9, 1.0]), rng.random() < 0.5
        cares = rng.random() < care and not (lazy and env.env.ball_dir in (0, 1))
        habit = rng.integers(6) if rng.random() < 0.25 else habit
        action = follow(env.env, rng.random() < 0.5) if cares else habit
        reward, terminal = env.act(action)
        rows.append((new, action, reward, terminal, np.packbits(env.state())))
        new = terminal or rng.random() < 0.002
    first, actions, rewards, terminals, observations = map(np.array, zip(*rows, strict=True))
    return {
        "side": np.array(sides),
        "first": first,
        "actions": actions.astype(np.uint8),
        "rewards": rewards.astype(np.uint8),
        "terminals": terminals,
        "observations": observations,
    }


def follow(game, aslant):
    """Towards the column where the ball is, or will be."""
    target = game.ball_x
    if aslant:
        target = int(np.clip(target + (1 if game.ball_dir in (1, 2) else -1), 0, 9))
    return 1 if target < game.pos else 3 if target > game.pos else 0


if __name__ == "__main__":
    np.savez_compressed(RECORDING, **record())
