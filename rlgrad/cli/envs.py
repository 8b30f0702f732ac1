"""`rlgrad envs`: the environments there are."""

import argparse

from rlgrad import registry
from rlgrad.cli.output import Result, Table, parser_for


def parser() -> argparse.ArgumentParser:
    """The command's arguments: none."""
    return parser_for("envs", "The environments that Gymnasium knows, and those of rlgrad.", "rlgrad envs")


def run(arguments: list[str]) -> Result:
    """The newest version of each id, and the ids of `rlgrad.envs`."""
    parser().parse_args(arguments)
    found = [{"id": name, "reward_threshold": threshold} for name, threshold in sorted(thresholds().items())]
    rows = [
        (str(env["id"]), "" if env["reward_threshold"] is None else f"solved from {env['reward_threshold']:g}")
        for env in found
    ]
    return Result(found, [Table(rows)])


def thresholds() -> dict[str, float | None]:
    """The mean return from which each environment counts as solved, or none, by id."""
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    newest: dict[str, EnvSpec] = {}
    for spec in gymnasium.registry.values():
        base = spec.id.removesuffix(f"-v{spec.version}")
        if base not in newest or (spec.version or 0) > (newest[base].version or 0):
            newest[base] = spec
    return {spec.id: spec.reward_threshold for spec in newest.values()} | dict.fromkeys(registry.envs())
