"""`rlgrad agents`, `envs`, `configs`: what there is."""

from rlgrad import registry


def agents(arguments: list[str]) -> int:
    """Print the agents by name, with the first sentence of each."""
    if _wants_help(arguments, "agents", "The agents that are installed. Example: rlgrad agents"):
        return 0
    from rlgrad.cli.quiet import import_tensorflow

    import_tensorflow()
    for name in sorted(registry.agents()):
        doc = (registry.agent_class(name).__doc__ or "").strip().splitlines()
        print(f"{name:<16} {doc[0] if doc else ''}")
    print("\nYour own needs no registration: rlgrad train my_agent.py:MyAgent CartPole-v1")
    return 0


def envs(arguments: list[str]) -> int:
    """Print the environment ids that Gymnasium knows, the newest version of each, and those of `rlgrad.envs`."""
    if _wants_help(arguments, "envs", "The environments there are. Example: rlgrad envs"):
        return 0
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    newest: dict[str, EnvSpec] = {}
    for spec in gymnasium.registry.values():
        base = spec.id.removesuffix(f"-v{spec.version}")
        if base not in newest or (spec.version or 0) > (newest[base].version or 0):
            newest[base] = spec
    ids = {spec.id: spec.reward_threshold for spec in newest.values()} | dict.fromkeys(registry.envs())
    for name, threshold in sorted(ids.items()):
        print(f"{name:<40} {'' if threshold is None else f'solved from {threshold:g}'}".rstrip())
    return 0


def configs(arguments: list[str]) -> int:
    """Print the configs that ship, with the comment that each begins with."""
    if _wants_help(arguments, "configs", "The configs that ship with rlgrad. Example: rlgrad train cartpole"):
        return 0
    for name, file in registry.configs().items():
        first = file.read_text().splitlines()[0]
        print(f"{name:<20} {first.removeprefix('#').strip()}")
    return 0


def _wants_help(arguments: list[str], name: str, text: str) -> bool:
    if arguments and arguments[0] not in ("-h", "--help"):
        raise ValueError(f"rlgrad {name} takes no arguments, got {' '.join(arguments)!r}.")
    if arguments:
        print(f"usage: rlgrad {name}\n\n{text}")
    return bool(arguments)
