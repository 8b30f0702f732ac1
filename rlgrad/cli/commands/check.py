"""`rlgrad check`: try an environment before training on it."""

import argparse
import shlex

from rlgrad.cli.keyword_arguments import HELP, keyword_arguments
from rlgrad.cli.loading import add_limit, import_tensorflow, require_limit
from rlgrad.cli.output import Result, count, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "check",
        "Try an environment, and report what matters for training on it.",
        "rlgrad check CartPole-v1",
        "rlgrad check Pendulum-v1 --env-kwargs g 9.81",
    )
    parser.add_argument("env", help="a Gymnasium id, module:id, or my_env.py:MyEnv")
    parser.add_argument("--steps", type=count, default=2000, help="random steps to take (default: 2000)")
    parser.add_argument("--wrappers", nargs="*", default=[], help="as for rlgrad train")
    parser.add_argument("--env-kwargs", nargs="*", default=[], metavar="NAME VALUE", help=HELP)
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
    # The same environment is trained on: with what it was made with here.
    train = shlex.join(["rlgrad", "train", "ppo", options.env, *_repeated(options)])
    verdict = "needs fixing first." if bad else f"can be trained on: {train}"
    return Result(findings, [*lines, f"{options.env} {verdict}"], int(bad))


def _repeated(options: argparse.Namespace) -> list[str]:
    """Return the options that decide which environment it is."""
    limit = [] if options.max_episode_steps is None else ["--max-episode-steps", str(options.max_episode_steps)]
    lists = {"--env-kwargs": options.env_kwargs, "--wrappers": options.wrappers}
    return [*limit, *(word for name, words in lists.items() if words for word in (name, *words))]
