"""`rlgrad.train` and `rlgrad.load`: putting the pieces of a run together."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from rlgrad import config as configs
from rlgrad.agent import Agent
from rlgrad.callbacks import Callback, EarlyStop, Evaluate
from rlgrad.config import Config, EnvLike, Memory, VectorizationMode, agent_class
from rlgrad.core import settings
from rlgrad.learning.contract import batch_signature, dry_run
from rlgrad.learning.learner import Learner
from rlgrad.logs import make_logs, require_possible
from rlgrad.logs.progress import Progress
from rlgrad.policies.build import ModelOrBuilder, make_policy, specs_for
from rlgrad.rollouts.factory import make_collector
from rlgrad.runs import provenance
from rlgrad.runs.folders import free_folder, saved_model, write_config
from rlgrad.runs.placement import device_for
from rlgrad.runs.run import Run
from rlgrad.runs.trust import require_own_code
from rlgrad.spaces.table import foreign_encoders, require_used, use_encoders

__all__ = ["Callback", "Run", "load", "train"]

_log = logging.getLogger("rlgrad")


def train(
    agent: str | Agent,
    env: EnvLike,
    *,
    total_timesteps: int,
    seed: int = 0,
    num_envs: int | None = None,
    num_steps: int | None = None,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    run_dir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    shared_trunk: bool = False,
    memory: Memory | None = None,
    memory_size: int = 64,
    squash_actions: bool = False,
    initial_log_std: float = 0.0,
    from_logits: bool = True,
    max_episode_steps: int | None = None,
    vectorization_mode: VectorizationMode = "auto",
    collector: str | Callable[..., Any] = "auto",
    step_timeout: float | None = None,
    encoders: Sequence[str] = (),
    evaluation_episodes: int = 100,
    diagnose: bool = False,
    evaluation_interval: int | None = None,
    stop_at_return: float | None = None,
    patience: int | None = None,
    time_budget: float | None = None,
    logs: Sequence[str] = ("csv", "tensorboard"),
    histograms: bool = False,
    videos: int = 0,
    verbose: bool = True,
) -> Run:
    """Train an agent on a Gymnasium environment.

    Args:
        agent: a name (`rlgrad agents` lists them), or an instance.
        env: an id, an environment (then the only one: pass a function for more), or a function that makes one; an environment
            written in TensorFlow (docs/compiled-environments.md) or its class; or `file.py:Name` of a class.
        total_timesteps: environment steps to take, over all environments together.
        seed: same seed, same machine: the same weights to the bit.
        num_envs: environments side by side; none: the agent's.
        num_steps: steps per environment per rollout; none: the agent's.
        model: a Keras model from observations to logits (Discrete) or mean (Box), or to `{"policy": …, "value": …}`; or a
            function that builds one. None: a multilayer perceptron. A model that is given is trained in place.
        value_model: a Keras model from observations to (N, 1), or a function that builds one. None: the value of `model`, or a
            multilayer perceptron, if the agent trains a value at all.
        optimizer: a Keras optimizer or its name; none: the agent's.
        env_kwargs: for the environment's constructor.
        wrappers: around each environment, the first one innermost: names of `gymnasium.wrappers` or `module:Name`, alone or
            with keyword arguments, `"FrameStackObservation(stack_size=4)"`.
        run_dir: a folder for the run; none: a new one under `runs/`.
        callbacks: look on while it trains.
        hidden_sizes: widths of the default networks.
        activation: of the default networks.
        shared_trunk: let the default policy and value networks share their hidden layers.
        memory: give the default networks a memory, `"gru"` or `"lstm"`; none: they see the present observation only.
        memory_size: units of the memory.
        squash_actions: bring continuous actions into their bounds by a tanh, instead of clipping them.
        initial_log_std: start of the Gaussian's log standard deviation, for Box actions.
        from_logits: false declares that `model` ends in probabilities.
        max_episode_steps: a time limit, instead of the environment's.
        vectorization_mode: `"compiled"` (environments written in TensorFlow), `"sync"`, `"async"` (a process for each
            environment), `"vector_entry_point"` (an id's own), or `"auto"`: the first that fits of compiled, an id's own
            where it means the same, and sync.
        collector: `"auto"`: one of rlgrad's own, by `vectorization_mode`. Else a class of your own (docs/collectors.md), its
            name in the entry points `rlgrad.collectors`, or its place: `my_collector.py:Mine`, `my_package.rollouts:Mine`.
        step_timeout: seconds within which all environments have answered to a step or a reset, for `"async"`; none: no limit.
        encoders: of observations, besides those of installed packages: names, or `my_encoders.py:Mine` (docs/encoders.md).
        evaluation_episodes: greedy and sampled episodes that are played at the end; 0: none.
        diagnose: measure signal and noise of the gradients at logged rows, and what a baseline is worth (docs/diagnostics.md).
        evaluation_interval: environment steps between evaluations while it trains, of 20 fresh episodes each, greedy and
            sampled; none: only at the end.
        stop_at_return: end training from this return on: that of greedy evaluations where there are any, else of training.
        patience: end training after so many evaluations, or rows where there are none, that were no better than before.
        time_budget: end training with the first update after so many seconds of it, those before it was gone on with included;
            a compiled run, with the first row.
        logs: where the metrics go, of `"csv"` (always written), `"jsonl"`, `"tensorboard"`, `"wandb"` and `"mlflow"`
            (docs/logs.md).
        histograms: show in TensorBoard how the weights are distributed, and what they changed by, at each logged row.
        videos: how many greedy episodes to show in TensorBoard, evenly spaced over the run; 0: none.
        verbose: show progress.

    Returns:
        The run, trained: `policy`, `path`, `history`, `evaluate()`.

    Raises:
        ValueError: settings that contradict each other or the environment, with what to change.
        ImportError: a log needs a package that is not installed.
        FileExistsError: `run_dir` holds a run already.

    Example:
        >>> run = rlgrad.train("reinforce", "CartPole-v1", total_timesteps=100_000, seed=0)
        >>> run.evaluate(episodes=100).mean_return
    """
    if isinstance(agent, str):
        agent = agent_class(agent)()
    config = Config(
        agent=_resolved(agent, env, num_envs, num_steps, optimizer),
        env=env,
        total_timesteps=total_timesteps,
        seed=seed,
        env_kwargs=dict(env_kwargs or {}),
        wrappers=tuple(wrappers),
        max_episode_steps=max_episode_steps,
        vectorization_mode=vectorization_mode,
        collector=collector,
        step_timeout=step_timeout,
        encoders=tuple(encoders),
        hidden_sizes=tuple(hidden_sizes),
        activation=activation,
        shared_trunk=shared_trunk,
        memory=memory,
        memory_size=memory_size,
        squash_actions=squash_actions,
        initial_log_std=initial_log_std,
        from_logits=from_logits,
        evaluation_episodes=evaluation_episodes,
        diagnose=diagnose,
        evaluation_interval=evaluation_interval,
        stop_at_return=stop_at_return,
        patience=patience,
        time_budget=time_budget,
        logs=tuple(logs),
        histograms=histograms,
        videos=videos,
    )
    return run_config(
        config, model=model, value_model=value_model, run_dir=run_dir, callbacks=callbacks, verbose=verbose
    )


def run_config(
    config: Config,
    *,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    run_dir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: bool = True,
    command: str = "rlgrad.train(...)",
) -> Run:
    """Train what a config says, from the first step to the evaluation at the end. See `train`; run.json keeps `command`."""
    require_possible(config)
    path = free_folder(config, run_dir)
    run = _assemble(config, model, value_model, path, _callbacks(config, callbacks, verbose))
    # A folder that has appeared under the default name meanwhile is another run's.
    path.mkdir(parents=True, exist_ok=run_dir is not None)
    try:
        run.save()  # first: whoever finds a run can go on with it
        mode = run.collector.vectorization_mode
        provenance.write(path, config, command=command, device=run.device, vectorization_mode=mode)
        given = {"model": (model, run.policy.network), "value_model": (value_model, run.policy.value_network)}
        write_config(path, config, run.resolved, {n: built for n, (asked, built) in given.items() if asked is not None})
        run.train()
        conclude(run)
    except BaseException:
        run.close()  # nobody else has it
        raise
    return run


def conclude(run: Run) -> None:
    """Evaluate a run if its config wants it, and draw its learning curve."""
    if run.config.evaluation_episodes:
        try:
            run.write_evaluation()
        except ValueError as error:  # no time limit, or an environment that cannot be made a second time
            _log.warning("Not evaluated: %s", error)
    run.plot()


def load(
    path: str | Path,
    *,
    agent: Agent | None = None,
    env: EnvLike | None = None,
    collector: str | Callable[..., Any] | None = None,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: bool = True,
) -> Run:
    """A run from its folder, at its newest checkpoint. `run.train(total_timesteps)` goes on from there.

    Args:
        path: the run's folder.
        agent: needed only for an agent that was defined in a script or notebook.
        env: needed only for an environment that was given as an object.
        collector: needed only for a class of a collector that was defined in a notebook or inside a function.
        model: needed only for a model that Keras cannot rebuild from its config, such as a subclassed one.
        value_model: likewise.
        callbacks: look on while it trains.
        verbose: show progress.

    Returns:
        The run.

    Raises:
        FileNotFoundError: no run is there.
        ValueError: something that YAML could not hold has to be passed.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file():
        raise FileNotFoundError(f"{path} is no run folder: it has no config.yaml.")
    content = settings.read(path / "config.yaml")
    given = {"agent": agent is not None, "env": env is not None, "collector": collector is not None}
    require_own_code(path, {name: value for name, value in content.items() if not given.get(name)})
    if env is None and str(content.get("env")).startswith("("):
        raise ValueError(f"This run's environment was {content['env']}: pass it as env=.")
    try:
        replaced = {"env": env, "collector": collector}
        config = configs.from_mapping(content, agent, **{k: v for k, v in replaced.items() if v is not None})
    except ValueError as error:
        raise ValueError(f"{path / 'config.yaml'}: {error}") from error
    model = model or saved_model(path, "model")
    value_model = value_model or saved_model(path, "value_model")
    run = _assemble(config, model, value_model, path, _callbacks(config, callbacks, verbose))
    if run.config.encoders != config.encoders:
        run.close()
        raise ValueError(
            f"{path} encoded its observations without {', '.join(set(run.config.encoders) - set(config.encoders))}, which this "
            "process uses for its spaces: load it in one that does not register or install that."
        )
    run.restore()
    return run


def _resolved(agent: Agent, env: EnvLike, num_envs: int | None, num_steps: int | None, optimizer: Any) -> Agent:
    """The agent with what `train` was told folded in."""
    changes: dict[str, Any] = {}
    if num_envs is None and hasattr(env, "step") and not isinstance(env, type):  # a class makes as many as are wanted
        num_envs = getattr(env, "num_envs", 1)
    if num_envs is not None:
        changes["num_envs"] = num_envs
    if num_steps is not None:
        changes["num_steps"] = num_steps
    if optimizer is not None:
        changes["update"] = agent.update.with_optimizer(optimizer)
    return dataclasses.replace(agent, **changes)


def _assemble(
    config: Config,
    model: ModelOrBuilder | None,
    value_model: ModelOrBuilder | None,
    path: Path,
    callbacks: Sequence[Callback],
) -> Run:
    agent, encoders = config.agent, use_encoders(config.encoders)
    by_steps = agent.num_steps is not None
    collector = make_collector(
        config.env,
        collector=config.collector,
        num_envs=agent.num_envs,
        num_steps=agent.num_steps,
        episodes_per_env=None if by_steps else agent.episodes_per_env,
        max_episode_steps=config.max_episode_steps,
        seed=config.seed,
        vectorization_mode=config.vectorization_mode,
        env_kwargs=config.env_kwargs or None,
        wrappers=config.wrappers,
        step_timeout=config.step_timeout,
    )
    try:
        require_used(encoders, collector.observation_space)
        config = dataclasses.replace(config, encoders=foreign_encoders(collector.observation_space))
        device = device_for(collector.observation_space, config.hidden_sizes, [model, value_model])
        specs = specs_for(collector.observation_space, collector.action_space)
        credited = dry_run(agent, batch_signature(*specs)).credited
        with tf.device(device):
            policy = make_policy(
                collector.observation_space,
                collector.action_space,
                model=model,
                value_model=value_model,
                value="value" in credited,
                hidden_sizes=config.hidden_sizes,
                activation=config.activation,
                shared_trunk=config.shared_trunk,
                memory=config.memory,
                memory_size=config.memory_size,
                squash_actions=config.squash_actions,
                initial_log_std=config.initial_log_std,
                normalize_observations=agent.normalize_observations,
                from_logits=config.from_logits,
                seed=config.seed,
            )
            learner = Learner(agent, policy, num_envs=collector.num_envs)
    except BaseException:
        collector.close()
        raise
    return Run(config, policy, learner, collector, path, callbacks, device)


def _callbacks(config: Config, given: Sequence[Callback], verbose: bool) -> list[Callback]:
    """Those that add to the rows come before those that write them."""
    return [*asked_for(config), *given, *make_logs(config), *([Progress()] if verbose else [])]


def asked_for(config: "Config") -> list[Callback]:
    """Those that a config's settings ask for."""
    asked: list[Callback] = []
    if config.evaluation_interval is not None:
        asked.append(Evaluate(config.evaluation_interval))
    if config.stop_at_return is not None or config.patience is not None:
        asked.append(EarlyStop(config.stop_at_return, config.patience))
    return asked
