"""A training process that is killed, and its logs after it went on."""

import json
import shutil

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlgrad
from rlgrad.metrics import read_csv

OPTIONS = {"total_timesteps": 4_000, "num_envs": 4, "num_steps": 8, "vectorization_mode": "sync"}
OPTIONS |= {"evaluation_episodes": 0, "logs": ("jsonl", "tensorboard"), "verbose": False}


class Photograph(rlgrad.Callback):
    """Copies the run's folder once, when it holds rows that were logged after its newest checkpoint, the second or a later."""

    def __init__(self, folder):
        self.folder = folder

    def on_update(self, run, metrics):
        checkpoints = sorted(int(path.stem) for path in (run.path / "checkpoints").glob("0*.npz"))
        rows = read_csv(run.path / "metrics.csv")["time/timesteps"]
        if len(checkpoints) >= 2 and max(rows) > checkpoints[-1] and not self.folder.exists():
            shutil.copytree(run.path, self.folder)  # what a kill at this moment would leave: nobody has closed a file


def test_every_log_of_a_killed_run_that_went_on_has_each_step_once(tmp_path):
    run = tmp_path / "killed"
    rlgrad.train("a2c", "CartPole-v1", run_dir=tmp_path / "run", callbacks=[Photograph(run)], **OPTIONS)

    loaded = rlgrad.load(run, verbose=False)
    written = read_csv(run / "metrics.csv")["time/timesteps"]
    before = [step for step in written if step <= loaded.timesteps]
    assert 0 < len(before) < len(written)
    loaded.train(loaded.timesteps + 2_000)
    expected = loaded.history["time/timesteps"]

    assert expected[: len(before)] == before
    assert sorted(set(expected)) == expected
    assert read_csv(run / "metrics.csv")["time/timesteps"] == expected
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["time/timesteps"] for row in rows] == expected
    events = EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("train/entropy")] == expected
