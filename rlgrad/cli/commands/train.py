"""`rlgrad train`: from a config's or agent's name and options to a run."""

import argparse
import dataclasses
import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from rlgrad.cli.loading import check_run, import_tensorflow
from rlgrad.cli.output import Result, parser_for
from rlgrad.cli.results import report
from rlgrad.core import registry
from rlgrad.core.checks import check_keys, close_names
from rlgrad.runs.trust import require_own_code

if TYPE_CHECKING:
    from rlgrad.config import Config

USAGE = """\
usage: rlgrad train CONFIG [options]
       rlgrad train AGENT ENV [options]
       rlgrad train --from RUN [options]

CONFIG is one that ships with rlgrad (`rlgrad configs`) or a YAML file, AGENT a name (`rlgrad agents`) or
my_agent.py:MyAgent, ENV a Gymnasium id (`rlgrad envs`). --from repeats a run from its folder: with the same seed, on the same
machine and versions (run.json), the weights are the same to the bit; options replace its settings.

  --json                             print one JSON document, and nothing else, on stdout

Every option, those of the agent included:  rlgrad train reinforce --help
How the weights move is itself a choice, with options of its own, also for each head by itself:
  --agent.update.type per_head --agent.update.policy.type natural_gradient --help
Examples:
  rlgrad train cartpole --seed 3
  rlgrad train reinforce CartPole-v1 --total-timesteps 200000 --agent.gamma 0.99
  rlgrad train --from runs/a --seed 4 --run-dir runs/b
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
    collector: str = "auto"
    """What collects rollouts; auto: one of rlgrad's own. Else the name of an installed one, or my_collector.py:Mine."""
    step_timeout: float | None = None
    """Seconds within which all environments have answered to a step or a reset, in a process each; none: no limit."""
    encoders: tuple[str, ...] = ()
    """Encoders of observations, besides those of installed packages: names, or my_encoders.py:Mine (docs/encoders.md)."""
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
    """End training with the first update after so many seconds of it; a compiled run, with the first row."""
    logs: tuple[str, ...] = ("csv", "tensorboard")
    """Where the metrics go, of csv (always written), jsonl, tensorboard, wandb and mlflow (docs/logs.md)."""
    histograms: bool = False
    """Show in TensorBoard how the weights are distributed, and what they changed by; --histograms alone means True."""
    videos: int = 0
    """Greedy episodes to show in TensorBoard, evenly spaced over the run; 0: none."""


def parser() -> argparse.ArgumentParser:
    """The arguments that do not depend on the agent, for shells that complete them; `parse` is what reads them."""
    parser = parser_for("train", "Train an agent.", "rlgrad train cartpole")
    parser.add_argument("target", nargs="?", help="config, YAML file, agent, or my_agent.py:MyAgent")
    parser.add_argument("env", nargs="?", help="Gymnasium id")
    parser.add_argument("--from", help="repeat this run")
    for option in dataclasses.fields(Options):
        parser.add_argument(f"--{option.name.replace('_', '-')}", choices=_choices(option.type) or None)
    return parser


def _choices(kind: Any) -> list[str]:
    """The words that an option of this type takes; none if it takes others."""
    if kind is bool:
        return ["True", "False"]
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [word for part in get_args(kind) if get_origin(part) is Literal for word in _choices(part)]


def run(arguments: list[str]) -> Result:
    """Train, evaluate, and say whether the task is solved."""
    if not arguments:
        print(USAGE, file=sys.stderr)
        raise SystemExit(2)
    if arguments[0] in ("-h", "--help"):
        return Result(None, [USAGE])
    config, run_dir = asked(arguments)
    from rlgrad.runs.training import run_config

    run = run_config(config, run_dir=run_dir, command=shlex.join(["rlgrad", "train", *arguments]))
    run.close()
    return report(run)


def asked(arguments: list[str]) -> tuple["Config", Path | None]:
    """The config that a command line asks for, and the folder for its run, if it names one."""
    settings, env, rest = _target(arguments)
    import_tensorflow()
    kwargs = settings.pop("env_kwargs", None) or {}
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"env_kwargs is lines of `name: value`, got {kwargs!r}.")
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

    chosen = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    run_dir, agent = chosen.pop("run_dir"), chosen.pop("agent")
    counts = {name: chosen.pop(name) for name in ("num_envs", "num_steps")}
    agent = dataclasses.replace(agent, **{name: count for name, count in counts.items() if count is not None})
    chosen["env_kwargs"] = {**kwargs, **chosen["env_kwargs"]}  # a file's may be lists, which no option holds
    return Config(agent=agent, env=env, **chosen), run_dir


def parse(settings: Mapping[str, Any], arguments: list[str], prog: str) -> Any:
    """Options from a config's settings, overridden by command-line arguments.

    The settings become the beginning of the argument list, so that one parser checks the types of both.
    """
    import tyro

    from rlgrad.config import agent_class, name_of
    from rlgrad.core.settings import as_declared, mapping

    agent = dict(settings["agent"])
    cls = agent_class(name_of(agent))
    del agent["name"]
    agent = as_declared(agent, cls, prefix="agent.")
    default = cls()
    update, agent["update"], arguments = _typed(
        default.update, mapping(agent.pop("update", {}), "agent.update"), arguments, "--agent.update"
    )
    default = dataclasses.replace(default, update=update)
    added = [("agent", cls, field(default=default))]
    options = dataclasses.make_dataclass("Options", added, bases=(Options,), kw_only=True)
    names = [f.name for f in dataclasses.fields(options)]
    check_keys({k: v for k, v in settings.items() if k not in ("env", "agent")}, names, "setting")
    plain = as_declared({key: value for key, value in settings.items() if key not in ("env", "agent")}, Options)
    prefix = [*_as_arguments(plain), *_as_arguments(agent, "agent.")]
    return tyro.cli(
        options, args=[*prefix, *arguments], prog=prog, config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    )


def _target(arguments: list[str]) -> tuple[dict[str, Any], str | None, list[str]]:
    """The settings that the first arguments name, the environment if they name one, and the other arguments."""
    source, others = _take(arguments, "--from")
    if source is not None:
        if others and not others[0].startswith("-"):
            raise ValueError(f"--from repeats a run, its agent and environment: leave out {others[0]!r}.")
        check_run(Path(source))
        return _settings(Path(source) / "config.yaml", None, of_a_run=True), None, others
    name, *rest = arguments
    env = rest.pop(0) if rest and not rest[0].startswith("-") else None
    configs, agents = registry.configs(), registry.agents()
    if name.endswith((".yaml", ".yml")) or name in configs:
        return _settings(Path(name) if name not in configs else configs[name], env), env, rest
    if ":" in name or name in agents:
        return {"agent": {"name": name}}, env, rest
    raise ValueError(
        f"there is no config or agent {name!r}. {close_names(name, [*configs, *agents])} Your own: my_agent.py:MyAgent."
    )


def _settings(file: Any, env: str | None, of_a_run: bool = False) -> dict[str, Any]:
    """What a config file asks for, if a command line can."""
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}.")
    import_tensorflow()
    from rlgrad.core.settings import mapping, read

    settings = read(file)
    if "name" not in mapping(settings.get("agent"), f"{file}: agent"):
        raise ValueError(f"{file} needs at least `agent: {{name: reinforce}}`.")
    if not isinstance(settings.get("env", ""), str):
        raise ValueError(f"{file}: env is a text, got {settings['env']!r}.")
    if settings.pop("resolved", None) is not None or of_a_run:
        _require_repeatable(file.parent, settings, env)
    return settings


def _require_repeatable(folder: Path, settings: dict[str, Any], env: str | None) -> None:
    require_own_code(folder, settings)
    if str(settings.get("env")).startswith("(") and env is None:
        raise ValueError(
            f"the environment of {folder} was {settings['env'][1:-1]}: repeat it with rlgrad.train in Python."
        )
    models = [name for name in ("model", "value_model") if (folder / f"{name}.json").exists()]
    if models:
        raise ValueError(
            f"{folder} was trained with a {models[0]} given as an object, whose first weights it does not keep: repeat it "
            "with rlgrad.train in Python."
        )


def _typed(
    default: Any, settings: dict[str, Any], arguments: list[str], option: str
) -> tuple[Any, dict[str, Any], list[str]]:
    """An update of the type that `type:` or `--….type` names, for those of its heads too; and what is left of both."""
    from rlgrad.config import update_class
    from rlgrad.core.settings import as_declared, mapping
    from rlgrad.hyperparameters import Record

    named, arguments = _take(arguments, f"{option}.type")
    in_settings = settings.pop("type", None)
    if named or in_settings:
        chosen = update_class(named or in_settings)
        default = default if type(default) is chosen else chosen()
    if not isinstance(settings.get("optimizer", ""), str):  # one with options of its own, which no argument could hold
        default = dataclasses.replace(default, optimizer=settings.pop("optimizer"), learning_rate=None)
    settings = as_declared(settings, type(default), prefix=f"{option.strip('-')}.")
    for name in (f.name for f in dataclasses.fields(default) if isinstance(getattr(default, f.name), Record)):
        own = mapping(settings.pop(name, {}), f"{option.strip('-')}.{name}")
        inner, left, arguments = _typed(getattr(default, name), own, arguments, f"{option}.{name}")
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
        if isinstance(value, Mapping):
            arguments += _as_arguments(value, f"{prefix}{key}.")
            continue
        arguments += [f"--{prefix}{key}", *map(str, value if isinstance(value, list) else [value])]
    return arguments
