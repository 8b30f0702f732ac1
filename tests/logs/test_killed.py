"""A training process that is killed, and its logs after it went on."""

import json
import signal
import subprocess
import sys
import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlgrad
from rlgrad.logs.csv import read_csv

SCRIPT = """
import sys
import rlgrad

rlgrad.train(
    "a2c", "CartPole-v1", total_timesteps=100_000, num_envs=4, num_steps=8, vectorization_mode="sync", evaluation_episodes=0,
    logs=("jsonl", "tensorboard"), verbose=False, run_dir=sys.argv[1],
)
"""


def has_rows_after_its_checkpoint(run):
    """Whether whoever goes on from the newest checkpoint, the second or a later one, logs some rows once more."""
    steps = sorted(int(path.stem) for path in (run / "checkpoints").glob("0*.npz"))
    if len(steps) < 2 or not (run / "metrics.csv").is_file():
        return False
    return max(read_csv(run / "metrics.csv")["time/timesteps"], default=0) > steps[-1]


def test_every_log_of_a_killed_run_that_went_on_has_each_step_once(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(run)], stderr=subprocess.DEVNULL) as training:
        until = time.monotonic() + 120
        while not has_rows_after_its_checkpoint(run) and training.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        training.send_signal(signal.SIGKILL)
    assert training.returncode == -signal.SIGKILL

    loaded = rlgrad.load(run, verbose=False)
    written = read_csv(run / "metrics.csv")["time/timesteps"]
    before = [step for step in written if step <= loaded.timesteps]
    assert 0 < len(before) < len(written)
    loaded.train(loaded.timesteps + 4_000)
    expected = loaded.history["time/timesteps"]

    assert expected[: len(before)] == before
    assert sorted(set(expected)) == expected
    assert read_csv(run / "metrics.csv")["time/timesteps"] == expected
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["time/timesteps"] for row in rows] == expected
    events = EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("train/entropy")] == expected
