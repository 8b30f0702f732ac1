"""`rlgrad evaluate`: play fresh episodes, greedy and sampled, and report their returns."""

import argparse

from rlgrad.cli.loading import add_limit, add_run, load_run, require_limit
from rlgrad.cli.output import Result, count, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "evaluate",
        "Play fresh episodes, greedy and sampled, and report their returns.",
        "rlgrad evaluate runs/a --episodes 20",
    )
    add_run(parser)
    parser.add_argument("--episodes", type=count, default=100, help="episodes of each kind (default: 100)")
    add_limit(parser)
    return parser


def run(arguments: list[str]) -> Result:
    """Play the episodes, and write evaluation.json."""
    options = parser().parse_args(arguments)
    if options.episodes < 1:
        raise ValueError(f"--episodes is at least 1, got {options.episodes}.")
    require_limit(options.max_episode_steps)
    run = load_run(options)
    results = run.write_evaluation(options.episodes, max_episode_steps=options.max_episode_steps)
    run.close()
    lines = []
    for kind in ("greedy", "sampled"):
        r = results[kind]
        lines.append(
            f"{kind:<8} return {r['mean_return']:.1f} ± {r['std_return']:.1f} over {r['episodes']} fresh episodes"
        )
    if results["reward_threshold"] is not None:
        verdict = "solved" if results["solved"] else "not solved"
        lines.append(f"{run.config.env_name} is {verdict}: greedy mean against {results['reward_threshold']:g}.")
    return Result(results, lines)
