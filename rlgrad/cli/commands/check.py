"""`rlgrad check`: try an environment before training on it."""

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlgrad.cli.keyword_arguments import keyword_arguments
from rlgrad.cli.loading import add_env_kwargs, add_limit, import_tensorflow, require_limit
from rlgrad.cli.output import Result, count, parser_for
from rlgrad.core import registry

if TYPE_CHECKING:
    from rlgrad.analysis.checking import Finding

_SHOWN = 3  # configs, the best first


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "check",
        "Try an environment, and report what matters for training on it.",
        "rlgrad check CartPole-v1",
        "rlgrad check Pendulum-v1 --env-kwargs g=9.81",
    )
    parser.add_argument("env", help="a Gymnasium id, module:id, or my_env.py:MyEnv")
    parser.add_argument("--steps", type=count, default=2000, help="random steps to take (default: 2000)")
    parser.add_argument("--wrappers", nargs="*", default=[], help="as for rlgrad train")
    add_env_kwargs(parser)
    add_limit(parser, "the environment's")
    return parser


def run(arguments: list[str]) -> Result:
    """Report the findings. The exit status is 1 if one of them prevents training."""
    options = parser().parse_args(arguments)
    if options.steps < 1:
        raise ValueError(f"--steps is at least 1, got {options.steps}.")
    require_limit(options.max_episode_steps)
    kwargs = keyword_arguments(options.env_kwargs)
    import_tensorflow()
    from rlgrad.analysis.checking import check
    from rlgrad.environments.ids import maker
    from rlgrad.environments.wrapping import wrap_all

    make, wrap = maker(options.env, options.max_episode_steps, kwargs), wrap_all(options.wrappers)
    findings = check(lambda: wrap(make()), options.steps)
    bad = any(finding.level == "error" for finding in findings)
    lines = [f"{finding.level + ':':<8} {finding.text}" for finding in findings]
    if bad:
        errors = [finding.options for finding in findings if finding.level == "error"]
        how = f", for example: {_command(options, errors)}" if all(errors) else "."
        return Result(findings, [*lines, f"{options.env} needs fixing first{how}"], 1)
    return Result(
        findings, [*lines, f"{options.env} can be trained on: {_command(options, [])}", *_further(options, findings)]
    )


def _further(options: argparse.Namespace, findings: "Sequence[Finding]") -> list[str]:
    """Return lines with the command that follows the advice, and with the configs that ship for this environment."""
    advised = [each.options for each in findings if each.options]
    lines = [f"with this advice: {_command(options, advised)}"] if advised else []
    own = options.env_kwargs or options.wrappers or options.max_episode_steps is not None
    results = registry.config_results()
    for name in [] if own else registry.configs_for(options.env)[:_SHOWN]:
        reached = results[name]["greedy"]["mean"], results[name]["timesteps"]
        lines.append("a config that ships, return {:.1f} after {:,} steps: ".format(*reached) + f"rlgrad train {name}")
    return lines


def _command(options: argparse.Namespace, advised: "Sequence[Sequence[str]]") -> str:
    """Return a command that trains on the same environment: with what it was made with here, and with the advised options."""
    limit = [] if options.max_episode_steps is None else ["--max-episode-steps", str(options.max_episode_steps)]
    wrappers = [*options.wrappers, *(word for name, *words in advised if name == "--wrappers" for word in words)]
    others = [word for each in advised if each[0] != "--wrappers" for word in each]
    lists = {"--env-kwargs": options.env_kwargs, "--wrappers": wrappers}
    chosen = [*limit, *others, *(word for name, words in lists.items() if words for word in (name, *words))]
    return shlex.join(["rlgrad", "train", "ppo", options.env, *chosen])
