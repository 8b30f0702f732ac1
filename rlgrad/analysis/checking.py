"""Check of an environment before training: Gymnasium's own check, and properties that matter to policy gradients."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from rlgrad.analysis.random_play import Env, Played, play_randomly, random_action
from rlgrad.core.faults import OutputFault
from rlgrad.environments.array_observations import with_arrays
from rlgrad.environments.guarding import OLD_GYM, looks_like_old_gym
from rlgrad.environments.ids import require_spaces
from rlgrad.environments.vector import limit_of
from rlgrad.policies.actions import action_model
from rlgrad.policies.observations import observation_spec
from rlgrad.spaces.masks import MASK
from rlgrad.spaces.trees import arrays

_RESCALED = "RescaleAction(min_action=-1.0, max_action=1.0)"
_LARGEST = float(np.finfo(np.float32).max)
_TOO_LARGE = (
    "That is too large for float32, in which learning computes: scale down, in the environment or in a wrapper."
)
_FAR = 10.0  # a number this far from 0 … 1 is scaled, one this close is left


@dataclass(frozen=True)
class Finding:
    """One finding of a check.

    Attributes:
        level: `"error"`: training will fail or mean nothing; `"advice"`: it will be harder than it need be; `"fine"`.
        text: the finding in words, and what to do.
        options: words for the command line of `rlgrad train` that follow the advice, if it is worth following as it is.
    """

    level: Literal["error", "advice", "fine"]
    text: str
    options: tuple[str, ...] = ()


def check(make: Callable[[], Env], steps: int = 2000) -> list[Finding]:
    """Check an environment, by itself and by playing random actions.

    Args:
        make: makes one environment; called several times.
        steps: number of random actions.

    Returns:
        The findings, errors first.
    """
    raw = make()
    require_spaces(raw)
    found = list(_spaces(raw))
    if any(finding.level == "error" for finding in found):
        raw.close()
    else:
        env = with_arrays(raw)
        found += [*_gymnasium(make()), *_actions(env)]
        try:
            found += _determinism(lambda: with_arrays(make()))
            played = play_randomly(env, steps)
            found += [*_rewards(played), *_observations(played), *_masks(played)]
            found += [*_horizon(env, played), *_cost(played)]
        except OutputFault as error:
            found.append(Finding("error", str(error)))
        except (TypeError, ValueError) as error:
            if not looks_like_old_gym(error):
                raise
            found.append(Finding("error", f"{error}. {OLD_GYM}"))
        env.close()
    return sorted(found, key=lambda finding: ("error", "advice", "fine").index(finding.level))


def _spaces(env: Env) -> Iterator[Finding]:
    for build, space in ((action_model, env.action_space), (observation_spec, env.observation_space)):
        try:
            build(space)
        except ValueError as error:
            yield Finding("error", str(error))


def _gymnasium(env: Env) -> Iterator[Finding]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True)
        except Exception as error:  # it asserts, and whatever the environment raises
            yield Finding("error", f"Gymnasium's check fails: {str(error).splitlines()[0] or type(error).__name__}")
    env.close()
    for text in dict.fromkeys(str(warning.message).split("\n")[0] for warning in caught):
        plain = text.replace("\x1b[33m", "").replace("\x1b[0m", "").removeprefix("WARN: ")
        if "render" not in plain:
            yield Finding("advice", f"Gymnasium's check says: {plain}")


def _actions(env: Env) -> Iterator[Finding]:
    space = env.action_space
    if not isinstance(space, spaces.Box):
        return
    finite = np.isfinite(space.low).all() and np.isfinite(space.high).all()
    if not finite:
        yield Finding(
            "advice",
            "Actions are unbounded: a policy starts with deviation 1, and nothing tells it what is much. Give the action space "
            "bounds in the environment's code.",
        )
        return
    half = float(np.max(space.high - space.low)) / 2.0
    centre = float(np.max(np.abs(space.high + space.low))) / 2.0
    if half > _FAR or half < 1.0 / _FAR or centre > 2.0 * half:
        yield Finding(
            "advice",
            f"Actions lie in {space.low.min():g} … {space.high.max():g}, and a policy starts at 0 with deviation 1: "
            f'--wrappers "{_RESCALED}"',
            ("--wrappers", _RESCALED),
        )


def _determinism(make: Callable[[], Env], steps: int = 100) -> Iterator[Finding]:
    def trace() -> list[Any]:
        env = make()
        env.action_space.seed(0)
        observation, info = env.reset(seed=0)
        seen = [observation]
        for step in range(steps):
            action = random_action(env, observation, info, step)
            observation, reward, terminated, truncated, info = env.step(action)
            seen += [observation, reward, terminated]
            if terminated or truncated:
                break
        env.close()
        return seen

    one, other = ([array for _, array in arrays(tuple(trace()), "")] for _ in range(2))
    same = len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    if not same:
        yield Finding(
            "advice",
            "The same seed and the same actions gave another episode: runs cannot be repeated to the bit. Draw everything "
            "random from self.np_random.",
        )


def _rewards(played: Played) -> Iterator[Finding]:
    if not np.isfinite(played.rewards).all():
        yield Finding("error", f"Step {int(np.argmin(np.isfinite(played.rewards)))} gave a reward that is not finite.")
        return
    step = int(np.argmax(np.abs(played.rewards)))
    if abs(played.rewards[step]) > _LARGEST:
        yield Finding("error", f"Step {step} gave the reward {played.rewards[step]:g}. {_TOO_LARGE}")
        return
    if played.rewards.std() == 0.0 and len(played.lengths) and played.lengths.std() == 0.0:
        yield Finding(
            "advice",
            f"Every step of {len(played.rewards)} random ones gave reward {played.rewards[0]:g}, in episodes of one length: at "
            "the start there is nothing to learn from.",
        )
        return
    scale = float(played.discounted.std())
    if scale > 10.0 * _FAR or 0.0 < scale < 1.0 / (10.0 * _FAR):
        yield Finding(
            "advice",
            f"Discounted returns vary by {scale:.3g}, far from 1: the value has long to learn their scale: "
            "--agent.scale-rewards",
            ("--agent.scale-rewards", "True"),
        )


def _observations(played: Played) -> Iterator[Finding]:
    for name, numbers in played.observations.items():
        if not numbers.finite:
            yield Finding("error", f"{name} holds numbers that are not finite.")
        elif numbers.size > _LARGEST:
            yield Finding("error", f"Numbers in {name} reach {numbers.size:g}. {_TOO_LARGE}")
        elif numbers.size > _FAR and numbers.size != 255.0 and not numbers.whole:
            size = f"{numbers.size:.3g}"
            yield Finding(
                "advice",
                f"Numbers in {name} reach {size}: --agent.normalize-observations",
                ("--agent.normalize-observations", "True"),
            )


def _masks(played: Played) -> Iterator[Finding]:
    if played.allowed is not None:
        yield Finding(
            "fine",
            f"It says which actions are possible ({MASK}): on average {100.0 * played.allowed:.0f} % of the choices were. "
            "Policies take possible ones alone.",
        )


def _horizon(env: Env, played: Played) -> Iterator[Finding]:
    limit = limit_of(env)
    if not len(played.lengths):
        yield Finding(
            "advice" if limit else "error",
            f"No episode ended in {len(played.rewards)} random steps"
            + (
                f"; its limit is {limit}."
                if limit
                else ", and there is no time limit: --max-episode-steps 1000, or as many as a good episode takes."
            ),
            () if limit else ("--max-episode-steps", "1000"),
        )
    elif limit is None and not played.truncated:  # one that cuts its episodes has a limit, without saying it
        longest = int(played.lengths.max())
        yield Finding(
            "fine",
            f"There is no time limit. {len(played.lengths)} random episodes ended by themselves, the longest after {longest:,} "
            "steps. If a policy may learn never to end one, limit them: --max-episode-steps 1000, or as many as a good "
            "episode takes.",
        )
    told = any(isinstance(layer, gymnasium.wrappers.TimeAwareObservation) for layer in _layers(env))
    if played.truncated and not told:
        yield Finding(
            "advice",
            f"A limit of {limit or int(played.lengths.max())} steps cut {played.truncated} of {len(played.lengths)} episodes, "
            "and the observation does not say how much time is left. Agents with a value look past the limit; if reaching it "
            "is part of the task: --wrappers TimeAwareObservation",
        )


def _cost(played: Played) -> Iterator[Finding]:
    rate = 1.0 / max(played.seconds, 1e-9)
    text = f"A step takes {played.seconds * 1e6:,.0f} µs: at most {rate:,.0f} steps/s in one process."
    if played.seconds > 2e-3:
        options = ("--vectorization-mode", "async")
        yield Finding("advice", f"{text} To step environments in processes of their own: {' '.join(options)}", options)
    else:
        yield Finding("fine", text)


def _layers(env: Any) -> Iterator[Any]:
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
