"""`rlgrad check`: try an environment before training on it."""

import argparse

from rlgrad.cli.loading import add_limit, import_tensorflow, require_limit
from rlgrad.cli.output import Result, count, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "check", "Try an environment, and report what matters for training on it.", "rlgrad check CartPole-v1"
    )
    parser.add_argument("env", help="a Gymnasium id, module:id, or my_env.py:MyEnv")
    parser.add_argument("--steps", type=count, default=2000, help="random steps to take (default: 2000)")
    parser.add_argument("--wrappers", nargs="*", default=[], help="as for rlgrad train")
    add_limit(parser, "the environment's")
    return parser


def run(arguments: list[str]) -> Result:
    """Report the findings. The exit status is 1 if one of them prevents training."""
    options = parser().parse_args(arguments)
    if options.steps < 1:
        raise ValueError(f"--steps is at least 1, got {options.steps}.")
    require_limit(options.max_episode_steps)
    import_tensorflow()
    from rlgrad.analysis.checking import check
    from rlgrad.environments.ids import maker
    from rlgrad.environments.wrapping import wrap_all

    make, wrap = maker(options.env, options.max_episode_steps), wrap_all(options.wrappers)
    findings = check(lambda: wrap(make()), options.steps)
    bad = any(finding.level == "error" for finding in findings)
    lines = [f"{finding.level + ':':<8} {finding.text}" for finding in findings]
    verdict = "needs fixing first." if bad else f"can be trained on: rlgrad train ppo {options.env}"
    return Result(findings, [*lines, f"{options.env} {verdict}"], int(bad))
