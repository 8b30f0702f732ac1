"""What Gymnasium's extras, ale_py, MiniGrid and highway-env register trains with PPO, or is refused in one sentence.

The ids are those of the registry. Of a name with several versions the newest is taken. Of MiniGrid one environment of each
class is trained: the others differ from it in size or contents, and a test shows that their spaces are the same. Of Atari,
where all spaces are alike, Pong and Breakout are.

    pytest -m slow -n 0 tests/environments/test_every_environment.py   trains them all, and compares docs/environments-table.md
    python tests/environments/test_every_environment.py                prints the table of that page
"""

import contextlib
import functools
import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import keras
import numpy as np
import pytest
from gymnasium import spaces

import rlgrad
from rlgrad.agents import PPO
from rlgrad.environments.wrapping import wrap_all
from rlgrad.policies import make_policy
from rlgrad.rollouts import GymCollector
from rlgrad.spaces.masks import observed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "environments-table.md"
PACKAGES = ("gymnasium", "ale_py", "minigrid", "highway_env")
ATARI = ("ALE/Breakout-v5", "ALE/Pong-v5")
NEED_JAX = ("phys2d", "tabular")
# One environment, several agents: the versions that give each a reward of its own. The first gives their mean.
OF_SEVERAL_AGENTS = {"intersection-multi-agent-v2"}
MEAN_OF_SEVERAL_AGENTS = "intersection-multi-agent-v0"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """An id and what has to be given with it. Wrappers that are none: those that the refusal without any names."""

    package: str
    name: str
    env_kwargs: dict = field(default_factory=dict)
    wrappers: tuple[str, ...] | None = ()

    @property
    def env_id(self):
        """As `rlgrad train` takes it."""
        return self.name if self.package == "gymnasium" else f"{self.package}:{self.name}"

    def __str__(self):
        wrapped = "-wrapped" if self.wrappers else ""
        return self.name + wrapped


def package_of(spec):
    entry_point = spec.entry_point or spec.vector_entry_point
    module = entry_point if isinstance(entry_point, str) else entry_point.__module__
    return module.partition(".")[0]


def is_gone(spec):
    """Whether Gymnasium keeps only the advice where the environment is found now."""
    return callable(spec.entry_point)


def newest_specs(package):
    """The newest version of each name that a package registers, by id; nothing where it is not installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module(package)
    newest = {}
    for spec in gymnasium.registry.values():
        known = newest.get((spec.namespace, spec.name))
        if package_of(spec) == package and not is_gone(spec) and (known is None or known.version < spec.version):
            newest[spec.namespace, spec.name] = spec
    return sorted(newest.values(), key=lambda spec: (family(spec), spec.id))


def family(spec):
    """What has to be installed."""
    package, _, path = str(spec.entry_point).partition(".envs.")
    extra = path.split(".")[0].replace("_", "-")
    return f"gymnasium[{extra}]" if package == "gymnasium" else package_of(spec).replace("_", "-")


def cases_of(package, specs):
    """What is trained of the environments of a package."""
    if package == "ale_py":
        preprocessed = ({"frameskip": 1}, ("AtariPreprocessing", "FrameStackObservation(stack_size=4)"))
        for name in (spec.id for spec in specs if spec.id in ATARI):
            yield from (Case(package, name), Case(package, name, *preprocessed))
    elif package == "minigrid":
        yield from (Case(package, spec.id, wrappers=None) for spec in specs)
        yield Case(package, "MiniGrid-Empty-5x5-v0", wrappers=("minigrid.wrappers:ImgObsWrapper",))
    else:
        yield from (Case(package, spec.id) for spec in specs)
        if package == "highway_env":
            yield Case(package, MEAN_OF_SEVERAL_AGENTS)


def trained():
    """One parameter for each environment that is trained; a package that is not installed is one that is skipped."""
    for package in PACKAGES:
        specs = newest_specs(package)
        if package == "minigrid":
            specs = list({spec.entry_point: spec for spec in reversed(specs)}.values())[::-1]
        for case in cases_of(package, [spec for spec in specs if spec.id not in OF_SEVERAL_AGENTS]):
            yield pytest.param(case, id=str(case))
        if not specs:
            yield pytest.param(None, id=package, marks=pytest.mark.skip(f"{package} is not installed"))


def one_sentence(error):
    text = str(error)
    assert "\n" not in text
    return text


def what_is_missing(error):
    text = one_sentence(error)
    assert re.search("needs a (package|file) that .* not", text)
    return text


def wrappers_for(case):
    """The case's, or those that the refusal without any names."""
    if case.wrappers is not None:
        return case.wrappers
    with pytest.raises(ValueError, match="not supported: leave it out, with the wrapper") as refused:
        GymCollector(case.env_id, num_envs=1, num_steps=1)
    return (re.search(r'the wrapper "(.*)", or', one_sentence(refused.value)).group(1),)


class FirstWeights(rlgrad.Callback):
    def on_start(self, run):
        self.weights = {v.path: v.numpy() for v in run.policy.trainable_variables}


def train(case, wrappers, path, *callbacks):
    agent = PPO(num_envs=2, num_steps=100, update=rlgrad.Ascent(num_epochs=2, num_minibatches=2))
    options = {"env_kwargs": case.env_kwargs, "wrappers": wrappers, "run_dir": path, "callbacks": callbacks}
    # A rollout more than 2,000 steps: of a vector entry point those do not count that only reset.
    return rlgrad.train(agent, case.env_id, total_timesteps=2_200, evaluation_episodes=0, verbose=False, **options)


@pytest.mark.parametrize("case", list(trained()))
def test_it_trains_for_2000_steps(case, tmp_path):
    first = FirstWeights()
    try:
        wrappers = wrappers_for(case)
        run = train(case, wrappers, tmp_path / "run", first)
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(what_is_missing(error))
    assert 2_000 <= run.timesteps <= 2_200
    undefined = set() if run.episodes else {"train/return", "train/length"}
    assert {name for name, values in run.history.items() if not np.isfinite(values[-1])} == undefined
    assert [v.path for v in run.policy.trainable_variables if np.array_equal(v.numpy(), first.weights[v.path])] == []
    env = wrap_all(wrappers)(gymnasium.make(case.env_id, **case.env_kwargs))
    observation, info = env.reset(seed=0)
    assert env.action_space.contains(run.policy.act(observed("action_mask" in info, observation, info)))
    env.close()
    run.close()


@pytest.mark.parametrize("name", sorted(OF_SEVERAL_AGENTS))
def test_an_environment_that_gives_each_of_its_agents_a_reward_is_refused(name, tmp_path):
    pytest.importorskip("highway_env")
    with pytest.raises(
        ValueError, match=r"^The environment gives several numbers where .* several agents do: wrap it"
    ) as e:
        train(Case("highway_env", name), (), tmp_path / "run")
    one_sentence(e.value)


@pytest.mark.parametrize(
    "name", [spec.id for spec in gymnasium.registry.values() if is_gone(spec) and package_of(spec) == "gymnasium"]
)
def test_an_environment_that_is_gone_is_refused_with_where_it_is_now(name):
    # The two that run environments of the old gym need to know which.
    env_kwargs = {"env_id": "CartPole-v1"} if name.startswith("Gym") else None
    with pytest.raises(
        ImportError, match=rf"^{name} needs a package that is not installed: .*(robotics|shimmy)"
    ) as refused:
        GymCollector(name, num_envs=1, num_steps=1, env_kwargs=env_kwargs)
    one_sentence(refused.value)


def told(space):
    """A space in a cell of the table."""
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}: {told(inner)}' for key, inner in space.items())})"
    if isinstance(space, spaces.Tuple):
        return f"Tuple({', '.join(map(told, space))})"
    if isinstance(space, spaces.Box):
        return f"Box {space.shape}" + ("" if np.issubdtype(space.dtype, np.floating) else f" {space.dtype}")
    return str(space)


def default_network(observation_space, action_space):
    """The encoders of the default network and what comes after them."""
    network = make_policy(observation_space, action_space).network
    convolutions = sum(isinstance(layer, keras.layers.Conv2D) for layer in network.layers)
    parts = [{0: "", 1: "MinAtar CNN", 3: "Nature CNN"}[convolutions]]
    parts += ["one-hot" if any("OneHot" in type(x).__name__ for x in getattr(network, "operations", ())) else ""]
    parts += ["perceptron" if any(layer.name.startswith("hidden_") for layer in network.layers) else ""]
    return ", ".join(filter(None, parts))


def options(case, wrappers):
    """What has to be added on the command line."""
    kwargs = " ".join(f"{key} {value}" for key, value in case.env_kwargs.items())
    texts = " ".join(f'"{text}"' if "(" in text else text for text in wrappers)
    parts = [f"--env-kwargs {kwargs}" if kwargs else "", f"--wrappers {texts}" if texts else ""]
    return " ".join(f"`{part}`" for part in parts if part)


@functools.cache
def table(package):
    """The rows of a package: environments with the same spaces share one."""
    specs = {spec.id: spec for spec in newest_specs(package) if spec.namespace not in NEED_JAX}
    rows, networks = {}, {}
    for case in cases_of(package, list(specs.values())):
        needs = f"`{family(specs.get(case.name) or gymnasium.spec(case.name))}`"
        try:
            wrappers = wrappers_for(case)
        except FileNotFoundError:
            rows.setdefault((needs, "", "", "", "", "no: the package lacks a file"), []).append(case.name)
            continue
        made = {"env_kwargs": case.env_kwargs, "wrappers": wrappers}
        with GymCollector(case.env_id, num_envs=1, num_steps=1, **made) as collector:
            pair = collector.observation_space, collector.action_space
        seen, acts = map(told, pair)
        if (seen, acts) not in networks:
            networks[seen, acts] = default_network(*pair)
        result = "no: a reward for each agent" if case.name in OF_SEVERAL_AGENTS else "trains"
        key = needs, seen, acts, networks[seen, acts], options(case, wrappers), result
        rows.setdefault(key, []).append(case.name)
    return [f"| {needs} | {listed(names)} | {' | '.join(cells)} |" for (needs, *cells), names in rows.items()]


def listed(names):
    if len(names) <= 20:
        return ", ".join(f"`{name}`" for name in names)
    counts = {
        start: sum(name.startswith(start) for name in names) for start in dict.fromkeys(n.split("-")[0] for n in names)
    }
    return "the other " + " and ".join(f"{count} `{start}-…`" for start, count in counts.items())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_has_the_table(package):
    pytest.importorskip(package)
    try:
        rows = table(package)
    except ImportError as error:
        pytest.skip(str(error))
    start = rows[0].split("`")[1].partition("[")[0]
    assert [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{start}")] == rows


def test_minigrids_environments_of_one_class_have_the_same_spaces():
    pytest.importorskip("minigrid")
    first_of_class = {}
    for spec in newest_specs("minigrid"):
        try:
            env = gymnasium.make(spec)
        except (gymnasium.error.DependencyNotInstalled, FileNotFoundError):
            continue
        first = first_of_class.setdefault(spec.entry_point, env)
        assert env.action_space == first.action_space, spec.id
        for key in ("direction", "image"):
            assert env.observation_space[key] == first.observation_space[key], spec.id


if __name__ == "__main__":
    for each in PACKAGES:
        print(*table(each), sep="\n")
