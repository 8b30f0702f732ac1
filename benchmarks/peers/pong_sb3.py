"""Stable-Baselines3's side of benchmarks/pong.py: A2C with the zoo's settings for Atari, for so many seconds.

pip install torch stable-baselines3 gymnasium ale-py opencv-python-headless    # torch's CPU build is enough
"""

# ruff: noqa: E402  (warnings are silenced before the imports that warn)
import time
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
from speed_common import answer, asked
from speed_sb3 import environments
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike


class Curve(BaseCallback):
    """Seconds, steps and mean return of the last 100 training episodes, every few seconds; and the end, when it is time."""

    def __init__(self, seconds, every):
        super().__init__()
        self._seconds, self._every = seconds, every
        self.points = []

    def _on_training_start(self):
        self._begun = time.perf_counter()

    def _on_rollout_start(self):
        passed = time.perf_counter() - self._begun
        if passed >= self._every * (len(self.points) + 1):
            returns = [episode["r"] for episode in self.model.ep_info_buffer]
            value = round(float(np.mean(returns)), 2) if returns else None
            self.points.append((round(passed, 1), self.num_timesteps, value))

    def _on_step(self):
        return time.perf_counter() - self._begun < self._seconds


def measured(work):
    """Trains, and plays at the last weights."""
    model = A2C(
        "CnnPolicy",
        environments(work),
        n_steps=5,
        ent_coef=0.01,
        vf_coef=0.25,
        policy_kwargs={"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}},
        seed=work["seed"],
        device="cpu",
    )
    curve, begun = Curve(work["seconds"], work["every"]), time.perf_counter()
    model.learn(10**9, callback=curve)
    found = {"seconds": time.perf_counter() - begun, "timesteps": model.num_timesteps, "curve": curve.points}
    envs = environments({**work, "num_envs": 8, "seed": 1_000_000})
    for name, deterministic in (("greedy", True), ("sampled", False)):
        found[name], _ = evaluate_policy(model, envs, work["episodes"], deterministic=deterministic)
    return found


if __name__ == "__main__":
    asked_for = asked()
    torch.set_num_threads(asked_for["threads"])
    answer(measured(asked_for), "stable-baselines3", "torch", "numpy", "gymnasium", "ale-py")
