"""`rlgrad train`: from a config's or agent's name and options to a run."""

import dataclasses
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlgrad import registry
from rlgrad._record import check_keys, close_names
from rlgrad.cli.quiet import import_tensorflow

if TYPE_CHECKING:
    from rlgrad.run import Run

USAGE = """\
usage: rlgrad train CONFIG [options]
       rlgrad train AGENT ENV [options]

CONFIG is one that ships with rlgrad (`rlgrad configs`) or a YAML file, AGENT a name (`rlgrad agents`) or
my_agent.py:MyAgent, ENV a Gymnasium id (`rlgrad envs`).

Every option, those of the agent included:  rlgrad train reinforce --help
How the weights move is itself a choice, with options of its own, also for each head by itself:
  --agent.update.type per_head --agent.update.policy.type natural_gradient --help
Examples:
  rlgrad train cartpole --seed 3
  rlgrad train reinforce CartPole-v1 --total-timesteps 200000 --agent.gamma 0.99
"""


@dataclass(kw_only=True)
class Options:
    """Options of `rlgrad train`; those of the agent are added to them."""

    total_timesteps: int = 100_000
    """Environment steps to take, over all environments together."""
    seed: int = 0
    """Same seed, same machine: the same weights to the bit."""
    run_dir: Path | None = None
    """Folder for the run; none: a new one under runs/."""
    num_envs: int | None = None
    """Environments side by side; none: the agent's."""
    num_steps: int | None = None
    """Steps per environment per rollout; none: the agent's."""
    env_kwargs: dict[str, int | float | bool | str] = field(default_factory=dict)
    """For the environment's constructor: name value name value …"""
    wrappers: tuple[str, ...] = ()
    """Around each environment, the first one innermost: "TimeAwareObservation" "FrameStackObservation(stack_size=4)"."""
    max_episode_steps: int | None = None
    """A time limit, instead of the environment's."""
    vectorization_mode: Literal["auto", "compiled", "sync", "async", "vector_entry_point"] = "auto"
    """Environments compiled together with the policy, stepped one by one, in a process each, or by their own vectorized class;
    auto: compiled if they are written in TensorFlow, else their own class if it means the same, else one by one."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the policy and of the value network."""
    activation: str = "tanh"
    """Of the hidden layers, a Keras name."""
    shared_trunk: bool = False
    """Let the policy and the value share the hidden layers."""
    memory: Literal["gru", "lstm"] | None = None
    """Give the networks a memory; none: they see the present observation only."""
    memory_size: int = 64
    """Units of the memory."""
    squash_actions: bool = False
    """Bring continuous actions into their bounds by a tanh, instead of clipping them."""
    initial_log_std: float = 0.0
    """Start of the Gaussian policy's log standard deviation, for continuous actions."""
    evaluation_episodes: int = 100
    """Greedy and sampled episodes that are played at the end."""
    diagnose: bool = False
    """Measure signal and noise of the gradients while training (docs/diagnostics.md); --diagnose alone means True."""
    evaluation_interval: int | None = None
    """Environment steps between evaluations while it trains; none: only at the end."""
    stop_at_return: float | None = None
    """End training from this return on: that of greedy evaluations where there are any, else of training."""
    patience: int | None = None
    """End training after so many evaluations, or rows where there are none, that were no better than before."""
    time_budget: float | None = None
    """End training after so many seconds."""
    logs: tuple[str, ...] = ("csv", "tensorboard")
    """Where the metrics go, of csv (always written), jsonl, tensorboard, wandb and mlflow (docs/logs.md)."""
    histograms: bool = False
    """Show in TensorBoard how the weights are distributed, and what they changed by; --histograms alone means True."""
    videos: int = 0
    """Greedy episodes to show in TensorBoard, evenly spaced over the run; 0: none."""


def train(arguments: list[str]) -> int:
    """Train, evaluate, and say whether the task is solved."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    settings, env, rest = _target(arguments)
    import_tensorflow()
    options = parse(
        settings, _spelled_out(_spelled_out(rest, "--diagnose"), "--histograms"), prog=f"rlgrad train {arguments[0]}"
    )
    env = env or settings.get("env")
    if env is None:
        raise ValueError(f"which environment? For example: rlgrad train {arguments[0]} CartPole-v1")
    # Before the heavy imports print anything of their own.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    for noisy in ("tensorflow", "absl", "matplotlib", "h5py"):
        logging.getLogger(noisy).setLevel(logging.ERROR)

    from rlgrad.config import Config
    from rlgrad.training import run_config

    chosen = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    run_dir, agent = chosen.pop("run_dir"), chosen.pop("agent")
    counts = {name: chosen.pop(name) for name in ("num_envs", "num_steps")}
    agent = dataclasses.replace(agent, **{name: count for name, count in counts.items() if count is not None})
    run = run_config(Config(agent=agent, env=env, **chosen), run_dir=run_dir)
    report(run)
    run.close()
    return 0


def parse(settings: Mapping[str, Any], arguments: list[str], prog: str) -> Any:
    """Options from a config's settings, overridden by command-line arguments.

    The settings become the beginning of the argument list, so that one parser checks the types of both.
    """
    import tyro

    agent = dict(settings["agent"])
    cls = registry.agent_class(agent.pop("name"))
    default = cls()
    update, agent["update"], arguments = _typed(
        default.update, dict(agent.pop("update", {})), arguments, "--agent.update"
    )
    default = dataclasses.replace(default, update=update)
    added = [("agent", cls, field(default=default))]
    options = dataclasses.make_dataclass("Options", added, bases=(Options,), kw_only=True)
    names = [f.name for f in dataclasses.fields(options)]
    check_keys({k: v for k, v in settings.items() if k not in ("env", "agent")}, names, "setting")
    plain = {key: value for key, value in settings.items() if key not in ("env", "agent")}
    prefix = [*_as_arguments(plain), *_as_arguments(agent, "agent.")]
    return tyro.cli(
        options, args=[*prefix, *arguments], prog=prog, config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    )


def report(run: "Run") -> None:
    """Say in words how a run ended, and what to do next."""
    import json

    seconds = f"{run.timesteps:,} steps in {run.seconds:.1f} s"
    file = run.path / "evaluation.json"
    if file.exists():
        results = json.loads(file.read_text())
        greedy, threshold = results["greedy"], results["reward_threshold"]
        mean, episodes = greedy["mean_return"], greedy["episodes"]
        measured = f"greedy return {mean:.1f} over {episodes} fresh episodes (sampled: {results['sampled']['mean_return']:.1f})"
        if threshold is None:
            print(
                f"{run.config.env_name} after {seconds}: {measured}. It has no threshold from which it counts as solved."
            )
        else:
            verdict = "is solved" if results["solved"] else "is not solved yet"
            print(f"{run.config.env_name} {verdict} after {seconds}: {measured}; solved from {threshold:g}.")
    else:
        print(f"{run.config.env_name}: {seconds}.")
    print(f"Everything is in {run.path}. Next:")
    for command in (
        f"rlgrad watch {run.path}",
        f"rlgrad evaluate {run.path}",
        f"rlgrad plot {run.path}",
        f"rlgrad inspect {run.path}",
        f"rlgrad resume {run.path} --total-timesteps {2 * run.config.total_timesteps}",
        f"tensorboard --logdir {run.path.parent}",
    ):
        print(f"  {command}")


def _target(arguments: list[str]) -> tuple[dict[str, Any], str | None, list[str]]:
    """The settings that the first arguments name, the environment if they name one, and the other arguments."""
    name, *rest = arguments
    env = rest.pop(0) if rest and not rest[0].startswith("-") else None
    configs, agents = registry.configs(), registry.agents()
    if name.endswith((".yaml", ".yml")) or name in configs:
        import yaml

        file: Any = Path(name) if name not in configs else configs[name]
        if not file.is_file():
            raise ValueError(f"there is no file {name!r}.")
        settings = yaml.safe_load(file.read_text())
        if not isinstance(settings, dict) or "name" not in (settings.get("agent") or {}):
            raise ValueError(f"{name} needs at least `agent: {{name: reinforce}}`.")
        settings.pop("resolved", None)
        return settings, env, rest
    if ":" in name or name in agents:
        return {"agent": {"name": name}}, env, rest
    raise ValueError(
        f"there is no config or agent {name!r}. {close_names(name, [*configs, *agents])} Your own: my_agent.py:MyAgent."
    )


def _typed(
    default: Any, settings: dict[str, Any], arguments: list[str], option: str
) -> tuple[Any, dict[str, Any], list[str]]:
    """An update of the type that `type:` or `--….type` names, for those of its heads too; and what is left of both."""
    from rlgrad._record import Record
    from rlgrad.config import update_class

    named, arguments = _take(arguments, f"{option}.type")
    in_settings = settings.pop("type", None)
    if named or in_settings:
        chosen = update_class(named or in_settings)
        default = default if isinstance(default, chosen) else chosen()
    if isinstance(settings.get("optimizer"), Mapping):  # one with options of its own, which no argument could hold
        default = dataclasses.replace(default, optimizer=settings.pop("optimizer"), learning_rate=None)
    for name in (f.name for f in dataclasses.fields(default) if isinstance(getattr(default, f.name), Record)):
        inner, left, arguments = _typed(
            getattr(default, name), dict(settings.pop(name, {})), arguments, f"{option}.{name}"
        )
        default = dataclasses.replace(default, **{name: inner})
        settings |= {name: left} if left else {}
    return default, settings, arguments


def _take(arguments: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option that decides what the others are, and the arguments without it."""
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2], arguments[:at] + arguments[at + 1 :]
        if argument == option and at + 1 < len(arguments):
            return arguments[at + 1], arguments[:at] + arguments[at + 2 :]
        if argument == option:
            raise ValueError(f"{option} needs a value.")
    return None, arguments


def _spelled_out(arguments: list[str], flag: str) -> list[str]:
    """The arguments with `True` after a flag that stands alone: options take values here, since YAML gives them some."""
    spelled = []
    for i, argument in enumerate(arguments):
        stands_alone = argument == flag and (arguments[i + 1 :] or ["--"])[0].startswith("-")
        spelled += [argument, "True"] if stands_alone else [argument]
    return spelled


def _as_arguments(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    arguments: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and key != "env_kwargs":
            arguments += _as_arguments(value, f"{prefix}{key}.")
            continue
        many = [x for pair in value.items() for x in pair] if isinstance(value, Mapping) else value
        if isinstance(many, list) and not many:
            continue
        arguments += [f"--{prefix}{key}", *map(str, many if isinstance(many, list) else [many])]
    return arguments
