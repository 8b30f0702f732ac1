"""Stable-Baselines3's A2C on CartPole-v1, timed: `python sb3_speed.py STEPS ROLLOUT_LENGTH` prints a line of JSON."""

import json
import sys
import time

import torch
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env

torch.set_num_threads(1)
steps, length = int(sys.argv[1]), int(sys.argv[2])
model = A2C("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=0), n_steps=length, seed=0, device="cpu")
rates = []
for _ in range(2):
    begun = time.perf_counter()
    model.learn(steps)
    rates.append(model.num_timesteps / (time.perf_counter() - begun))
print(json.dumps({"whole": rates[0], "steady": rates[1], "updates": steps // (8 * length)}))
