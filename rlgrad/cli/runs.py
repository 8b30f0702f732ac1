"""`rlgrad resume`, `evaluate`, `plot`, `watch`: what is done with a finished run."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad.cli.quiet import import_tensorflow

if TYPE_CHECKING:
    from rlgrad.run import Run


def resume(arguments: list[str]) -> int:
    """Go on with a run where its last checkpoint has it, as if it had never stopped."""
    parser = parser_for("resume", "Go on training.", "rlgrad resume runs/a --total-timesteps 400000")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--total-timesteps", type=int, help="steps in all, those already taken included; default: the run's"
    )
    options = parser.parse_args(arguments)
    run = load_run(options.run)
    if options.total_timesteps is not None or not run.finished:
        run.train(options.total_timesteps)
    elif (options.run / "evaluation.json").is_file():
        raise ValueError(
            f"{options.run} is finished, after {run.timesteps:,} steps: say with --total-timesteps how many there shall be."
        )
    from rlgrad.cli.train import report
    from rlgrad.training import conclude

    conclude(run)
    report(run)
    run.close()
    return 0


def evaluate(arguments: list[str]) -> int:
    """Returns of fresh episodes, greedy and sampled."""
    parser = parser_for("evaluate", "Returns of fresh episodes.", "rlgrad evaluate runs/a --episodes 20")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--episodes", type=int, default=100, help="of each kind (default: 100)")
    parser.add_argument("--json", action="store_true", help="print evaluation.json")
    options = parser.parse_args(arguments)
    if options.episodes < 1:
        raise ValueError(f"--episodes is at least 1, got {options.episodes}.")
    run = load_run(options.run)
    results = run.write_evaluation(options.episodes)
    run.close()
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for kind in ("greedy", "sampled"):
        r = results[kind]
        print(f"{kind:<8} return {r['mean_return']:.1f} ± {r['std_return']:.1f} over {r['episodes']} fresh episodes")
    if results["reward_threshold"] is not None:
        verdict = "solved" if results["solved"] else "not solved"
        print(f"{run.config.env_name} is {verdict}: greedy mean against {results['reward_threshold']:g}.")
    return 0


def plot(arguments: list[str]) -> int:
    """Learning curves of several runs in one PNG."""
    parser = parser_for("plot", "Learning curves as PNG.", "rlgrad plot runs/a runs/b --output both.png")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--output", type=Path, help="default: learning_curve.png of one run, comparison.png for several"
    )
    options = parser.parse_args(arguments)
    for run in options.runs:
        check_run(run)
    from rlgrad.plotting import plot_runs

    one = options.runs[0] / "learning_curve.png" if len(options.runs) == 1 else Path("comparison.png")
    print(f"Wrote {plot_runs(options.runs, options.output or one)}")
    return 0


def watch(arguments: list[str]) -> int:
    """Show an episode in a window, or write it as a GIF where there is no display."""
    parser = parser_for("watch", "See an episode.", "rlgrad watch runs/a --output episode.gif")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help="write a GIF instead of opening a window")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the most likely")
    parser.add_argument("--seed", type=int, default=0, help="of the episode (default: 0)")
    options = parser.parse_args(arguments)
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
        print(f"Wrote {output}")
    print(f"An episode of {length} steps, return {total:.1f}.")
    return 0


def _write_gif(frames: list[Any], output: Path, rate: float) -> None:
    from PIL import Image

    # GIF players do not go beyond 50 frames a second.
    every = max(1, round(rate / 25))
    images = [Image.fromarray(np.asarray(frame)).quantize(64) for frame in frames[::every]]
    images[0].save(output, save_all=True, append_images=images[1:], duration=1000 * every / rate, loop=0)


def load_run(path: Path) -> "Run":
    """A run that is there, after TensorFlow's quiet import."""
    check_run(path)
    import_tensorflow()
    from rlgrad.training import load

    return load(path)


def check_run(path: Path) -> None:
    """A missing run is said at once, not after TensorFlow's import."""
    if not (path / "config.yaml").is_file():
        near = sorted(p.parent for p in (path.parent if path.parent.is_dir() else Path()).glob("*/config.yaml"))[-3:]
        hint = f" There: {', '.join(map(str, near))}." if near else ""
        raise ValueError(f"{path} is no run folder: it has no config.yaml.{hint}")


def parser_for(name: str, text: str, example: str) -> argparse.ArgumentParser:
    """A command's parser, with an example at the end of its help."""
    return argparse.ArgumentParser(
        prog=f"rlgrad {name}",
        description=text,
        epilog=f"Example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
