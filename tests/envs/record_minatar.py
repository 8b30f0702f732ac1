"""Records games of the package `minatar` in minatar_breakout.npz: what the Breakout of rlgrad must play again.

    pip install --no-deps minatar==1.0.15 && python tests/envs/record_minatar.py

The package itself would bring pandas, SciPy and seaborn, which its rules do not need. Actions are never sticky. The player of a
game follows the ball a part of the time that is drawn for the game, so that there are short games and games that clear the
wall; whether it meets the ball straight or aslant is drawn too, or the ball would go in circles.
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
    sides, rows, new, care = [], [], True, 0.0
    while len(rows) < TRANSITIONS:
        if new:
            env.reset()
            sides.append(env.env.ball_x == 9)
            care = rng.choice([0.0, 0.5, 0.9, 0.98, 1.0])
        action = follow(env.env, rng.random() < 0.5) if rng.random() < care else rng.integers(6)
        reward, terminal = env.act(action)
        rows.append((new, action, reward, terminal, np.packbits(env.state())))
        new = terminal or rng.random() < 0.001
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
