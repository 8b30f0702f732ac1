"""`rlgrad envs`: the environments there are."""

import argparse

from rlgrad.cli.loading import import_tensorflow
from rlgrad.cli.output import Result, Table, parser_for
from rlgrad.core import registry


def parser() -> argparse.ArgumentParser:
    """The command's arguments: none."""
    return parser_for("envs", "The environments that Gymnasium knows, and those of rlgrad.", "rlgrad envs")


def run(arguments: list[str]) -> Result:
    """The newest version of each id, and the ids of `rlgrad.envs`."""
    parser().parse_args(arguments)
    import_tensorflow()  # which the classes of `rlgrad.envs` are written in
    import gymnasium

    from rlgrad.environments import ids as environment_ids

    environment_ids.register()
    found = [{"id": name, "reward_threshold": gymnasium.registry[name].reward_threshold} for name in ids()]
    rows = [
        (str(env["id"]), "" if env["reward_threshold"] is None else f"solved from {env['reward_threshold']:g}")
        for env in found
    ]
    return Result(found, [Table(rows)])


def ids() -> list[str]:
    """Every environment there is, of several versions the newest. Imports no TensorFlow."""
    import gymnasium

    newest: dict[str, int] = {}
    for spec in gymnasium.registry.values():
        base = spec.id.removesuffix(f"-v{spec.version}")
        newest[base] = max(newest.get(base, -1), -1 if spec.version is None else spec.version)
    known = {base if version < 0 else f"{base}-v{version}" for base, version in newest.items()}
    return sorted(known | registry.envs().keys())
