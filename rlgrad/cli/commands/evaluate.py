"""`rlgrad evaluate`: play fresh episodes, greedy and sampled, and report their returns."""

import argparse
from typing import Any

from rlgrad.cli.keyword_arguments import keyword_arguments
from rlgrad.cli.loading import add_checkpoint, add_env_kwargs, add_limit, add_run, load_run, require_limit
from rlgrad.cli.output import Result, count, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "evaluate",
        "Play fresh episodes, greedy and sampled, and report their returns. The result is written to the run's "
        "evaluation.json if it is about the last weights in the run's own environment.",
        "rlgrad evaluate runs/a --episodes 20",
        "rlgrad evaluate runs/a --checkpoint best --seed 1000",
    )
    add_run(parser)
    parser.add_argument("--episodes", type=count, default=100, help="episodes of each kind (default: 100)")
    parser.add_argument("--seed", type=count, help="seed of the episodes (default: the run's)")
    add_checkpoint(parser)
    add_limit(parser)
    add_env_kwargs(parser, added=True)
    return parser


def run(arguments: list[str]) -> Result:
    """Play the episodes, and write evaluation.json."""
    options = parser().parse_args(arguments)
    if options.episodes < 1:
        raise ValueError(f"--episodes is at least 1, got {options.episodes}.")
    require_limit(options.max_episode_steps)
    kwargs = keyword_arguments(options.env_kwargs)
    run = load_run(options)
    try:
        results = run.write_evaluation(
            options.episodes,
            seed=options.seed,
            max_episode_steps=options.max_episode_steps,
            env_kwargs=kwargs,
            checkpoint=options.checkpoint,
        )
    finally:
        run.close()
    at = f" at {options.checkpoint}, after {results['timesteps']:,} steps" if options.checkpoint != "last" else ""
    lines = [f"{kind:<8} return {_shown(results[kind])}{at}" for kind in ("greedy", "sampled")]
    if results["reward_threshold"] is not None:
        verdict = "solved" if results["solved"] else "not solved"
        lines.append(f"{run.config.env_name} is {verdict}: greedy mean against {results['reward_threshold']:g}.")
    lines.append("In brackets: the 95 % interval of the mean.")
    return Result(results, lines)


def _shown(kind: dict[str, Any]) -> str:
    interval = "" if kind["interval"] is None else " [{:.1f}, {:.1f}]".format(*kind["interval"])
    return f"{kind['mean_return']:.1f}{interval} over {kind['episodes']} fresh episodes, deviation {kind['std_return']:.1f}"
