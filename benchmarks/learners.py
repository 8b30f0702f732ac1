"""The cost and gain of several learners: milliseconds of a step of the weights, and the bytes that cross for it.

    pip install 'rlgrad[cpu,ray]'
    python benchmarks/learners.py > benchmarks/results/learners.json

Each learner computes with one thread, so that two of them on two cores are like two machines of one core. One learner
and several are measured in turn, on the same rollout, and the best of several repetitions counts. Steps of four rows have next
to no arithmetic: what two learners take for them longer than one is what the messages cost. The network of pictures is
that of Mnih et al. (2015) with 84 × 84 × 4 bytes a row.
"""

import argparse
import json
import os
import time

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2"}

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from rlgrad.agents import PPO
from rlgrad.distributed import Learners
from rlgrad.rollouts import Rollout
from rlgrad.updates import Ascent

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(2)


def pictures():
    def model():
        x = frames = keras.Input((4, 84, 84), dtype="uint8")
        x = keras.layers.Permute((2, 3, 1))(keras.layers.Rescaling(1 / 255)(x))
        for filters, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = keras.layers.Conv2D(filters, size, stride, activation="relu")(x)
        x = keras.layers.Dense(512, activation="relu")(keras.layers.Flatten()(x))
        return keras.Model(frames, {"policy": keras.layers.Dense(6)(x), "value": keras.layers.Dense(1)(x)})

    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    return space, spaces.Discrete(6), {"model": model}


def numbers(width, inputs=64):
    return spaces.Box(-1, 1, (inputs,), np.float32), spaces.Discrete(6), {"hidden_sizes": (width, width)}


CASES = {
    # name: spaces and networks, environments, steps, minibatches
    "64-64": (lambda: numbers(64), 8, 32, 4),
    "1024-1024": (lambda: numbers(1024), 16, 64, 2),
    "pictures": (pictures, 8, 32, 1),
}


def rollout(observations, steps, columns, rng):
    shape = (steps, columns)

    def seen():
        if observations.dtype == np.uint8:
            return rng.integers(256, size=(*shape, *observations.shape), dtype=np.uint8)
        return rng.normal(size=(*shape, *observations.shape)).astype(np.float32)

    false = np.zeros(shape, bool)
    return Rollout(
        observations=seen(),
        actions=rng.integers(6, size=shape),
        rewards=rng.normal(size=shape).astype(np.float32),
        terminations=false,
        truncations=false,
        final_observations=seen(),
        log_probs=np.full(shape, -1.79, np.float32),
        mask=np.ones(shape, np.float32),
    )


class Counting(Learners):
    """Learners that count what crosses: weights and rows on the way there, outputs, credits, and gradients on the way back."""

    sent = received = steps = 0

    def begin(self, asked, weights, shares):
        self.steps += 1
        self.sent += sum(w.nbytes for w in weights) * (self.count - 1) + sum(x.nbytes for part in shares for x in part)
        super().begin(asked, weights, shares)

    def gradients(self, names, credits):
        found = super().gradients(names, credits)
        self.received += sum(g.nbytes for part in found for g in part)
        return found


def timed(name, counts, repetitions, columns, steps, minibatches):
    """Milliseconds of a step, by the number of learners; the learners."""
    observations, actions, networks = CASES[name][0]()
    update = Ascent(learning_rate=1e-4, max_grad_norm=0.5, num_epochs=2, num_minibatches=minibatches)
    played = rollout(observations, steps, columns, np.random.default_rng(0))
    made, best = {}, dict.fromkeys(counts, np.inf)
    for count in counts:
        policy = rlgrad.make_policy(observations, actions, seed=0, **networks)
        ranks = None if count == 1 else Counting(count)
        agent = PPO(num_envs=columns, num_steps=steps, update=update)
        made[count] = rlgrad.Learner(agent, policy, num_envs=columns, ranks=ranks, xla=False)
    for i in range(repetitions + 1):
        for count, learner in made.items():
            begun = time.perf_counter()
            learner.learn(played, 0.0, np.array([1, i], np.int32))
            if i:
                best[count] = min(best[count], time.perf_counter() - begun)
    for learner in made.values():
        learner.close()
    return {count: round(1e3 * seconds / (2 * minibatches), 2) for count, seconds in best.items()}, made


def measure(name, counts, repetitions):
    _, columns, steps, minibatches = CASES[name]
    milliseconds, made = timed(name, counts, repetitions, columns, steps, minibatches)
    few, _ = timed(name, counts, 2 * repetitions, 4, minibatches, minibatches)
    ranks = {count: learner.ranks for count, learner in made.items() if learner.ranks is not None}
    return {
        "weights": sum(int(np.prod(v.shape)) for v in made[1].variables),
        "rows of a step": columns * steps // minibatches,
        "ms a step": milliseconds,
        "ms a step of 4 rows": few,
        "bytes there a step": {count: found.sent // found.steps for count, found in ranks.items()},
        "bytes back a step": {count: found.received // found.steps for count, found in ranks.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    results = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    results |= {name: measure(name, options.counts, options.repetitions) for name in options.cases}
    print(json.dumps(results, indent=1))
