"""Stable-Baselines3's side of benchmarks/speed.py.

pip install torch stable-baselines3 'gymnasium[box2d,mujoco]' ale-py opencv-python-headless    # torch's CPU build is enough
"""

# ruff: noqa: E402  (warnings are silenced before the imports that warn)
import time
import warnings
from functools import partial

warnings.filterwarnings("ignore")
import gymnasium
import numpy as np
import torch
from speed_common import Solved, answer, asked, rates
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack


def atari(env_id, **options):
    """One game, in whichever process. The wrapper repeats actions itself."""
    import ale_py

    gymnasium.register_envs(ale_py)
    return gymnasium.make(env_id, frameskip=1, **options)


def environments(work):
    """The vector environment, with Atari's usual preprocessing where the row asks for it."""
    kind = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[work["vec"]]
    if not work.get("atari"):
        return make_vec_env(work["env"], work["num_envs"], seed=work["seed"], vec_env_cls=kind)
    env = make_atari_env(partial(atari, work["env"]), work["num_envs"], seed=work["seed"], vec_env_cls=kind)
    return VecFrameStack(env, 4)


def build(work):
    """The model that the row describes; what it leaves open is the library's default."""
    if "updates" in work:
        return with_replay(work)
    linear = work.get("linear", ())

    def falling(first):
        return lambda left: left * first

    options = {
        "n_steps": work["num_steps"],
        "gamma": work["gamma"],
        "gae_lambda": work["gae_lambda"],
        "learning_rate": falling(work["learning_rate"]) if "learning_rate" in linear else work["learning_rate"],
        "ent_coef": work.get("entropy", 0.0),
    }
    if work["agent"] == "ppo":
        options |= {
            "n_epochs": work["epochs"],
            "batch_size": work["num_envs"] * work["num_steps"] // work["minibatches"],
            "clip_range": falling(0.2) if "clip" in linear else 0.2,
        }
    policy = "CnnPolicy" if work.get("atari") else "MlpPolicy"
    algorithm = {"a2c": A2C, "ppo": PPO}[work["agent"]]
    return algorithm(policy, environments(work), seed=work["seed"], device="cpu", **options)


def with_replay(work):
    """The model of a row with a replay."""
    rate, every = work["target"]
    options = {
        "gamma": work["gamma"],
        "learning_rate": work["learning_rate"],
        "buffer_size": work["capacity"],
        "learning_starts": work["warmup"],
        "batch_size": work["batch"],
        "train_freq": work["num_steps"],
        "gradient_steps": work["updates"],
        "tau": rate,
        # Counted in steps of the environment, and looked at when gradient steps are made.
        "target_update_interval": every * work["num_steps"] // work["updates"],
        "policy_kwargs": {"net_arch": list(work["hidden"])},
    }
    if "random" in work:
        options |= {"exploration_final_eps": work["random"][1], "exploration_fraction": work["random"][2]}
    algorithm = {"dqn": DQN, "sac": SAC}[work["agent"]]
    return algorithm("MlpPolicy", environments(work), seed=work["seed"], device="cpu", **options)


def training(work):
    """Two trainings, one after the other."""
    model, seconds = build(work), []
    for _ in range(2):
        begun = time.perf_counter()
        model.learn(work["steps"])
        seconds.append(time.perf_counter() - begun)
    model.env.close()
    return rates(*((work["steps"], each) for each in seconds))


class Watch(BaseCallback):
    """Checks after each update, which is before the next rollout."""

    def __init__(self, solved):
        super().__init__()
        self._solved = solved
        self._over = False

    def _on_training_start(self):
        self._solved.start()

    def _on_rollout_start(self):
        if self.num_timesteps:
            self._over = self._solved.check(self.num_timesteps)

    def _on_step(self):
        return not self._over


def greedy(model, env_id):
    """A function that gives the mean return of so many greedy episodes, played side by side."""

    def play(episodes):
        envs = gymnasium.make_vec(env_id, episodes, vectorization_mode="vector_entry_point")
        observations, _ = envs.reset(seed=1_000_000)
        returns, playing = np.zeros(episodes), np.ones(episodes, bool)
        while playing.any():
            actions, _ = model.predict(observations, deterministic=True)
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            returns += rewards * playing
            playing &= ~(terminated | truncated)
        envs.close()
        return float(returns.mean())

    return play


def solving(work):
    """Trains until the greedy policy reaches the threshold."""
    model = build(work)
    solved = Solved(work["begun_at"], greedy(model, work["env"]))
    model.learn(work["steps"], callback=Watch(solved))
    if solved.numbers is None:
        raise RuntimeError(f"Seed {work['seed']} was not solved in {work['steps']:,} steps.")
    return solved.numbers


if __name__ == "__main__":
    row = asked()
    torch.set_num_threads(row["threads"])
    answer(
        solving(row) if row.get("solve") else training(row),
        *("stable-baselines3", "torch", "numpy", "gymnasium"),
    )
