"""`rlgrad watch`: see an episode."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rlgrad.cli.folders import load_run
from rlgrad.cli.output import Result, parser_for


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = parser_for("watch", "See an episode.", "rlgrad watch runs/a --output episode.gif")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help="write a GIF instead of opening a window")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the most likely")
    parser.add_argument("--seed", type=int, default=0, help="of the episode (default: 0)")
    return parser


def run(arguments: list[str]) -> Result:
    """Show an episode in a window, or write it as a GIF where there is no display."""
    options = parser().parse_args(arguments)
    run = load_run(options.run)
    display = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    output = options.output or (None if display else options.run / "episode.gif")
    if output:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without looking for a screen
    import gymnasium

    from rlgrad.rollouts.masks import observed
    from rlgrad.rollouts.wrapping import wrap_all

    if not isinstance(run.config.env, str):
        raise ValueError("This run's environment was given as an object: there is no id to make it from.")
    made = gymnasium.make(run.config.env, render_mode="rgb_array" if output else "human", **run.config.env_kwargs)
    env = wrap_all(run.config.wrappers)(made)
    observation, info = env.reset(seed=options.seed)
    act = run.policy.player(greedy=not options.sampled)
    frames, total, length, over = [], 0.0, 0, False
    while not over:
        if output:
            frames.append(env.render())
        action = act(observed(run.policy.masked, observation, info))
        observation, reward, terminated, truncated, info = env.step(action)
        total, length, over = total + float(reward), length + 1, terminated or truncated
    rate = env.metadata.get("render_fps", 30)
    env.close()
    run.close()
    if output:
        _write_gif(frames, output, rate)
    lines = [f"Wrote {output}"] if output else []
    found = {"output": output, "steps": length, "return": total}
    return Result(found, [*lines, f"An episode of {length} steps, return {total:.1f}."])


def _write_gif(frames: list[Any], output: Path, rate: float) -> None:
    from PIL import Image

    # GIF players do not go beyond 50 frames a second.
    every = max(1, round(rate / 25))
    images = [Image.fromarray(np.asarray(frame)).quantize(64) for frame in frames[::every]]
    images[0].save(output, save_all=True, append_images=images[1:], duration=1000 * every / rate, loop=0)
