"""PureJaxRL's side of benchmarks/speed.py: the authors' own training function, from a checkout of their repository.

    pip install jax flax optax distrax gymnax==0.0.9

gymnax is pinned because from 1.0 on its environments return six values a step, and the checkout's wrappers take five. The
wrappers import brax and navix for environments that are not measured here, so empty modules stand in for those two.

PureJaxRL's networks see flattened observations. Where a row asks for a CNN, the class of the networks is replaced by one that
puts the observation back into its shape and encodes it as rlgrad does: 16 filters of 3×3 and a dense layer of 128, each with a
ReLU, once for the actor and once for the critic. The convolution is either flax's or a dense layer on the nine shifted images
side by side: XLA's gradient of a convolution is slow inside a loop on a CPU, and this training is a loop. All else is the
authors'.
"""

import sys
import time
import types
from pathlib import Path

from speed_common import answer, asked, rates


def stand_in_for(*names):
    """Empty modules, whose attributes are never used."""
    for name in names:
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: None
        sys.modules[name] = module


def cnn(shape, convolution):
    """The class of the networks, for observations of this shape (H, W, C)."""
    import distrax
    import jax.numpy as jnp
    import numpy as np
    from flax import linen
    from flax.linen.initializers import orthogonal

    def patches(images):
        rows, columns = shape[0] - 2, shape[1] - 2
        shifted = [images[..., i : i + rows, j : j + columns, :] for i in range(3) for j in range(3)]
        return jnp.concatenate(shifted, axis=-1)

    class ConvolutionalActorCritic(linen.Module):
        action_dim: int
        activation: str = "relu"

        @linen.compact
        def __call__(self, x):
            # The network is also initialized on one observation without an axis for the batch.
            images = x.reshape((*x.shape[:-1], *shape))

            def output(size, gain):
                gained = orthogonal(np.sqrt(2))
                if convolution == "flax":
                    y = linen.Conv(16, (3, 3), padding="VALID", kernel_init=gained)(images)
                else:
                    y = linen.Dense(16, kernel_init=gained)(patches(images))
                y = linen.relu(y)
                y = y.reshape((*x.shape[:-1], -1))
                y = linen.relu(linen.Dense(128, kernel_init=gained)(y))
                return linen.Dense(size, kernel_init=orthogonal(gain))(y)

            return distrax.Categorical(logits=output(self.action_dim, 0.01)), jnp.squeeze(output(1, 1.0), -1)

    return ConvolutionalActorCritic


def main():
    work = asked()
    stand_in_for("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix")
    sys.path.insert(0, str(Path(work["checkout"]) / "purejaxrl"))
    import gymnax
    import jax
    import ppo

    if work.get("cnn"):
        env, params = gymnax.make(work["peer_env"])
        ppo.ActorCritic = cnn(env.observation_space(params).shape, work["convolution"])
    config = {
        "LR": work["learning_rate"],
        "NUM_ENVS": work["num_envs"],
        "NUM_STEPS": work["num_steps"],
        "TOTAL_TIMESTEPS": work["steps"],
        "UPDATE_EPOCHS": work["epochs"],
        "NUM_MINIBATCHES": work["minibatches"],
        "GAMMA": work["gamma"],
        "GAE_LAMBDA": work["gae_lambda"],
        "CLIP_EPS": 0.2,
        "ENT_COEF": work["entropy"],
        "VF_COEF": work["value_coefficient"],
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": "tanh",
        "ENV_NAME": work["peer_env"],
        "ANNEAL_LR": "learning_rate" in work["linear"],
    }
    train, seconds = jax.jit(ppo.make_train(config)), []
    for i in range(2):
        begun = time.perf_counter()
        result = jax.block_until_ready(train(jax.random.PRNGKey(work["seed"] + 1000 * i)))
        seconds.append(time.perf_counter() - begun)
    returned = float(result["metrics"]["returned_episode_returns"][-1].mean())
    answer(
        rates(*((work["steps"], each) for each in seconds)) | {"return": returned},
        "jax",
        "jaxlib",
        "flax",
        "gymnax",
        "numpy",
    )


if __name__ == "__main__":
    main()
