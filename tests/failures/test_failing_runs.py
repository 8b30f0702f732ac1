"""What goes wrong while a run is under way, by the command line: a sentence, an exit status, and what was written before."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from itertools import product

import numpy as np
import psutil
import pytest
from helpers import plain_command
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.cli import main
from rlgrad.metrics import read_csv
from rlgrad.runs import checkpoints

WORLD = '''
import os, time
import gymnasium, numpy as np

class World(gymnasium.Env):
    """Does `how` in its step number `at`, counted over all episodes."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, how="", at=100):
        self.how, self.at, self.count = how, at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        self.count += 1
        reward, observation, over = 1.0, self._observation(), self.count % 20 == 0
        if self.count == self.at:
            if self.how == "raise":
                return self.helper(), reward, over, False, {}
            if self.how == "hang":
                time.sleep(1000)
            if self.how == "die":
                os.kill(os.getpid(), 9)
            if self.how == "poison":
                reward = float("nan")
            if self.how == "shape":
                observation = np.zeros(4, np.float32)
        return observation, reward, over, False, {}

    def helper(self):
        raise ZeroDivisionError("the simulator has no ground")

    def _observation(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)
'''
STEPS, WIDE = 16, 1600  # of a rollout, and of a run
OPTIONS = ["--num-envs", "2", "--num-steps", "8", "--evaluation-episodes", "0", "--run-dir", "run"]
SMALL, BIG = ["--hidden-sizes", "4"], ["--hidden-sizes", "64", "64"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world.py").write_text(WORLD)
    return tmp_path


def command(*options, env="world.py:World", steps=WIDE):
    return [
        sys.executable,
        plain_command.__file__,
        "train",
        "a2c",
        env,
        "--total-timesteps",
        str(steps),
        *OPTIONS,
        *options,
    ]


def trains(how, mode, *options):
    """A run in an environment that does something in the hundredth step of each slot, so after twelve rollouts."""
    return run([*command(*SMALL, *failing(how), "--vectorization-mode", mode, *options)])


def trains_here(capsys, arguments):
    """The status and what stderr says of a command that runs in this process, and leaves no other behind."""
    before = psutil.Process().children()
    status = main(arguments[2:])
    assert [process for process in psutil.Process().children() if process not in before] == [], "left behind"
    return status, capsys.readouterr().err


def failing(how):
    return ["--env-kwargs", "how", how, "at", "100"]


def run(arguments):
    # An own process group, so that what is left of it can be found.
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    left = [p for p in psutil.process_iter() if _group(p) == process.pid]
    assert left == [], "processes are left"
    return process.returncode, out, err


def _group(process):
    try:
        return os.getpgid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else None
    except (ProcessLookupError, psutil.NoSuchProcess):
        return None


def assert_sentence(err, *parts):
    """One line of rlgrad's own and no traceback."""
    (line,) = err.strip().splitlines()
    assert line.startswith("rlgrad: ")
    for part in parts:
        assert part in line, line


def assert_survived(folder, rows, timesteps):
    """The rows that were written and the newest checkpoint are there, and load."""
    columns = read_csv(folder / "metrics.csv")
    assert len(columns["time/timesteps"]) >= rows
    assert np.isfinite(columns["train/gradient_norm"]).all()
    newest = checkpoints.numbered(folder / "checkpoints")[0]
    assert int(newest.stem) >= timesteps
    loaded = rlgrad.load(folder, verbose=False, env=_world())
    assert loaded.timesteps == int(newest.stem)
    assert all(np.isfinite(w).all() for w in loaded.policy.get_weights())
    loaded.close()


def _world():
    from pathlib import Path

    from rlgrad.core.registry import from_file

    return from_file(Path("world.py"), "World")


BEFORE = 12, 160  # rows and steps of the newest checkpoint, when the hundredth step of a slot fails


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_environment_that_raises_shows_its_own_traceback_once_after_the_sentence(folder, mode, capsys):
    status, err = trains_here(capsys, [*command(*SMALL, *failing("raise")), "--vectorization-mode", mode])
    assert status == 1
    first, *trace = err.strip().splitlines()
    assert first == (
        "rlgrad: The environment in slot 0 raised ZeroDivisionError in step 3: the simulator has no ground"
    )
    assert trace[0].startswith("Traceback")
    assert trace[-1] == "ZeroDivisionError: the simulator has no ground"
    assert sum(line.startswith("Traceback") for line in trace) == 1
    assert any("world.py" in line and "in helper" in line for line in trace)
    assert_survived(folder / "run", *BEFORE)


def test_an_environment_that_hangs_is_given_up_after_its_time(folder):
    begun = time.perf_counter()
    status, _, err = trains("hang", "async", "--step-timeout", "1.5")
    assert status == 1
    assert_sentence(err, "slot 0 gave no answer in step 3 within step_timeout=1.5 s", "Neither did slots 1.")
    assert time.perf_counter() - begun < 60
    assert_survived(folder / "run", *BEFORE)


def test_a_process_that_is_killed_is_named_and_leaves_no_other_behind(folder, capsys):
    status, err = trains_here(capsys, [*command(*SMALL, *failing("die")), "--vectorization-mode", "async"])
    assert status == 1
    assert_sentence(err, "lost its process in step 3 (killed by SIGKILL)")
    assert_survived(folder / "run", *BEFORE)


WRONG = {
    "poison": "slot 0 gave a non-finite reward at step 3: nan",
    "shape": "slot 0 gave a wrong observation in step 3: expected float32 (3,), came float32 (4,)",
}


@mostly_slow(
    "how, mode", product(["poison", "shape"], ["sync", "async"]), quick=[("poison", "sync"), ("shape", "async")]
)
def test_what_an_environment_must_not_give_ends_the_run_with_a_sentence(folder, how, mode, capsys):
    status, err = trains_here(capsys, [*command(*SMALL, *failing(how)), "--vectorization-mode", mode])
    assert status == 1
    assert_sentence(err, WRONG[how])
    assert_survived(folder / "run", *BEFORE)


def test_a_time_limit_for_steps_is_refused_where_nothing_can_be_stopped(capsys):
    status, err = trains_here(capsys, command(*SMALL, "--vectorization-mode", "sync", "--step-timeout", "1.5"))
    assert status == 2
    assert_sentence(err, "step_timeout", "async")


def in_a_small_disk(size, arguments, folder):
    """Runs a command whose folder `run` is a file system of so many bytes, and keeps what it left there."""
    script = f'mount -t tmpfs -o size={size} none run && {{ "$@"; s=$?; cp -r run kept; exit $s; }}'
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True)
    if probe.returncode:
        pytest.skip(f"no file system can be mounted here: {probe.stderr.decode().strip()}")
    (folder / "run").mkdir()
    return run(["unshare", "-rm", "bash", "-c", script, "-", *arguments])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs util-linux")
def test_a_full_disk_ends_the_run_with_a_sentence_and_spoils_nothing(folder):
    status, _, err = in_a_small_disk("400k", command(*BIG, steps=16000), folder)
    assert status == 1
    assert_sentence(err, "run/", "cannot be written: No space left on device", "rlgrad resume")
    assert_survived(folder / "kept", rows=1, timesteps=0)


def test_a_checkpoint_that_does_not_fit_leaves_those_before_it(folder):
    with subprocess.Popen(command(*BIG, steps=16000), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        metrics = folder / "run" / "metrics.csv"
        while p.poll() is None and not (metrics.exists() and metrics.stat().st_size > 1000):
            time.sleep(0.01)
        resource.prlimit(
            p.pid, resource.RLIMIT_FSIZE, (50_000, 50_000)
        )  # checkpoints are larger, the logs so far are not
        _, err = p.communicate(timeout=120)
    assert p.returncode == 1
    assert_sentence(err, "cannot be written: File too large")
    assert_survived(folder / "run", rows=1, timesteps=0)


def test_a_folder_that_cannot_be_made_is_a_mistake_in_the_arguments(folder, capsys):
    (folder / "run").write_text("a file where the folder should be")
    status, err = trains_here(capsys, command(*SMALL))
    assert status == 2
    assert_sentence(err, "run")
    arguments = command(*SMALL)
    arguments[arguments.index("--run-dir") + 1] = "run/inside"
    status, err = trains_here(capsys, arguments)
    assert status == 2
    assert_sentence(err, "run/inside", "Not a directory")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs util-linux")
def test_a_folder_that_is_read_only_is_a_mistake_in_the_arguments(folder):
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True)
    if probe.returncode:
        pytest.skip(f"no file system can be mounted here: {probe.stderr.decode().strip()}")
    (folder / "closed").mkdir()
    arguments = command(*SMALL)
    arguments[arguments.index("--run-dir") + 1] = "closed/run"
    script = 'mount -t tmpfs -o ro none closed && exec "$@"'
    status, _, err = run(["unshare", "-rm", "bash", "-c", script, "-", *arguments])
    assert status == 2
    assert_sentence(err, "closed/run", "Read-only file system")
