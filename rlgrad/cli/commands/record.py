"""`rlgrad record`: write episodes as a film; and what it shares with `rlgrad watch`."""

import argparse
from pathlib import Path
from typing import Literal

from rlgrad.cli.keyword_arguments import keyword_arguments
from rlgrad.cli.loading import (
    add_checkpoint,
    add_env_calls,
    add_env_kwargs,
    add_limit,
    add_run,
    check_run,
    env_calls,
    load_run,
    require_limit,
)
from rlgrad.cli.output import Result, count, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "record",
        "Write episodes as a film, MP4 or GIF. No display is needed.",
        "rlgrad record runs/a --output episode.mp4",
        "rlgrad record runs/a --output three.gif --episodes 3 --sampled",
    )
    add_arguments(parser)
    parser.add_argument(
        "--output", type=Path, help="film to write, .mp4 or .gif (default: episode.mp4 in the run's folder)"
    )
    parser.add_argument("--episodes", type=count, default=1, help="episodes to play, one after the other (default: 1)")
    return parser


def run(arguments: list[str]) -> Result:
    """Play the episodes, and write the film."""
    options = parser().parse_args(arguments)
    if options.episodes < 1:
        raise ValueError(f"--episodes is at least 1, got {options.episodes}.")
    return see(options, options.output or options.run / "episode.mp4", options.episodes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `record` and `watch` share."""
    add_run(parser)
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the most likely ones")
    parser.add_argument(
        "--seed", type=count, default=0, help="seed of the first episode; each later one's is one more (default: 0)"
    )
    parser.add_argument(
        "--max-steps",
        type=count,
        default=10_000,
        help="show no more than this many steps of an episode (default: 10000)",
    )
    add_limit(parser)
    parser.add_argument("--wrappers", nargs="*", help="wrappers instead of the run's, as for rlgrad train")
    add_env_kwargs(parser, added=True)
    add_env_calls(parser)
    add_checkpoint(parser)


def see(options: argparse.Namespace, output: Path | None, episodes: int, otherwise: Path | None = None) -> Result:
    """Play episodes into the film `output`. Without it, into a window, or into the film `otherwise` if there is no display."""
    check_run(options.run)
    kwargs = keyword_arguments(options.env_kwargs)
    if options.seed < 0:
        raise ValueError(f"--seed is at least 0, got {options.seed}.")
    require_limit(options.max_episode_steps)
    from rlgrad.cli.loading import import_tensorflow

    import_tensorflow()
    from rlgrad.environments.drawing import has_display, without_mujoco_gl
    from rlgrad.playback import films, viewer

    if output is None and not has_display():
        output = otherwise
    if output is not None:
        films.check_film(output)
    with without_mujoco_gl():
        run = load_run(options)
    mode: Literal["human", "rgb_array"] = "human" if output is None else "rgb_array"
    settings = {"greedy": not options.sampled, "seed": options.seed, "max_steps": options.max_steps}
    with run.weights_at(options.checkpoint):
        env = viewer.drawn(
            run.config,
            mode,
            env_kwargs=kwargs,
            wrappers=options.wrappers,
            max_episode_steps=options.max_episode_steps,
            calls=[*run.env_calls, *env_calls(options)],
        )
        if output is None:
            played = viewer.play(run.policy, env, episodes=episodes, **settings)
        else:
            with films.film(output, env.rate) as write:
                played = viewer.play(run.policy, env, episodes=episodes, on_picture=write, **settings)
    env.close()
    run.close()
    lines = [
        f"An episode of {episode.steps} steps, return {episode.total:.1f}{' so far' if episode.cut else ''}."
        for episode in played
    ]
    documents = [{"steps": episode.steps, "return": episode.total, "cut": episode.cut} for episode in played]
    return Result({"output": output, "episodes": documents}, [*([f"Wrote {output}"] if output else []), *lines])
