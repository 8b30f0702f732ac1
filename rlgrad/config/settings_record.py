"""The settings of a run as one record."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlgrad.config.names import agent_name
from rlgrad.config.written import to_yaml
from rlgrad.core import registry, yaml_documents
from rlgrad.core.checks import path_of, require, require_above, require_at_most
from rlgrad.core.settings import as_declared, flat, plain, require_finite
from rlgrad.hyperparameters import fields

if TYPE_CHECKING:  # the command line asks for its options before anything heavy is imported
    from rlgrad.agent import Agent
    from rlgrad.environments.types import EnvLike

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
    """Seconds within which each worker, or learner, must find a place and be ready, and until which none counts as hanging."""
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
        if self.init_from is not None:
            object.__setattr__(self, "init_from", str(path_of(self.init_from, "init_from")))
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
