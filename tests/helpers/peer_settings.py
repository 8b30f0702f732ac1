"""Settings that configs and defaults took from rl_zoo3 and Stable-Baselines3 2.9.2, by their names, and where ours differ.

benchmarks/peers/one_step.py compares the numbers with those libraries; a test, what they become here with our configs. Neither
TensorFlow nor rlgrad is needed to import it.
"""

ON_POLICY = {"vf_coef": 0.5, "max_grad_norm": 0.5, "ent_coef": 0.0}
OF_PPO = ON_POLICY | {"batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4, "clip_range": 0.2, "gae_lambda": 0.95}
OF_PPO |= {"normalize_advantage": True, "gamma": 0.99}
OF_A2C = ON_POLICY | {
    "learning_rate": 7e-4,
    "gamma": 0.99,
    "gae_lambda": 1.0,
    "n_steps": 5,
    "normalize_advantage": False,
}
OF_DQN = {"max_grad_norm": 10, "tau": 1.0, "net_arch": [256, 256], "exploration_initial_eps": 1.0}
LIKE_ACROBOT = OF_DQN | {"learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000, "learning_starts": 0}
LIKE_ACROBOT |= {"gamma": 0.99, "target_update_interval": 250, "train_freq": 4, "gradient_steps": -1}
LIKE_ACROBOT |= {"exploration_fraction": 0.12, "exploration_final_eps": 0.1}
LIKE_CARTPOLE = OF_DQN | {"learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000}
LIKE_CARTPOLE |= {"gamma": 0.99, "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128}
LIKE_CARTPOLE |= {"exploration_fraction": 0.16, "exploration_final_eps": 0.04}
LIKE_MOUNTAIN_CAR = OF_DQN | {"learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1000}
LIKE_MOUNTAIN_CAR |= {"gamma": 0.98, "target_update_interval": 600, "train_freq": 16, "gradient_steps": 8}
LIKE_MOUNTAIN_CAR |= {"exploration_fraction": 0.2, "exploration_final_eps": 0.07}
OF_SAC = {"batch_size": 256, "tau": 0.005, "train_freq": 1, "gradient_steps": 1, "gamma": 0.99, "learning_starts": 100}
OF_SAC |= {"buffer_size": 1_000_000}
QUANTILES = {"update.max_grad_norm": 10.0}  # of theirs, none

# Of a config, or of an agent's defaults: where their numbers are, (algorithm, environment), without one the library's defaults;
# the numbers; and those of our fields that are others, on purpose.
SETTINGS = {
    "a2c": (("a2c", None), OF_A2C, {}),
    "ppo": (("ppo", None), OF_PPO | {"n_envs": 1, "n_steps": 2048}, {"num_envs": 8, "num_steps": 256}),
    "cartpole-ppo": (
        ("ppo", "CartPole-v1"),
        OF_PPO
        | {"n_envs": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20}
        | {"learning_rate": "lin_0.001", "clip_range": "lin_0.2"},
        {},
    ),
    "pendulum-ppo-zoo": (
        ("ppo", "Pendulum-v1"),
        OF_PPO | {"n_envs": 4, "n_steps": 1024, "gamma": 0.9, "learning_rate": 1e-3},
        {},
    ),
    "pendulum-ppo": (
        ("ppo", "Pendulum-v1"),
        OF_PPO | {"n_envs": 4, "n_steps": 1024, "gamma": 0.9, "learning_rate": 1e-3},
        {"update.learning_rate_schedule": "linear"},
    ),
    "half-cheetah-ppo": (
        ("ppo", None),
        OF_PPO | {"n_envs": 1, "n_steps": 2048},
        {"num_envs": 8, "num_steps": 256},  # as many steps a rollout
    ),
    "hopper-ppo": (
        ("ppo", None),
        OF_PPO | {"n_envs": 1, "n_steps": 2048},
        {"num_envs": 8, "num_steps": 256},
    ),
    "pong-a2c": (
        ("a2c", "atari"),
        OF_A2C | {"n_envs": 16, "ent_coef": 0.01, "vf_coef": 0.25, "n_timesteps": 1e7},
        {},
    ),
    "acrobot-dqn": (("dqn", "Acrobot-v1"), LIKE_ACROBOT, {"replay.warmup": 1000}),
    "lunar-lander-dqn": (("dqn", "LunarLander-v3"), LIKE_ACROBOT, {"replay.warmup": 1000}),
    "cartpole-dqn": (("dqn", "CartPole-v1"), LIKE_CARTPOLE, {"update.learning_rate_schedule": "linear"}),
    "mountain-car-dqn": (("dqn", "MountainCar-v0"), LIKE_MOUNTAIN_CAR, {}),
    "acrobot-qr-dqn": (
        ("qrdqn", "Acrobot-v1"),
        LIKE_ACROBOT | {"n_quantiles": 25, "max_grad_norm": None},
        QUANTILES | {"replay.warmup": 1000},
    ),
    "cartpole-qr-dqn": (
        ("qrdqn", "CartPole-v1"),
        LIKE_CARTPOLE | {"n_quantiles": 10, "max_grad_norm": None},
        QUANTILES | {"update.learning_rate_schedule": "linear"},
    ),
    "mountain-car-qr-dqn": (
        ("qrdqn", "MountainCar-v0"),
        LIKE_MOUNTAIN_CAR | {"n_quantiles": 25, "max_grad_norm": None},
        QUANTILES,
    ),
    "lunar-lander-qr-dqn": (
        ("qrdqn", "LunarLander-v3"),
        OF_DQN
        | {"learning_rate": "lin_1.5e-3", "batch_size": 128, "buffer_size": 100_000, "learning_starts": 10_000}
        | {"gamma": 0.995, "target_update_interval": 1, "train_freq": 256, "gradient_steps": -1, "n_quantiles": 170}
        | {"exploration_fraction": 0.24, "exploration_final_eps": 0.18, "max_grad_norm": None},
        QUANTILES,
    ),
    "pendulum-sac": (
        ("sac", "Pendulum-v1"),
        OF_SAC | {"learning_rate": 1e-3, "net_arch": [256, 256]},
        {"replay.capacity": 20_000, "replay.warmup": 1000, "hidden_sizes": (64, 64)},
    ),
    "pendulum-tqc": (
        ("tqc", "Pendulum-v1"),
        OF_SAC | {"learning_rate": 1e-3, "net_arch": [256, 256], "n_quantiles": 25, "top_quantiles_to_drop_per_net": 2},
        {"replay.capacity": 20_000, "replay.warmup": 1000, "hidden_sizes": (64, 64)},
    ),
    "pendulum-td3": (
        ("td3", "Pendulum-v1"),
        OF_SAC
        | {"learning_rate": 1e-3, "gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000, "noise_std": 0.1}
        | {"net_arch": [400, 300], "policy_delay": 2, "target_policy_noise": 0.2, "target_noise_clip": 0.5},
        {"replay.capacity": 20_000, "replay.warmup": 1000, "hidden_sizes": (64, 64), "target.every": 1},
    ),
    "lunar-lander-continuous-sac": (
        ("sac", "LunarLanderContinuous-v3"),
        OF_SAC | {"learning_rate": "lin_7.3e-4", "tau": 0.01, "learning_starts": 10_000, "net_arch": [400, 300]},
        {"replay.capacity": 200_000, "hidden_sizes": (256, 256), "update.learning_rate_schedule": "constant"},
    ),
}
SAME = {"n_envs": "num_envs", "gamma": "gamma", "gae_lambda": "gae_lambda", "n_epochs": "update.num_epochs"}
SAME |= {"normalize_advantage": "standardize_advantages", "ent_coef": "entropy_coefficient", "tau": "target.rate"}
SAME |= {"buffer_size": "replay.capacity", "learning_starts": "replay.warmup", "n_quantiles": "quantiles"}
SAME |= {"exploration_initial_eps": "exploration.random.start", "exploration_final_eps": "exploration.random.end"}
SAME |= {"exploration_fraction": "exploration.random.over", "noise_std": "exploration.noise"}
SAME |= {"top_quantiles_to_drop_per_net": "dropped", "n_timesteps": "total_timesteps", "n_steps": "num_steps"}
SAME |= {"target_policy_noise": "smoothing", "target_noise_clip": "smoothing_clip"}


def named_here(theirs):
    """The same by our names, below the agent, or of the run: as docs/coming-from.md translates them."""
    found = {SAME[name]: value for name, value in theirs.items() if name in SAME}
    on_policy, heads = "vf_coef" in theirs, ("policy", "value") if "policy_delay" in theirs else (None,)
    if "net_arch" in theirs:
        found["hidden_sizes"] = tuple(theirs["net_arch"])
    if "max_grad_norm" in theirs:
        found["update.max_grad_norm"] = theirs["max_grad_norm"]
    if on_policy:
        found["value_coefficient"] = 2 * theirs["vf_coef"]  # of half the squared error
    if on_policy and "batch_size" in theirs:
        found["update.num_minibatches"] = theirs["n_envs"] * theirs["n_steps"] // theirs["batch_size"]
    if not on_policy:
        steps, updates = theirs["train_freq"], theirs["gradient_steps"]
        updates = steps if updates == -1 else updates
        found |= {
            "num_steps": steps,
            "replay.batch_size": theirs["batch_size"],
            "replay.updates_per_step": updates / steps,
        }
        # Their interval counts steps of the environment, in which the copies cannot be newer than the last update.
        found["target.every"] = max(theirs.get("target_update_interval", 1), steps) * updates // steps
    if "policy_delay" in theirs:
        found |= {"update.policy_every": theirs["policy_delay"], "target.every": theirs["policy_delay"]}
    for head in heads:
        place = "update." if head is None else f"update.{head}."
        found |= scheduled(theirs["learning_rate"], f"{place}learning_rate", f"{place}learning_rate_schedule")
    return found | (scheduled(theirs["clip_range"], "clip_range", "clip_schedule") if "clip_range" in theirs else {})


def scheduled(number, field, schedule):
    """A number, or as the zoo writes one that falls to 0, lin_0.001."""
    falls = str(number).startswith("lin_")
    return {field: float(str(number).removeprefix("lin_")), schedule: "linear" if falls else "constant"}
