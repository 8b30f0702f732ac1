"""`rlgrad.train` and `rlgrad.load`: build a run from its config."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from rlgrad import config as configs
from rlgrad.agent import Agent
from rlgrad.callbacks import Callback
from rlgrad.config import Config, Memory, VectorizationMode
from rlgrad.core import settings as files
from rlgrad.core.checks import path_of
from rlgrad.core.plain_files import require_plain
from rlgrad.distributed.cluster import import_ray
from rlgrad.environments.types import EnvLike
from rlgrad.logs import require_possible
from rlgrad.logs.progress import say
from rlgrad.policies.build import ModelOrBuilder
from rlgrad.runs import provenance
from rlgrad.runs.advice import advice
from rlgrad.runs.alone import heads_of, write_spaces
from rlgrad.runs.assembly import assemble, callbacks_of
from rlgrad.runs.folders import PLACES, free_folder, remove_unbegun, require_written, saved_model, write_config
from rlgrad.runs.locking import describe_no_run
from rlgrad.runs.run import Run
from rlgrad.runs.showing import verdict
from rlgrad.runs.train_arguments import config_of, named, naming_arguments, resolved
from rlgrad.runs.trust import refusal, require_trust

__all__ = ["Callback", "Run", "load", "train"]

_log = logging.getLogger("rlgrad")
_IN_PYTHON = "rlgrad.train(...)"


@naming_arguments
def train(
    agent: str | Agent | Config,
    env: EnvLike | None = None,
    *,
    total_timesteps: int | None = None,
    seed: int = 0,
    init_from: str | Path | None = None,
    num_envs: int | None = None,
    num_steps: int | None = None,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    critic_model: Callable[[], keras.Model] | None = None,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    run_dir: str | Path | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    verbose: bool = True,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    max_episode_steps: int | None = None,
    vectorization_mode: VectorizationMode = "auto",
    collector: str | Callable[..., Any] = "auto",
    step_timeout: float | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    worker_timeout: float = 60.0,
    asynchronous: bool = False,
    max_lag: int | None = None,
    learners: int = 1,
    encoders: Sequence[str] = (),
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    layer_norm: bool = False,
    fixed_layer_norm: bool = False,
    sparsity: float = 0.0,
    shared_trunk: bool = False,
    memory: Memory | None = None,
    memory_size: int = 64,
    squash_actions: bool = False,
    initial_log_std: float = 0.0,
    state_dependent_std: bool = False,
    state_dependent_noise: int = 0,
    from_logits: bool = True,
    evaluation_episodes: int = 100,
    diagnose: bool = False,
    evaluation_interval: int | None = None,
    stop_at_return: float | None = None,
    patience: int | None = None,
    time_budget: float | None = None,
    logs: Sequence[str] = ("csv", "tensorboard"),
    log_info: Sequence[str] = (),
    histograms: bool = False,
    videos: int = 0,
) -> Run:
    """Train an agent on a Gymnasium environment.

    Args:
        agent: The agent: a name (`rlgrad agents` lists them), `my_agent.py:MyAgent`, or an instance. Or a config: the name of
            one that ships (`rlgrad configs` lists them), or an object (`rlgrad.config.shipped`). The other arguments that are
            written then replace its settings.
        env: The environment: an id, an instance, a function or class that makes one, or `file.py:Name` of a class.
        total_timesteps: Environment steps to take, over all environments together.
        seed: Seed of every random number. On the same machine the same seed gives the same weights to the bit.
        init_from: Another run to take the first weights from, as far as they fit: its folder, for the newest checkpoint, or a
            file such as runs/a/checkpoints/best.npz. `None`: random weights.
        num_envs: Environments side by side. `None`: as many as the agent's own field says.
        num_steps: Steps per environment per rollout. `None`: as many as the agent's own field says.
        model: A Keras model from observations to logits (Discrete) or mean (Box), or to `{"policy": …, "value": …}`; or
            a function that builds one. It is trained in place. `None`: a multilayer perceptron.
        value_model: A Keras model from observations to (N, 1), or a function that builds one. `None`: the value of
            `model`, or a multilayer perceptron if the agent trains a value.
        critic_model: A function that builds a Keras model from [observation, action] to (N, 1), called once for each critic of
            an agent with critics. The action is a vector in half-widths of its space. `None`: multilayer perceptrons.
        optimizer: A Keras optimizer or its name. `None`: the agent's.
        run_dir: Folder for the run. `None`: a new one under `runs/`.
        callbacks: Callbacks to call during training, in this order; or one.
        verbose: Show progress.
        env_kwargs: Keyword arguments of the environment's constructor; on the command line: --env-kwargs g=9.8
        wrappers: Wrappers around each environment, the first one innermost: names of `gymnasium.wrappers` or
            `module:Name`, alone or with keyword arguments, as in "FrameStackObservation(stack_size=4)".
        max_episode_steps: Time limit of an episode. `None`: the environment's own.
        vectorization_mode: How the environments are stepped. compiled: in one program with the policy, if they are
            written in TensorFlow; sync: one after the other; async: each in a process of its own; vector_entry_point:
            by the vectorized class that the id registers; auto: the first that fits of compiled, vector_entry_point if
            it means the same, and sync.
        collector: Collector of the rollouts. auto: one of rlgrad's own, by vectorization_mode; else the name of an
            installed one, or `my_collector.py:Mine` (docs/collectors.md); in Python also the class itself.
        step_timeout: Seconds within which all environments must answer a step or a reset; needs async, or workers.
            `None`: no limit.
        workers: Processes that step the environments, here or on the machines of a Ray cluster (docs/many-machines.md). No
            number depends on how many they are. `None`: this process steps them.
        ray_address: Address of the head of the Ray cluster that runs workers and learners, or auto for the cluster that this
            machine belongs to. `None`: they run on this machine.
        worker_timeout: Seconds within which each worker, or learner, must find a place and be ready, and until which none
            counts as hanging.
        asynchronous: Learn from the rollout of whichever worker is ready first, while the others play on with older weights:
            for impala and ppo. Such a run is not reproducible.
        max_lag: Drop rollouts whose weights are more updates old than this, where workers are asynchronous. `None`: four times
            the number of workers.
        learners: Processes that share the rows of each step of the weights, this one and others, here or on the machines of a
            Ray cluster (docs/many-machines.md). Numbers depend on how many they are by rounding alone.
        encoders: Encoders of observations besides those of installed packages: names, or `my_encoders.py:Mine`
            (docs/encoders.md).
        hidden_sizes: Widths of the hidden layers of the default networks.
        activation: Activation of the hidden layers, by its Keras name; leaky_relu(0.01) is one of that slope.
        layer_norm: Normalize each hidden layer of the default networks before its activation.
        fixed_layer_norm: Leave out the scale and the shift of this normalization, which are trained.
        sparsity: Share of each unit's inputs whose initial weight is 0, the others being uniform. 0: orthogonal
            weights.
        shared_trunk: Share the hidden layers between the default policy and value networks.
        memory: Recurrent cell of the default networks. `None`: they see the current observation only.
        memory_size: Units of the recurrent cell.
        squash_actions: Bring continuous actions into their bounds by a tanh, instead of clipping them.
        initial_log_std: Initial log standard deviation of the Gaussian policy, for continuous actions.
        state_dependent_std: Let the network say the log standard deviations of continuous actions beside their means. Else they
            are a variable of the policy, the same in every state.
        state_dependent_noise: Let the noise of continuous actions be a function of the state that is drawn anew after so many
            steps, and with each rollout (gSDE). 0: noise of each step by itself.
        from_logits: `False`: the model that is passed as `model` ends in probabilities, not in logits.
        evaluation_episodes: Episodes to evaluate at the end, greedy ones and as many sampled ones. 0: no evaluation.
        diagnose: Measure signal and noise of the gradients, and the worth of the baseline, at every logged row
            (docs/diagnostics.md).
        evaluation_interval: Environment steps between evaluations during training, of 20 greedy and 20 sampled episodes
            each. `None`: only at the end.
        stop_at_return: Stop training once the return reaches this: the greedy return if training is evaluated, else the
            training return.
        patience: Stop training after this many evaluations in a row, or rows if training is not evaluated, without a
            better return.
        time_budget: Stop after this many seconds of training, counting time before a resume. Checked after every
            update; in a compiled run at every row.
        logs: Where the metrics go: csv (always written), jsonl, tensorboard, wandb, mlflow, or `my_logs.py:MyLog`
            (docs/logs.md).
        log_info: Keys of the environment's infos to log: `distance` becomes the metric `info/distance`, the mean since the last
            row over all steps whose info has it; `outer.inner` is a key inside of another.
        histograms: Add histograms of the weights and of their changes to TensorBoard, at every logged row.
        videos: Greedy episodes to show in TensorBoard, evenly spaced over the run.

    Returns:
        The run, trained: `policy`, `path`, `history`, `evaluate()`.

    Raises:
        ValueError: settings contradict each other or the environment; the message says what to change.
        ImportError: a log needs a package that is not installed.
        FileExistsError: `run_dir` holds a run already.

    Example:
        >>> run = rlgrad.train("cartpole", seed=0)
        >>> run = rlgrad.train("reinforce", "CartPole-v1", total_timesteps=100_000, seed=0)
        >>> run.evaluate(episodes=100).mean_return
    """
    given, written = dict(locals()), named()
    settings = {f.name: given[f.name] for f in dataclasses.fields(Config)}  # each field is an argument: a test holds it
    settings |= {"env_kwargs": files.mapping({} if env_kwargs is None else env_kwargs, "env_kwargs")}
    config = config_of(agent, env, settings, written & settings.keys() - {"agent"})
    chosen = resolved(config.agent, config.env, num_envs, num_steps, optimizer)
    return run_config(
        dataclasses.replace(config, agent=chosen),
        model=model,
        value_model=value_model,
        critic_model=critic_model,
        run_dir=run_dir,
        callbacks=callbacks,
        verbose=verbose,
    )


def run_config(
    config: Config,
    *,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    critic_model: Callable[[], keras.Model] | None = None,
    run_dir: str | Path | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    verbose: bool = True,
    command: str = _IN_PYTHON,
) -> Run:
    """Train a run from a config, and evaluate it at the end. See `train` for the arguments; run.json keeps `command`."""
    chosen = callbacks_of(
        config, callbacks, verbose
    )  # first: logs refuse what they cannot do before anything is written
    require_possible(config)
    if config.uses_ray:
        import_ray()  # which is refused, where it is missing, before anything is written
    require_written(config)
    path = free_folder(config, run_dir)
    if verbose and (line := advice(config, from_python=command == _IN_PYTHON)):
        say(line)
    run = assemble(config, model, value_model, critic_model, path, chosen, begins=True)
    new = False
    try:
        if config.ray_address is not None and hasattr(run.collector, "connect"):
            run.collector.connect()  # a cluster that does not answer is refused before anything is written
        # Under the default name, a folder that exists by now is another run's.
        begun = path.exists()
        path.mkdir(parents=True, exist_ok=run_dir is not None)
        new = not begun
        with run.locked():
            if (path / "config.yaml").exists():  # another process was faster
                raise FileExistsError(
                    f"{path} holds a run by now; a run never writes over another. Choose a new folder."
                )
            run.save()  # first: a folder that is a run has a checkpoint to resume from
            mode = run.collector.vectorization_mode
            provenance.write(path, run.config, command=command, device=run.device, vectorization_mode=mode)
            policy = run.policy
            built = {"model": (model, policy.network), "value_model": (value_model, policy.value_network)}
            built["critic_model"] = critic_model, next(iter(policy.critics), None)
            given = {name: made for name, (asked, made) in built.items() if asked is not None}
            collector = run.collector
            write_spaces(
                path, collector.observation_space, collector.action_space, given, heads_of(config.agent, policy)
            )
            write_config(path, run.config, run.resolved, given)
            run.train()
            results = conclude(run)
    except BaseException:
        run.close()  # the caller never gets it
        if new:
            remove_unbegun(path)
        raise
    if verbose and command == _IN_PYTHON:  # the command line ends with a report of its own
        say(verdict(run, results))
    return run


def continue_config(config: Config, path: Path, *, callbacks: Callback | Sequence[Callback] = ()) -> Run:
    """Continue a run of a config that this process knows, which was killed, and train it to its end.

    Args:
        config: that the run was begun with.
        path: the run's folder.
        callbacks: as it was begun with.
    """
    run = assemble(config, None, None, None, path, callbacks_of(config, callbacks, verbose=False))
    try:
        run.restore()
        if not run.ended:
            run.train()
    except BaseException:
        run.close()
        raise
    return run


def conclude(run: Run) -> dict[str, Any] | None:
    """Evaluate a run if its config says so, and draw its learning curve. Return the content of evaluation.json, if there is."""
    results = None
    if run.config.evaluation_episodes:
        try:
            results = run.write_evaluation()
        except ValueError as error:  # an episode does not end, or the environment cannot be made again
            _log.warning("Not evaluated: %s", error)
    if results is not None:
        run.tell_evaluation(results)
    run.plot()
    return results


def load(
    path: str | Path,
    *,
    agent: Agent | None = None,
    env: EnvLike | None = None,
    collector: str | Callable[..., Any] | None = None,
    model: ModelOrBuilder | None = None,
    value_model: ModelOrBuilder | None = None,
    critic_model: Callable[[], keras.Model] | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    verbose: bool = True,
    trust: bool = False,
    max_episode_steps: int | None = None,
    workers: int | None = None,
) -> Run:
    """Load a run from its folder, at its newest checkpoint. `run.train(total_timesteps)` continues from there.

    Args:
        path: Folder of the run.
        agent: The agent. Needed only for one that was defined in a script or notebook.
        env: The environment. Needed only for one that was passed to `rlgrad.train` as an object.
        collector: The collector's class. Needed only for one that was defined in a notebook or inside a function.
        model: The model. Needed only for one that Keras cannot rebuild from its config, such as a subclassed one.
        value_model: The value model, likewise.
        critic_model: The function that builds a critic, likewise.
        callbacks: Callbacks to call during further training, in this order.
        verbose: Show progress.
        trust: Permit what another person's folder asks for, code above all (docs/resume.md). A warning says what it is. Your
            own folders need it only where they were moved.
        max_episode_steps: A time limit of episodes from here on, remembered once training continues. `None`: the run's.
        workers: Processes that step the environments from here on; 0: this process does. `None`: as many as the run says.

    Returns:
        The run.

    Raises:
        FileNotFoundError: The folder holds no run.
        TypeError: `path` is no path. A `Run` is loaded already.
        ValueError: An object that YAML cannot hold is missing from the arguments.
    """
    path = path_of(path, "path")
    if not (path / "config.yaml").is_file():
        raise FileNotFoundError(describe_no_run(path))
    require_plain(path)
    content = files.read(path / "config.yaml", follow=False)
    given = {"agent": agent is not None, "env": env is not None, "collector": collector is not None}
    asked = {name: value for name, value in content.items() if not given.get(name)}
    withheld = require_trust(path, asked, trust=trust, training=False)
    if env is None and str(content.get("env")).startswith("("):
        raise ValueError(f"This run's environment was {content['env']}: pass it as env= (command line: --env).")
    try:
        replaced = {
            "env": env,
            "collector": collector,
            "max_episode_steps": max_episode_steps,
            "workers": workers or None,
        }
        if workers == 0:
            places = PLACES if content.get("learners", 1) == 1 else {"workers"}
            content = {name: value for name, value in content.items() if name not in places}
        config = configs.from_mapping(content, agent, **{k: v for k, v in replaced.items() if v is not None})
    except ValueError as error:
        raise ValueError(f"{path / 'config.yaml'}: {error}") from error
    model = model or saved_model(path, "model")
    value_model = value_model or saved_model(path, "value_model")
    critic_model = critic_model or saved_model(path, "critic_model")
    chosen = callbacks_of(config, callbacks, verbose, postpone={each.text: refusal(path, [each]) for each in withheld})
    run = assemble(config, model, value_model, critic_model, path, chosen)
    if run.config.encoders != config.encoders:
        run.close()
        raise ValueError(
            f"{path} encoded its observations without {', '.join(set(run.config.encoders) - set(config.encoders))}, which this "
            "process uses for its spaces: load it in one that does not register or install that."
        )
    run.restore()
    return run
