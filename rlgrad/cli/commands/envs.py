"""`rlgrad envs`: list the environments."""

import argparse

from rlgrad.cli.loading import import_tensorflow
from rlgrad.cli.output import Result, Table, parser_for
from rlgrad.core import registry


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    return parser_for("envs", "List the environments registered with Gymnasium, and those of rlgrad.", "rlgrad envs")


def run(arguments: list[str]) -> Result:
    """List the newest version of each id, and the ids of `rlgrad.envs`."""
    parser().parse_args(arguments)
    import_tensorflow()  # the classes of `rlgrad.envs` import it
    import gymnasium

    from rlgrad.environments import ids as environment_ids

    environment_ids.register()
    listed = [{"id": name, "reward_threshold": gymnasium.registry[name].reward_threshold} for name in ids()]
    rows = [
        (str(env["id"]), "" if env["reward_threshold"] is None else f"solved from {env['reward_threshold']:g}")
        for env in listed
    ]
    return Result(listed, [Table(rows)])


def ids() -> list[str]:
    """Return the ids of all environments, of each the newest version. This imports no TensorFlow."""
    import gymnasium

    newest: dict[str, int] = {}
    for spec in gymnasium.registry.values():
        base = spec.id.removesuffix(f"-v{spec.version}")
        newest[base] = max(newest.get(base, -1), -1 if spec.version is None else spec.version)
    known = {base if version < 0 else f"{base}-v{version}" for base, version in newest.items()}
    return sorted(known | registry.envs().keys())
