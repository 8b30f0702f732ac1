"""The settings of a run as one record, and the config.yaml that holds them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlgrad.core import registry, schedules, yaml_documents
from rlgrad.core.checks import check_keys, close_names, require, require_above, require_at_most
from rlgrad.core.settings import (
    alternatives,
    as_declared,
    flat,
    hints,
    mapping,
    plain,
    read,
    record_type,
    require_finite,
)
from rlgrad.hyperparameters import Record, fields

if TYPE_CHECKING:  # the command line asks this module for its options before anything heavy is imported
    from rlgrad.agent import Agent
    from rlgrad.environments.types import EnvLike
    from rlgrad.updates import Update

_UPDATES = "rlgrad.updates"
NOTES = ("resolved", "changed")
"""Keys of config.yaml that are no settings: choices made by rules, and what a run was continued with."""
Memory = Literal["gru", "lstm"]
VectorizationMode = Literal["auto", "compiled", "sync", "async", "vector_entry_point"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides what a run does, except for objects that YAML cannot hold (models, environments).

    The options of the command line, the keys of config.yaml and the tables of docs/run-settings.md are made from these fields
    and the strings below them; `rlgrad.train` takes each of them under its name.
    """

    agent: "Agent"
    """The agent: a name (`rlgrad agents` lists them), `my_agent.py:MyAgent`, or an instance."""
    env: "EnvLike"
    """The environment: an id, an instance, a function or class that makes one, or `file.py:Name` of a class."""
    total_timesteps: int
    """Environment steps to take, over all environments together."""
    seed: int = 0
    """Seed of every random number. On the same machine the same seed gives the same weights to the bit."""
    init_from: str | Path | None = None
    """Another run to take the first weights from, as far as they fit: its folder, for the newest checkpoint, or a file such as
    runs/a/checkpoints/best.npz. `None`: random weights."""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment's constructor; on the command line: --env-kwargs g=9.8"""
    wrappers: tuple[str, ...] = ()
    """Wrappers around each environment, the first one innermost: names of `gymnasium.wrappers` or `module:Name`, alone or with
    keyword arguments, as in "FrameStackObservation(stack_size=4)"."""
    max_episode_steps: int | None = None
    """Time limit of an episode. `None`: the environment's own."""
    vectorization_mode: VectorizationMode = "auto"
    """How the environments are stepped. compiled: in one program with the policy, if they are written in TensorFlow; sync: one
    after the other; async: each in a process of its own; vector_entry_point: by the vectorized class that the id registers;
    auto: the first that fits of compiled, vector_entry_point if it means the same, and sync."""
    collector: str | Callable[..., Any] = "auto"
    """Collector of the rollouts. auto: one of rlgrad's own, by vectorization_mode; else the name of an installed one, or
    `my_collector.py:Mine` (docs/collectors.md); in Python also the class itself."""
    step_timeout: float | None = None
    """Seconds within which all environments must answer a step or a reset; needs async, or workers. `None`: no limit."""
    workers: int | None = None
    """Processes that step the environments, here or on the machines of a Ray cluster (docs/many-machines.md). No number depends
    on how many they are. `None`: this process steps them."""
    ray_address: str | None = None
    """Address of the head of the Ray cluster that runs workers and learners, or auto for the cluster that this machine belongs
    to. `None`: they run on this machine."""
    worker_timeout: float = 60.0
    """Seconds within which each worker, or learner, must find a place and be ready."""
    asynchronous: bool = False
    """Learn from the rollout of whichever worker is ready first, while the others play on with older weights: for impala and
    ppo. Such a run is not reproducible."""
    max_lag: int | None = None
    """Drop rollouts whose weights are more updates old than this, where workers are asynchronous. `None`: four times the number
    of workers."""
    learners: int = 1
    """Processes that share the rows of each step of the weights, this one and others, here or on the machines of a Ray cluster
    (docs/many-machines.md). Numbers depend on how many they are by rounding alone."""
    encoders: tuple[str, ...] = ()
    """Encoders of observations besides those of installed packages: names, or `my_encoders.py:Mine` (docs/encoders.md)."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the default networks."""
    activation: str = "tanh"
    """Activation of the hidden layers, by its Keras name; leaky_relu(0.01) is one of that slope."""
    layer_norm: bool = False
    """Normalize each hidden layer of the default networks before its activation."""
    fixed_layer_norm: bool = False
    """Leave out the scale and the shift of this normalization, which are trained."""
    sparsity: float = 0.0
    """Share of each unit's inputs whose initial weight is 0, the others being uniform. 0: orthogonal weights."""
    shared_trunk: bool = False
    """Share the hidden layers between the default policy and value networks."""
    memory: Memory | None = None
    """Recurrent cell of the default networks. `None`: they see the current observation only."""
    memory_size: int = 64
    """Units of the recurrent cell."""
    squash_actions: bool = False
    """Bring continuous actions into their bounds by a tanh, instead of clipping them."""
    initial_log_std: float = 0.0
    """Initial log standard deviation of the Gaussian policy, for continuous actions."""
    state_dependent_std: bool = False
    """Let the network say the log standard deviations of continuous actions beside their means. Else they are a variable of the
    policy, the same in every state."""
    state_dependent_noise: int = 0
    """Let the noise of continuous actions be a function of the state that is drawn anew after so many steps, and with each
    rollout (gSDE). 0: noise of each step by itself."""
    from_logits: bool = True
    """`False`: the model that is passed as `model` ends in probabilities, not in logits."""
    evaluation_episodes: int = 100
    """Episodes to evaluate at the end, greedy ones and as many sampled ones. 0: no evaluation."""
    diagnose: bool = False
    """Measure signal and noise of the gradients, and the worth of the baseline, at every logged row (docs/diagnostics.md)."""
    evaluation_interval: int | None = None
    """Environment steps between evaluations during training, of 20 greedy and 20 sampled episodes each. `None`: only at the
    end."""
    stop_at_return: float | None = None
    """Stop training once the return reaches this: the greedy return if training is evaluated, else the training return."""
    patience: int | None = None
    """Stop training after this many evaluations in a row, or rows if training is not evaluated, without a better return."""
    time_budget: float | None = None
    """Stop after this many seconds of training, counting time before a resume. Checked after every update; in a compiled run
    at every row."""
    logs: tuple[str, ...] = ("csv", "tensorboard")
    """Where the metrics go: csv (always written), jsonl, tensorboard, wandb, mlflow, or `my_logs.py:MyLog` (docs/logs.md)."""
    log_info: tuple[str, ...] = ()
    """Keys of the environment's infos to log: `distance` becomes the metric `info/distance`, the mean since the last row over
    all steps whose info has it; `outer.inner` is a key inside of another."""
    histograms: bool = False
    """Add histograms of the weights and of their changes to TensorBoard, at every logged row."""
    videos: int = 0
    """Greedy episodes to show in TensorBoard, evenly spaced over the run."""

    def __post_init__(self) -> None:
        """Turn sequences into tuples, and check the values."""
        for name in (f.name for f in dataclasses.fields(self) if isinstance(f.default, tuple)):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise ValueError(f"{name} is a sequence, got {value!r}.")
            object.__setattr__(self, name, tuple(value))
        if isinstance(self.init_from, Path):
            object.__setattr__(self, "init_from", str(self.init_from))
        self._take_arguments_apart()
        for name, value in as_declared(fields(self), Config).items():
            object.__setattr__(self, name, value)
        require_finite(self)
        require_above(
            self,
            at_least={
                "workers": 1,
                "learners": 1,
                "max_lag": 0,
                "total_timesteps": 1,
                "memory_size": 1,
                "evaluation_episodes": 0,
                "videos": 0,
            },
            above={"evaluation_interval": 0, "patience": 0, "time_budget": 0, "worker_timeout": 0},
        )
        require(self.seed >= 0, "seed", "an integer ≥ 0", self.seed)
        require_at_most(
            self,
            total_timesteps=10**15,
            memory_size=2**16,
            evaluation_episodes=10**6,
            videos=10**4,
            max_episode_steps=10**8,
        )
        require(len(self.hidden_sizes) <= 256, "hidden_sizes", "at most 256 layers", len(self.hidden_sizes))
        require(all(size <= 2**16 for size in self.hidden_sizes), "hidden_sizes", "widths ≤ 65,536", self.hidden_sizes)
        own = isinstance(self.collector, str) or callable(self.collector)
        require(own, "collector", "auto, the name of a collector, file.py:Name or a class", self.collector)
        if not self.uses_ray and self.ray_address is not None:
            raise ValueError("ray_address says where workers run, and there are none: set workers, or leave it out.")
        self._require_correction()
        require(self.memory in (None, *get_args(Memory)), "memory", "gru, lstm or None", self.memory)
        require(all(size >= 1 for size in self.hidden_sizes), "hidden_sizes", "widths ≥ 1", self.hidden_sizes)
        if (self.histograms or self.videos) and "tensorboard" not in self.logs:
            raise ValueError("histograms and videos go to TensorBoard: add tensorboard to logs, or leave them out.")

    def _require_correction(self) -> None:
        """Raise a ValueError for asynchronous workers that there are not, or whose lag the agent cannot correct."""
        if not self.asynchronous:
            if self.max_lag is not None:
                raise ValueError("max_lag is of asynchronous workers: set asynchronous, or leave it out.")
            return
        if self.workers is None:
            raise ValueError("asynchronous says how workers play, and there are none: set workers, or leave it out.")
        name = agent_name(self.agent)
        if not self.agent.tolerates_lag:
            raise ValueError(
                f"asynchronous workers play with weights that the learner has left behind, which {name} takes for its own: "
                "leave it out, or train impala or ppo. An agent of your own that corrects for it sets tolerates_lag = True."
            )
        if self.agent.scale_rewards:
            raise ValueError(
                "agent.scale_rewards follows each environment from rollout to rollout, and asynchronous workers take turns as "
                "they come: leave one of them out."
            )

    def _take_arguments_apart(self) -> None:
        """Take a `functools.partial` of a class that another process finds as that class and its keyword arguments."""
        made, own = self.env, self.env_kwargs
        if not isinstance(made, functools.partial) or made.args or not isinstance(made.func, type):
            return
        if registry.place_of(made.func) is not None and isinstance(own, Mapping) and _is_plain(plain(made.keywords)):
            object.__setattr__(self, "env", made.func)
            object.__setattr__(self, "env_kwargs", {**made.keywords, **own})

    @property
    def uses_ray(self) -> bool:
        """True if there are other processes that step environments or learn."""
        return self.workers is not None or self.learners > 1

    @property
    def env_name(self) -> str:
        """The environment's id, or the name of its class or function; of a `functools.partial`, with the arguments."""
        if isinstance(self.env, str):
            return self.env
        name = getattr(getattr(self.env, "spec", None), "id", None)
        return str(name or registry.spoken_name(self.env))

    @functools.cached_property
    def flat(self) -> dict[str, Any]:
        """The settings as plain data, as config.yaml holds them, without mappings inside: `agent.gamma`."""
        return flat(yaml_documents.load(to_yaml(self, {})))


def _is_plain(value: Any) -> bool:
    """Return True for what YAML holds, and gives back as it was."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def to_yaml(config: Config, notes: Mapping[str, Any]) -> str:
    """Return the config as YAML.

    Args:
        config: the config.
        notes: for people, by name; `from_mapping` leaves them out. See `NOTES`.
    """
    import yaml

    objects = ("agent", "env", "collector")
    written = {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.name not in objects}
    written["agent"] = {"name": agent_name(config.agent)} | _plain(config.agent)
    env = config.env if isinstance(config.env, str) else registry.place_of(config.env)
    written["env"] = f"({config.env_name}, given as an object)" if env is None else _place(env)
    written["collector"] = _collector_name(config.collector)
    if config.from_logits:  # differs only with a model, which no config.yaml holds
        del written["from_logits"]
    if not config.encoders:
        del written["encoders"]
    if config.workers is None:
        for name in ("workers", "asynchronous", "max_lag"):
            del written[name]
    if config.learners == 1:
        del written["learners"]
    if not config.uses_ray:
        for name in ("ray_address", "worker_timeout"):
            del written[name]
    if config.init_from is not None:
        written["init_from"] = str(Path(config.init_from).resolve())
    written["logs"] = [_place(log) for log in config.logs]
    order = [f.name for f in dataclasses.fields(config) if f.name in written]
    return yaml.safe_dump({name: written[name] for name in order} | dict(notes), sort_keys=False)


def _place(text: str) -> str:
    """Return a text with the whole path of its file, if it is `file.py:Name` or `file.py:Name(…)`, and otherwise as it is."""
    file, rest = registry.split_call(text)
    return f"{Path(file).resolve()}:{rest}" if file.endswith(".py") else text


def _plain(value: Any) -> Any:
    """Return a value as YAML holds it: records and mappings as dicts, Keras optimizers as their configs, tuples as lists."""
    if isinstance(value, Record):
        from rlgrad.updates import Update

        kind = {"type": registry.name_of(_UPDATES, type(value))} if isinstance(value, Update) else {}
        return kind | {name: _plain(v) for name, v in fields(value).items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str) or (callable(value) and not hasattr(value, "get_config")):
        return _place(schedules.written(value))  # a name, or a schedule
    if hasattr(value, "get_config"):
        import keras

        return keras.optimizers.serialize(value)
    return value


def _collector_name(collector: str | Callable[..., Any]) -> str:
    """Return the name by which a collector is found again."""
    return _place(collector) if isinstance(collector, str) else registry.name_of("rlgrad.collectors", collector)


def from_mapping(content: Mapping[str, Any], agent: "Agent | None" = None, **overrides: Any) -> Config:
    """Build a config from settings, such as a YAML file holds. What they leave out has its default.

    Args:
        content: settings by name; those of the agent under `agent`, with its `name`. `resolved` and `changed` are left out.
        agent: an agent to take instead of the one that is named, which is then not imported.
        overrides: settings to put in the place of those in `content`.

    Raises:
        ValueError: a setting is missing, unknown, or of a type that its field does not take; the message names it.
    """
    settings = {name: value for name, value in content.items() if name not in NOTES} | overrides
    check_keys(settings, (f.name for f in dataclasses.fields(Config)), "setting")
    for name in ("agent", "env", "total_timesteps"):
        if name not in settings:
            raise ValueError(f"The setting {name!r} is missing.")
    if "env" not in overrides and not isinstance(settings["env"], str):
        raise ValueError(f"env is a string, got {settings['env']!r}.")
    options = mapping(settings.pop("agent"), "agent")
    return Config(agent=_agent_from(options) if agent is None else agent, **as_declared(settings, Config))


def shipped(name: str, **changes: Any) -> Config:
    """Return a config that ships with rlgrad, as an object to read, to change and to train.

    Args:
        name: of the config; `rlgrad configs` lists them.
        changes: settings to put in the place of its own.

    Raises:
        ValueError: there is no config of this name, with the names that are near; or a setting is wrong.

    Example:
        >>> config = rlgrad.config.shipped("cartpole", seed=3)
        >>> agent = dataclasses.replace(config.agent, gamma=0.99)
        >>> run = rlgrad.train(dataclasses.replace(config, agent=agent))
    """
    known = registry.configs()
    if name not in known:
        raise ValueError(f"There is no config {name!r}. {close_names(name, known)} `rlgrad configs` lists them.")
    agent = changes.pop("agent", None)
    return from_mapping(read(known[name]), agent, **changes)


def _agent_from(options: dict[str, Any]) -> "Agent":
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"agent has a name, such as `agent: {{name: reinforce}}`; got name: {name!r}.")
    agent: Agent = _record(agent_class(name), options, "agent.")
    return agent


def _record(cls: type[Any], options: Mapping[str, Any], prefix: str, base: Any = None) -> Any:
    """Return a record of class `cls` from field values, in which mappings stand for the records inside it.

    Args:
        cls: the class.
        options: values by field.
        prefix: of the names in messages, such as `agent.`.
        base: a record of that class with the values of the fields that are left out. `None`: they have their defaults.

    Raises:
        ValueError: a key that is no field, with the field that was probably meant; or a value that its field does not take.
    """
    known: dict[str, Any] = {
        f.name: f.default if base is None else getattr(base, f.name) for f in dataclasses.fields(cls)
    }
    check_keys(options, known, f"option of {prefix.rstrip('.')} ({cls.__name__})")
    kind: Any = cls  # one that mypy can hash
    declared = hints(kind)
    inner = {
        name: _inner_record(known[name], declared.get(name, type(known[name])), value, f"{prefix}{name}")
        for name, value in options.items()
    }
    values = as_declared(inner, cls, prefix)
    return cls(**values) if base is None else dataclasses.replace(base, **values)


def _inner_record(default: Any, hint: Any, value: Any, name: str) -> Any:
    """Return the record that settings of a field stand for; or the value as it is, if the field takes none, or others too."""
    kind = record_type(hint)
    if kind is None or isinstance(value, Record) or (len(alternatives(hint)) > 1 and not isinstance(value, Mapping)):
        return value
    from rlgrad.updates import Update

    options = mapping(value, name)
    if isinstance(default, Update):
        return _update(default, options, f"{name}.")
    base = default if isinstance(default, kind) else None
    return _record(kind if base is None else type(base), options, f"{name}.", base)


def _update(default: Record, options: dict[str, Any], prefix: str) -> Any:
    """Return an update from its options: of the type that they name, else the default with other values."""
    kind = update_class(options.pop("type")) if "type" in options else type(default)
    own_rate = not isinstance(
        options.get("optimizer", ""), str
    )  # an optimizer with options has its learning rate among them
    if own_rate and "learning_rate" in kind.__dataclass_fields__:
        options.setdefault("learning_rate", None)
    # A file that names an optimizer says all of it, as those of before there were options did.
    if "optimizer" in options and "optimizer_options" in kind.__dataclass_fields__:
        options.setdefault("optimizer_options", None)
    return _record(kind, options, prefix, default if type(default) is kind else None)


def update_class(name: Any) -> "type[Update]":
    """Return the update class of a name such as `per_head`, or of a place such as `my_update.py:MyUpdate`.

    Raises:
        ValueError: there is none; the message has the names that are near.
    """
    from rlgrad.updates import Update

    if not isinstance(name, str):
        known = ", ".join(sorted(registry.installed(_UPDATES)))
        raise ValueError(f"The type of an update is one of {known}, or my_update.py:MyUpdate; got {name!r}.")
    try:
        cls = registry.find(_UPDATES, name)
    except ValueError as error:
        raise ValueError(f"The type of an update is a name or a place. {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Update)):
        raise ValueError(f"{name} is no subclass of rlgrad.updates.Update.")
    return cls


def agent_class(name: str) -> "type[Agent]":
    """Return the agent class of a name such as `reinforce`, or of a place such as `my_agent.py:MyAgent`.

    Raises:
        ValueError: there is none; the message has the names that are near.
    """
    from rlgrad.agent import Agent

    cls = registry.find("rlgrad.agents", name)
    if not (isinstance(cls, type) and issubclass(cls, Agent)):
        raise ValueError(f"{name} is no subclass of rlgrad.Agent.")
    return cls


def agent_name(agent: "Agent") -> str:
    """Return the name by which `agent_class` finds this agent's class."""
    return registry.name_of("rlgrad.agents", type(agent))
