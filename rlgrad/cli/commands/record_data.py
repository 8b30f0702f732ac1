"""`rlgrad record-data`: play episodes, and write them as data that agents learn from."""

import argparse
from pathlib import Path
from typing import Any

from rlgrad.cli.keyword_arguments import keyword_arguments
from rlgrad.cli.loading import (
    add_checkpoint,
    add_env_calls,
    add_env_kwargs,
    add_limit,
    add_trust,
    check_run,
    env_calls,
    load_run,
    require_limit,
)
from rlgrad.cli.output import Result, count, parser_for

RANDOM = "random"


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "record-data",
        "Play episodes of a run's policy, or of random actions, and write them into a folder, for agents that learn from data "
        "(--agent.replay.data). A folder of recorded episodes that exists gets more of them.",
        "rlgrad record-data runs/a --output data/a --episodes 100",
        "rlgrad record-data random --env Pendulum-v1 --output data/random --episodes 100",
        "rlgrad train iql Pendulum-v1 --agent.replay.data data/a",
    )
    parser.add_argument("run", type=Path, help=f"run folder; or {RANDOM}, for uniformly random actions")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--episodes", type=count, default=100, help="episodes to play (default: 100)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely actions instead of sampling them")
    parser.add_argument("--seed", type=count, default=0, help="seed of the episodes (default: 0)")
    parser.add_argument(
        "--env", help=f"environment in place of the run's: an id, or my_env.py:MyEnv; {RANDOM} needs one"
    )
    parser.add_argument(
        "--wrappers", nargs="*", help=f"wrappers of {RANDOM}, or instead of the run's, as for rlgrad train"
    )
    add_trust(parser)
    add_limit(parser)
    add_env_kwargs(parser, added=True)
    add_env_calls(parser)
    add_checkpoint(parser)
    return parser


def run(arguments: list[str]) -> Result:
    """Play the episodes, and write them."""
    options = parser().parse_args(arguments)
    if options.episodes < 1:
        raise ValueError(f"--episodes is at least 1, got {options.episodes}.")
    require_limit(options.max_episode_steps)
    kwargs = keyword_arguments(options.env_kwargs)
    settings: dict[str, Any] = {"episodes": options.episodes, "greedy": options.greedy, "seed": options.seed}
    if str(options.run) == RANDOM:
        if options.env is None:
            raise ValueError(f"{RANDOM} plays in an environment of your choice: name it, as in --env Pendulum-v1.")
        if options.greedy or options.checkpoint != "last":
            raise ValueError(f"--greedy and --checkpoint are of a run's policy, and {RANDOM} has none: leave them out.")
        from rlgrad.cli.loading import import_tensorflow

        import_tensorflow()
        from rlgrad.runs.data_recording import record

        made: dict[str, Any] = {"env_kwargs": kwargs, "wrappers": options.wrappers or ()}
        played = record(
            options.output,
            None,
            options.env,
            name=RANDOM,
            calls=env_calls(options),
            max_episode_steps=options.max_episode_steps,
            **made,
            **settings,
        )
    else:
        check_run(options.run)
        loaded = load_run(options)
        from rlgrad.runs.data_recording import record

        config = loaded.config
        try:
            with loaded.weights_at(options.checkpoint):
                played = record(
                    options.output,
                    loaded.policy,
                    config.env,
                    name=f"{options.run}, checkpoint {options.checkpoint}",
                    calls=[*loaded.env_calls, *env_calls(options)],
                    collector=config.collector,
                    vectorization_mode="sync" if config.vectorization_mode == "async" else config.vectorization_mode,
                    env_kwargs={**config.env_kwargs, **kwargs},
                    wrappers=config.wrappers if options.wrappers is None else options.wrappers,
                    max_episode_steps=options.max_episode_steps or config.max_episode_steps,
                    **settings,
                )
        finally:
            loaded.close()
    returns = played.returns
    document = {
        "output": options.output,
        "episodes": len(returns),
        "steps": played.steps,
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std()),
    }
    line = f"Wrote {len(returns):,} episodes, {played.steps:,} steps, to {options.output}."
    return Result(document, [line, f"Return {returns.mean():.1f}, deviation {returns.std():.1f}."])
