"""From a config to a run that has not been trained: its collector, its policy, its learner and its callbacks."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from gymnasium.spaces import Box, Discrete

from rlgrad.callbacks import Callback, make_callbacks
from rlgrad.config import Config
from rlgrad.core import capacity
from rlgrad.core.keras_configs import weights_within
from rlgrad.distributed.learners import Learners
from rlgrad.environments.goals import goals_of
from rlgrad.learning.contract import batch_signature, dry_run
from rlgrad.learning.learner import Learner
from rlgrad.logs import make_logs
from rlgrad.logs.progress import Progress
from rlgrad.policies.build import ModelOrBuilder, build_policy, specs_for
from rlgrad.policies.policy_options import PolicyOptions
from rlgrad.rollouts.base import Collector
from rlgrad.rollouts.factory import make_collector
from rlgrad.rollouts.unplayed import Unplayed
from rlgrad.runs.initial_weights import take_weights
from rlgrad.runs.placement import device_for
from rlgrad.runs.recorded_data import begin_with, load_data, require_possible_data
from rlgrad.runs.run import Run
from rlgrad.spaces.table import foreign_encoders, require_used, use_encoders


def assemble(
    config: Config,
    model: ModelOrBuilder | None,
    value_model: ModelOrBuilder | None,
    critic_model: Callable[[], keras.Model] | None,
    path: Path,
    callbacks: Sequence[Callback],
    *,
    begins: bool = False,
) -> Run:
    """Return a run that has not been trained, of a config. If it `begins`, with the weights that it is to begin with.

    Raises:
        ValueError: settings contradict each other, the environment or the models; the message says what to change.
    """
    agent, encoders = config.agent, use_encoders(config.encoders)
    require_possible_data(agent)
    from_data = agent.replay is not None and agent.replay.data is not None
    collector = make_collector(
        config.env,
        collector=config.collector,
        vectorization_mode=config.vectorization_mode,
        env_kwargs=config.env_kwargs,
        wrappers=config.wrappers,
        step_timeout=config.step_timeout,
        workers=config.workers,
        ray_address=config.ray_address,
        worker_timeout=config.worker_timeout,
        asynchronous=config.asynchronous,
        max_lag=config.max_lag,
        num_envs=agent.num_envs,
        num_steps=agent.num_steps,
        episodes_per_env=agent.episodes_per_env if agent.num_steps is None else None,
        max_episode_steps=config.max_episode_steps,
        seed=config.seed,
    )
    try:
        if config.state_dependent_noise and collector.vectorization_mode == "compiled":
            raise ValueError(
                "state_dependent_noise stays for several steps, and environments written in TensorFlow draw noise for each: "
                "leave it out."
            )
        if from_data:
            collector = Unplayed(collector, steps=(agent.num_steps or 1) * agent.num_envs)
        log_infos(collector, config.log_info)
        spaces = collector.observation_space, collector.action_space
        require_used(encoders, spaces[0])
        foreign = foreign_encoders(spaces[0])
        config = config if foreign == config.encoders else dataclasses.replace(config, encoders=foreign)
        episodes = None
        if from_data and begins and agent.replay is not None:
            episodes, replay = load_data(agent.replay, collector)
            changed: Any = agent  # whose class has the field
            agent = dataclasses.replace(changed, replay=replay)
            config = dataclasses.replace(config, agent=agent)
        device = device_for(spaces[0], config.hidden_sizes, [model, value_model])
        ranks = _learners(config, collector, device)
        signature = batch_signature(*specs_for(*spaces), replay=agent.replay is not None)
        traced = dry_run(
            agent,
            signature,
            num_actions=int(spaces[1].n) if isinstance(spaces[1], Discrete) else 0,
            event=tuple(spaces[1].shape) if isinstance(spaces[1], Box) else None,
        )
        says = agent.action_values if traced.action_values else None
        options = _policy_options(config)
        with tf.device(device), weights_within(capacity.memory() // 4):
            policy = build_policy(
                *spaces,
                options,
                model=model,
                value_model=value_model,
                critic_model=critic_model,
                value="value" in traced.credited,
                action_values=says,
                actor_critic=traced.actor_critic,
                scalars=agent.scalars,
                seed=config.seed,
            )
            if begins and config.init_from is not None:
                take_weights(policy, str(config.init_from))  # before the learner copies them
            # Without a value the agent is traced again, on outputs that have none.
            goals = None
            if agent.replay is not None and agent.replay.hindsight:
                goals = goals_of(config.env, spaces[0], config.env_kwargs, config.wrappers)
            known = traced if policy.has_value else None
            learner = Learner(agent, policy, num_envs=collector.num_envs, traced=known, goals=goals, ranks=ranks)
            if episodes is not None:
                begin_with(learner, episodes)
    except BaseException:
        collector.close()
        raise
    return Run(config, policy, learner, collector, path, callbacks, device)


def _learners(config: Config, collector: Collector, device: str) -> Learners | None:
    """Return the learners of a run that has several.

    Raises:
        ValueError: it learns in a program with its environments, or on a GPU.
    """
    if config.learners == 1:
        return None
    if collector.fusible is not None:
        raise ValueError(
            "An environment written in TensorFlow is compiled together with its learner, which is faster than any number of "
            "learners: leave learners out (docs/compiled-environments.md)."
        )
    if device != "CPU:0":
        raise ValueError(
            f"Several learners compute on CPUs, and this run computes on {device}: leave learners out, or hide the GPU by "
            "CUDA_VISIBLE_DEVICES=-1."
        )
    return Learners(config.learners, ray_address=config.ray_address, timeout=config.worker_timeout)


def log_infos(collector: Collector, names: Sequence[str]) -> None:
    """Have a collector add up what infos say.

    Raises:
        ValueError: it gives no infos.
    """
    if not names:
        return
    if not hasattr(collector, "log_infos"):
        compiled = collector.vectorization_mode == "compiled"
        what = "an environment written in TensorFlow" if compiled else f"the collector {type(collector).__name__}"
        raise ValueError(f"log_info has {', '.join(map(repr, names))}, and {what} gives no infos: leave log_info out.")
    collector.log_infos(names)


def callbacks_of(
    config: Config,
    given: Callback | Sequence[Callback] | None,
    verbose: bool,
    *,
    postpone: Mapping[str, str] | None = None,
) -> list[Callback]:
    """Return all callbacks of a run. Those that add to the rows come before the logs, which write them."""
    own = make_callbacks(
        evaluation_interval=config.evaluation_interval,
        stop_at_return=config.stop_at_return,
        patience=config.patience,
    )
    several: list[Any] = [] if given is None else list(given) if isinstance(given, Iterable) else [given]
    for each in several:
        if not isinstance(each, Callback):
            made = f"{each.__name__}()" if isinstance(each, type) else repr(each)
            raise TypeError(f"callbacks are instances of subclasses of rlgrad.Callback, such as {made}; got {each!r}.")
    return [*own, *several, *make_logs(config, postpone=postpone), *([Progress()] if verbose else [])]


def _policy_options(config: Config) -> PolicyOptions:
    """Return the settings of the policy: the config's, and whether observations are normalized, which is the agent's."""
    settings = vars(config) | {"normalize_observations": config.agent.normalize_observations}
    return PolicyOptions(**{field.name: settings[field.name] for field in dataclasses.fields(PolicyOptions)})
