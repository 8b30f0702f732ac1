"""A run in TensorBoard, as a person meets it: the program is started, and a browser without a window opens its page."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest

import rlgrad

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]


@contextmanager
def tensorboard(folder):
    """The address of a TensorBoard that shows a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            await_scalars(address, server)
            yield address
        finally:
            server.terminate()


def await_scalars(address, server, seconds=60.0):
    """TensorBoard answers before it has read anything."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/data/plugin/scalars/tags", timeout=5) as answer:
                if b"train/return" in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError("TensorBoard shows no scalars.")


def page(address, profile):
    """The document that the page's scripts have made after half a minute of their own time, which passes faster than ours."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    options += ["--window-size=1400,6000", "--virtual-time-budget=30000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, address], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def cards(shown):
    """The names above the curves, pictures and histograms of a page."""
    return set(re.findall(r'title="([^"]+/[^"]+)"', shown))


def test_a_run_is_seen_in_tensorboard(tmp_path):
    class Evaluates(rlgrad.Callback):
        metrics = ("eval/return_greedy",)

        def on_update(self, run, metrics):
            metrics["eval/return_greedy"] = run.evaluate(episodes=2).mean_return

    run = rlgrad.train(
        "a2c",
        "CartPole-v1",
        total_timesteps=2048,
        num_envs=4,
        num_steps=64,
        vectorization_mode="sync",
        evaluation_episodes=0,
        diagnose=True,
        histograms=True,
        videos=1,
        callbacks=[Evaluates()],
        run_dir=tmp_path / "runs" / "seen",
        verbose=False,
    )
    names = ["train/return", "train/gradient_norm", "eval/return_greedy", "eval/episode_greedy"]
    names += ["gradient/snr", "gradient/norm/hidden_1", "weights/policy/hidden_1/kernel"]
    with tensorboard(tmp_path / "runs") as address:
        # Names that are asked for are on the first page; without a filter, groups are folded up.
        wanted = urllib.parse.quote("|".join(f"^{name}$" for name in names))
        for _ in range(5):  # a page that was opened before the server had read everything is opened again
            shown = page(f"{address}/?tagFilter={wanted}#timeseries", tmp_path / "profile")
            if cards(shown) == set(names):
                break
    assert cards(shown) == set(names)
    assert f"{run.timesteps:,}" in shown  # the last step, in the tables below the curves
    assert run.path.name in shown
