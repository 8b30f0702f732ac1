"""Generated configurations and command lines that are wrong: always status 2 and a sentence that names what is wrong."""

import contextlib
import copy
import io
import shutil

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rlgrad.runs.run
from rlgrad.cli import main

BASE = {
    "agent": {
        "name": "ppo",
        "gamma": 0.99,
        "num_envs": 2,
        "num_steps": 8,
        "update": {
            "type": "ascent",
            "optimizer": "adam",
            "learning_rate": 0.001,
            "num_epochs": 2,
            "num_minibatches": 2,
        },
    },
    "env": "CartPole-v1",
    "total_timesteps": 64,
    "seed": 0,
    "hidden_sizes": [4],
    "vectorization_mode": "sync",
    "evaluation_episodes": 0,
}
AGENT, UPDATE = ("agent",), ("agent", "update")
GARBAGE = st.one_of(
    st.just("much"), st.just([1, [2, {}]]), st.just({"a": {"b": [None]}}), st.just([None]), st.text("xyz%&", min_size=1)
)
NOT_A_NUMBER = st.one_of(GARBAGE, st.just(float("nan")), st.just(float("inf")), st.just(float("-inf")))
NOT_AN_INTEGER = st.one_of(NOT_A_NUMBER, st.floats(0.1, 0.9), st.just("1e-3"), st.just("0x"), st.just([]), st.just({}))
NOT_A_FLAG = st.one_of(GARBAGE, st.integers(2, 99), st.just(0.5))
NOT_A_NAME = st.one_of(GARBAGE, st.integers(), st.just(float("nan")))
NO_FRACTION = st.one_of(NOT_A_NUMBER, st.floats(1.001, 1e30), st.floats(-1e30, -0.001), st.just(10**400))
BELOW_ONE = st.one_of(NOT_AN_INTEGER, st.integers(-(10**30), 0))
NEGATIVE = st.one_of(NOT_AN_INTEGER, st.integers(-(10**30), -1))
NOT_POSITIVE = st.one_of(NOT_A_NUMBER, st.floats(-1e30, 0.0), st.integers(-(10**9), 0))
# What each field must not be, and where it is.
WRONG = [
    ((), "total_timesteps", BELOW_ONE),
    ((), "seed", NEGATIVE),
    ((), "hidden_sizes", st.one_of(GARBAGE, st.just([0]), st.just([-4, 4]), st.just([1.5]), st.just(["a"]))),
    ((), "activation", NOT_A_NAME),
    ((), "max_episode_steps", BELOW_ONE),
    ((), "memory", NOT_A_NAME),
    ((), "memory_size", BELOW_ONE),
    ((), "evaluation_episodes", NEGATIVE),
    ((), "vectorization_mode", st.one_of(NOT_A_NAME, st.just("compiled"), st.just("none"))),
    ((), "step_timeout", st.one_of(NOT_POSITIVE, st.just(3.0))),
    ((), "initial_log_std", NOT_A_NUMBER),
    ((), "squash_actions", NOT_A_FLAG),
    ((), "shared_trunk", NOT_A_FLAG),
    ((), "diagnose", NOT_A_FLAG),
    (
        (),
        "wrappers",
        st.one_of(st.just(["NoSuchWrapper"]), st.just(["os:system(1)"]), st.just(["a b("]), st.just({"a": 1})),
    ),
    ((), "env_kwargs", st.one_of(st.just({"no_such_argument": 1}), st.just("much"), st.just([1, 2, 3]))),
    (
        (),
        "env",
        st.one_of(st.just("CartPoll-v1"), st.just("no_such_module:Env-v0"), st.just(3), st.just([]), st.just({})),
    ),
    ((), "agent", st.one_of(GARBAGE, st.integers(), st.just({}), st.just(["name"]), st.none())),
    (AGENT, "name", st.one_of(GARBAGE, st.integers(), st.just("nowhere.py:Agent"), st.none())),
    (AGENT, "gamma", NO_FRACTION),
    (AGENT, "gae_lambda", NO_FRACTION),
    (AGENT, "num_envs", BELOW_ONE),
    (AGENT, "num_steps", BELOW_ONE),
    (AGENT, "episodes_per_env", st.one_of(BELOW_ONE, st.integers(2, 9))),
    (AGENT, "clip_range", NOT_POSITIVE),
    (AGENT, "entropy_coefficient", NOT_A_NUMBER),
    (AGENT, "normalize_observations", NOT_A_FLAG),
    (AGENT, "scale_rewards", NOT_A_FLAG),
    (AGENT, "update", st.one_of(GARBAGE, st.integers(), st.just(["type"]))),
    (UPDATE, "type", st.one_of(GARBAGE, st.integers(), st.just("ascend"))),
    (UPDATE, "optimizer", st.one_of(GARBAGE, st.integers(), st.just({"class_name": "Nonsense", "config": {}}))),
    (UPDATE, "learning_rate", NOT_POSITIVE),
    (UPDATE, "learning_rate_schedule", NOT_A_NAME),
    (UPDATE, "max_grad_norm", NOT_POSITIVE),
    (UPDATE, "num_epochs", BELOW_ONE),
    (UPDATE, "num_minibatches", BELOW_ONE),
    (UPDATE, "target_kl", NOT_POSITIVE),
]
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=3, max_size=12).map(lambda name: f"{name}_x")


@st.composite
def one_wrong_field(draw):
    where, field, values = draw(st.sampled_from(WRONG))
    return where, field, draw(values), field


@st.composite
def an_unknown_field(draw):
    name = draw(NAMES)
    return draw(st.sampled_from([(), AGENT, UPDATE])), name, draw(st.one_of(GARBAGE, st.integers(), st.none())), name


def changed(where, field, value):
    content = copy.deepcopy(BASE)
    inner = content
    for key in where:
        inner = inner[key]
    inner[field] = value
    return content


@pytest.fixture(scope="module", autouse=True)
def no_training():
    """A configuration that was taken would train for the rest of the day."""
    patch = pytest.MonkeyPatch()
    patch.setattr(rlgrad.runs.run.Run, "train", lambda *_: pytest.fail("training began"))
    yield
    patch.undo()


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    with contextlib.chdir(folder):
        (folder / "file").write_text("a file")
        (folder / "empty").mkdir()
        broken = folder / "broken"
        broken.mkdir()
        (broken / "config.yaml").write_text("agent: {name: ppo}\nenv: CartPole-v1\ntotal_timesteps: many\n")
        (broken / "metrics.csv").write_text("not,a\nmetrics,file\n")
        without = folder / "without"
        without.mkdir()
        (without / "config.yaml").write_text(yaml.safe_dump(BASE))
        yield folder


def refused(arguments):
    """What stderr says of arguments that end with status 2, without line breaks and boxes."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
    said = " ".join(err.getvalue().replace("│", " ").split())
    assert status == 2, (arguments, out.getvalue(), said)
    assert said
    assert "Traceback" not in said
    return said


quick = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@given(st.one_of(one_wrong_field(), an_unknown_field()))
@settings(quick, max_examples=250)
def test_a_config_with_one_mistake_is_refused_by_the_name_of_the_field(folder, mistake):
    where, field, value, named = mistake
    (folder / "config.yaml").write_text(yaml.safe_dump(changed(where, field, value)))
    shutil.rmtree(folder / "never", ignore_errors=True)
    said = refused(["train", "config.yaml", "--run-dir", "never"])
    by_value = (
        field in ("name", "env") and str(value).partition(":")[0] in said
    )  # "there is no agent 'much'" says enough
    assert by_value or named in said.replace("-", "_"), (mistake, said)
    assert not (folder / "never").exists()


@given(
    st.one_of(
        st.binary(max_size=40).filter(lambda b: b"\x00" in b or _is_no_text(b)),
        st.sampled_from(
            ["", "\n", "# a comment", "3", "just words", "- a\n- b", "null", "true", "a: b: c", "a: [1", "\t- a"]
        ).map(str.encode),
        st.sampled_from(
            ["a: &x [*x]", "!!python/object/apply:os.system ['true']", "{a: 1", "'", "? ", "a: !!int x", "--- 1\n--- 2"]
        ).map(str.encode),
        st.text(max_size=40).map(str.encode),
    )
)
@settings(quick, max_examples=120)
def test_a_file_that_is_no_config_is_refused_by_its_name(folder, content):
    (folder / "noise.yaml").write_bytes(content)
    assert "noise.yaml" in refused(["train", "noise.yaml", "--run-dir", "never"])


def _is_no_text(content):
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return False


COMMANDS = ["train", "resume", "evaluate", "plot", "inspect", "watch"]
TRAIN = ["train", "ppo", "CartPole-v1"]
PATHS = ["nowhere", "file", "empty", "nowhere/deeper", "file/inside", "\x00", "a" * 5000]


@given(st.text(min_size=1).filter(lambda name: not name.startswith("-")))
@settings(quick, max_examples=30)
def test_an_unknown_command_is_named(name):
    assert repr(name)[1:-1].split()[0] in refused([f"{name}x"]) if name.split() else refused([f"{name}x"])


@given(st.sampled_from(COMMANDS[1:]), st.sampled_from(PATHS))
@settings(quick, max_examples=40)
def test_what_is_no_run_is_named(command, path):
    assert path[:20].replace("\x00", "") in refused([command, path]).replace("\\x00", "")


@given(st.sampled_from([["check", "CartPole-v1"], *[[c, "empty"] for c in COMMANDS[1:]], TRAIN]), NAMES)
@settings(quick, max_examples=60)
def test_an_unknown_option_is_named(command, name):
    assert name in refused([*command, f"--{name}", "1"]).replace("-", "_")


VALUES = [
    ("--total-timesteps", BELOW_ONE),
    ("--seed", NEGATIVE),
    ("--num-envs", BELOW_ONE),
    ("--num-steps", BELOW_ONE),
    ("--hidden-sizes", st.sampled_from([[0], [-1], ["a"], [1.5], ["4", "x"]])),
    ("--memory", st.sampled_from([["rnn"], [3], ["GRU"]])),
    ("--vectorization-mode", NOT_A_NAME),
    ("--agent.gamma", NO_FRACTION),
    ("--agent.clip-range", NOT_POSITIVE),
    ("--agent.update.learning-rate", NOT_POSITIVE),
    ("--agent.update.num-epochs", BELOW_ONE),
    ("--agent.update.type", NOT_A_NAME),
    ("--agent.update.optimizer", NOT_A_NAME),
    ("--env-kwargs", st.sampled_from([["a"], ["no_such", 1]])),
    ("--wrappers", st.sampled_from([["NoSuchWrapper"], ["x("], ["os:system"]])),
    ("--diagnose", NOT_A_FLAG),
]


@st.composite
def a_wrong_option(draw):
    option, values = draw(st.sampled_from(VALUES))
    value = draw(st.one_of(values, st.just([])))
    # A list of the ones above is one argument, as text; one of these options is several.
    several = option in ("--diagnose", "--wrappers", "--hidden-sizes", "--env-kwargs", "--memory")
    given = value if value == [] or (several and isinstance(value, list)) else [value]
    if option in ("--diagnose", "--wrappers", "--hidden-sizes", "--env-kwargs") and not given:
        given = ["("]  # these stand alone, or may be empty
    return option, [str(each) for each in given]


@given(a_wrong_option())
@settings(quick, max_examples=40)
def test_a_wrong_value_or_none_is_refused_by_the_name_of_the_option(folder, wrong):
    assert_refused_by_name(folder, wrong)


@pytest.mark.slow
@given(a_wrong_option())
@settings(quick, max_examples=200)
def test_200_wrong_values_are_refused_by_the_name_of_the_option(folder, wrong):
    assert_refused_by_name(folder, wrong)


def assert_refused_by_name(folder, wrong):
    option, given = wrong
    shutil.rmtree(folder / "never", ignore_errors=True)
    said = refused([*TRAIN, "--run-dir", "never", option, *given])
    name = option.rpartition(".")[2].strip("-").replace("-", "_")
    assert name in said.replace("-", "_"), (wrong, said)
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["evaluate", "without", "--episodes", "0"], "episodes"),
        (["evaluate", "without", "--episodes", "many"], "episodes"),
        (["evaluate", "without"], "without"),
        (["resume", "without"], "without"),
        (["resume", "without", "--total-timesteps", "x"], "total-timesteps"),
        (["resume", "broken"], "total_timesteps"),
        (["evaluate", "broken"], "total_timesteps"),
        (["plot", "broken"], "broken"),
        (["plot"], "runs"),
        (["plot", "without"], "without"),
        (["inspect", "broken"], "broken"),
        (["watch", "without"], "without"),
        (["check", "NoSuchEnv-v0"], "NoSuchEnv-v0"),
        (["check", "CartPole-v1", "--steps", "-3"], "steps"),
        (["check", "CartPole-v1", "--steps", "few"], "steps"),
        (["check"], "env"),
        (["agents", "extra"], "extra"),
        (["train"], "train"),
        (["train", "ppo"], "environment"),
        (["train", "empty"], "empty"),
        (["train", "empty/x.yaml"], "empty/x.yaml"),
        (["train", "ppo", "CartPole-v1", "--run-dir", "file"], "file"),
        (["train", "ppo", "CartPole-v1", "--run-dir", "broken"], "broken"),
        (["train", "file.py:Agent", "CartPole-v1"], "file.py"),
        (["train", "ppo", "nowhere.py:World"], "nowhere.py"),
    ],
)
def test_other_mistakes_are_named_too(arguments, named):
    assert named in refused(arguments)
