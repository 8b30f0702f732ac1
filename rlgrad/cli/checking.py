"""`rlgrad check`: what is worth knowing of an environment before training on it."""

import dataclasses
import json

from rlgrad.cli.quiet import import_tensorflow
from rlgrad.cli.runs import parser_for


def check(arguments: list[str]) -> int:
    """Print what was found, in words; exit status 1 where something must be mended first."""
    parser = parser_for(
        "check", "What is worth knowing of an environment before training on it.", "rlgrad check CartPole-v1"
    )
    parser.add_argument("env", help="a Gymnasium id, or module:id")
    parser.add_argument("--steps", type=int, default=2000, help="random steps to take (default: 2000)")
    parser.add_argument("--wrappers", nargs="*", default=[], help="as of rlgrad train")
    parser.add_argument("--json", action="store_true", help="print the findings alone")
    options = parser.parse_args(arguments)
    import_tensorflow()
    import gymnasium

    from rlgrad.checking import check as look
    from rlgrad.rollouts.specs import find_spec
    from rlgrad.rollouts.wrapping import wrap_all

    spec, wrap = find_spec(options.env), wrap_all(options.wrappers)
    findings = look(lambda: wrap(gymnasium.make(spec)), options.steps)
    bad = any(finding.level == "error" for finding in findings)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        return int(bad)
    for finding in findings:
        print(f"{finding.level + ':':<8} {finding.text}")
    print(f"{options.env} {'needs mending first' if bad else 'can be trained on'}: rlgrad train ppo {options.env}")
    return int(bad)
