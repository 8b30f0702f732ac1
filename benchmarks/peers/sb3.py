"""Stable-Baselines3 under the metric of benchmarks/learning.py: one line of JSON a seed.

    python benchmarks/peers/sb3.py ppo LunarLander-v3 --steps 1000000 --seeds 0-9 --out benchmarks/results/sb3.jsonl

Three kinds of settings. *zoo*: those of rl_zoo3, where a -v5 environment takes its -v4 or -v2 settings. *zoo-without-gsde*: the
same with ordinary Gaussian noise. *defaults*: the library's own, with observations normalized and rewards left alone.

Metric: last weights; mean raw return of the last 100 training episodes; greedy and sampled evaluation over 100 fresh episodes.
Of DQN and QR-DQN, sampled means with the exploration of the end of training, as these libraries play.
Needs a virtual environment of its own: torch (CPU build), stable-baselines3, sb3-contrib, rl-zoo3, gymnasium[box2d,mujoco].
"""

# ruff: noqa: E402  (warnings are silenced before the imports that warn)
import argparse
import json
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import gymnasium as gym
import numpy as np
import rl_zoo3
import torch
import yaml
from sb3_contrib import QRDQN, TQC, TRPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize

AGENTS = {"a2c": A2C, "dqn": DQN, "ppo": PPO, "qrdqn": QRDQN, "trpo": TRPO}
AGENTS |= {"ddpg": DDPG, "sac": SAC, "td3": TD3, "tqc": TQC}
SETTINGS = ("zoo", "zoo-without-gsde", "defaults")


def zoo(agent, env_id):
    """The zoo's settings: (of the algorithm, of its surroundings)."""
    table = yaml.safe_load((Path(rl_zoo3.__file__).parent / "hyperparams" / f"{agent}.yml").read_text())
    base = env_id.rpartition("-")[0]
    name = next(name for name in (env_id, f"{base}-v4", f"{base}-v2", "default") if name in table)
    settings = {key: _decoded(key, value) for key, value in table[name].items() if key not in ("policy", "n_timesteps")}
    around = {key: settings.pop(key, default) for key, default in (("n_envs", 1), ("normalize", False))}
    return settings, around


def _decoded(key, value):
    if isinstance(value, str) and value.startswith("lin_"):
        first = float(value.removeprefix("lin_"))
        return lambda left: left * first
    return eval(value, {"nn": torch.nn, "dict": dict}) if key == "policy_kwargs" else value  # the zoo's own notation


class EpisodeReturns(BaseCallback):
    """Raw returns of the training episodes."""

    def __init__(self):
        super().__init__()
        self.returns = []

    def _on_step(self):
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True


def evaluate(model, normalizer, env_id, seed, greedy, episodes=100):
    """Mean raw return over fresh episodes."""
    env, returns = gym.make(env_id), []
    for episode in range(episodes):
        observation, _ = env.reset(seed=1_000_000 + 1000 * seed + episode)
        total, over = 0.0, False
        while not over:
            seen = observation if normalizer is None else normalizer.normalize_obs(observation[None])[0]
            action, _ = model.predict(seen, deterministic=greedy)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def run(agent, env_id, steps, seed, kind):
    """Trains once, and measures."""
    settings, around = ({}, {"n_envs": 1, "normalize": True}) if kind == "defaults" else zoo(agent, env_id)
    if kind == "zoo-without-gsde":
        settings = {key: value for key, value in settings.items() if key not in ("use_sde", "sde_sample_freq")}
    env, normalizer = make_vec_env(env_id, int(around["n_envs"]), seed=seed), None
    if around["normalize"]:
        env = normalizer = VecNormalize(env, gamma=settings.get("gamma", 0.99), norm_reward=kind != "defaults")
    if "noise_type" in settings:  # "normal" wherever the zoo has noise in these environments
        assert settings.pop("noise_type") == "normal"
        size = env.action_space.shape
        settings["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, settings.pop("noise_std")))
    model = AGENTS[agent]("MlpPolicy", env, seed=seed, device="cpu", **settings)
    episodes, begun = EpisodeReturns(), time.perf_counter()
    model.learn(steps, callback=episodes)
    seconds = time.perf_counter() - begun
    if normalizer is not None:
        normalizer.training = False
    return {
        "system": "sb3",
        "agent": agent,
        "env": env_id,
        "settings": kind,
        "seed": seed,
        "timesteps": steps,
        "train_return": float(np.mean(episodes.returns[-100:])),
        "greedy": evaluate(model, normalizer, env_id, seed, True),
        "sampled": evaluate(model, normalizer, env_id, seed, False),
        "training_seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", choices=AGENTS)
    parser.add_argument("env")
    parser.add_argument("--steps", type=int, required=True, help="environment steps")
    parser.add_argument("--seeds", default="0-9", help="first-last, both included")
    parser.add_argument("--settings", choices=SETTINGS, default="zoo")
    parser.add_argument("--out", help="file that the lines are added to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, _, last = options.seeds.partition("-")
    for seed in range(int(first), int(last or first) + 1):
        line = json.dumps(run(options.agent, options.env, options.steps, seed, options.settings))
        print(line, flush=True)
        if options.out:
            with open(options.out, "a") as file:
                file.write(line + "\n")
