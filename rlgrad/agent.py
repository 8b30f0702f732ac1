"""An agent answers one question: how much does each gradient count?"""

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from rlgrad import estimators, search
from rlgrad.core.checks import require, require_at_most
from rlgrad.data import Credit, Estimates, Outputs, ReplayBatch, Rollout
from rlgrad.hyperparameters import Record
from rlgrad.policies.actions import ActionValues
from rlgrad.policies.critic_options import PLAIN_CRITICS, CriticNetwork
from rlgrad.replay.records import Exploration, Replay, Target
from rlgrad.updates import Ascent, Update

_NO_EXPLORATION = Exploration()


class Agent(Record):
    """A frozen dataclass of hyper-parameters: no weights, no state. Override `credit`, and nothing else is needed.

    Annotated class attributes of a subclass are its hyper-parameters; they appear on the command line and in YAML.

    Example:
        >>> class MyAgent(Agent):
        ...     temperature: float = 1.0
        ...     def credit(self, batch, now):
        ...         return {"log_prob": tf.tanh(batch.advantages / self.temperature),
        ...                 "value": batch.returns - now.value}
    """

    outputs: ClassVar[Any] = {}
    """Further outputs of the policy that can be credited, by name: anything that `output=` of `rlgrad.gradients` takes, such as
    the name of a head of the model. A dict, or a method of the batch that returns one, for outputs that depend on its rows."""
    scalars: ClassVar[Mapping[str, float]] = {}
    """Numbers that are learned beside the networks, such as a temperature, by name, with their starts. Each is an output of the
    policy, (M,), the same for every row."""
    needs_data: ClassVar[bool] = False
    """True for an agent that learns from recorded episodes alone, `replay.data`, and never from its own."""

    tolerates_lag: ClassVar[bool] = False
    """True if a rollout may be of somewhat older weights than those that it moves, as asynchronous workers play it."""

    gamma: float = 0.99
    """Discount per step, 0 to 1."""
    gae_lambda: float = 0.95
    """λ of the returns: 0 trusts the value estimate, 1 the sampled rewards."""
    num_envs: int = 8
    """Environments stepped side by side."""
    num_steps: int | None = 32
    """Steps per environment per rollout. `None`: whole episodes."""
    episodes_per_env: int = 1
    """Whole episodes per environment per rollout, if num_steps is `None`."""
    normalize_observations: bool = False
    """Standardize observations by their running mean and deviation, inside the policy."""
    scale_rewards: bool = False
    """Divide rewards by the standard deviation of their discounted sum. Logged returns stay in the environment's units."""
    update: Update = Ascent()
    """How the weights move."""

    @property
    def replay(self) -> Replay | None:
        """Steps played earlier, from which batches are drawn. `None`: a batch is the rollout that was just played.

        This and the eleven below are no options of agents, until a subclass annotates them, as `ReplayAgent` does.
        """
        return None

    @property
    def target(self) -> Target | None:
        """Slow copies of the weights, which `now.target` asks. `None`: there are none."""
        return None

    @property
    def exploration(self) -> Exploration:
        """How acting for training differs from the policy: not at all."""
        return _NO_EXPLORATION

    @property
    def quantiles(self) -> int | None:
        """Quantiles of the return that the network, or each critic, says of an action. `None`: its expectation."""
        return None

    @property
    def atoms(self) -> int | None:
        """Returns, equally far apart, whose logits the network says of each action. `None`: no logits."""
        return None

    @property
    def support(self) -> tuple[float, float]:
        """Lowest and highest of the atoms, in units of return."""
        return (0.0, 1.0)

    @property
    def dueling(self) -> bool:
        """True if the network says a value of the state and an advantage of each action, which add up."""
        return False

    @property
    def num_critics(self) -> int:
        """Critics of an observation and a continuous action, if the agent asks for their `"q"`."""
        return 1

    @property
    def critics_of_actions(self) -> bool:
        """True if critics beside the policy say how good each Discrete action is, and the policy says how likely each is."""
        return False

    @property
    def critic(self) -> CriticNetwork:
        """Settings of the default critics."""
        return PLAIN_CRITICS

    @property
    def training_mode(self) -> bool:
        """True if critics are learned in training mode, with dropout and with the batch's own statistics.

        Then `now.q`, and `q` of `now.at`, `now.target` and `now.beside`, are of that mode. `now.slope` is as well, unless the
        critics have batch normalizations, whose batches have no slope of a row: it then takes the moving statistics. These are
        moved by each gradient step, by the pass that `now.q` comes from.
        """
        return False

    @property
    def deterministic(self) -> bool:
        """True if the network says the continuous action itself. Else an agent that asks for `"action"` has a Gaussian."""
        return False

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        require(self.num_critics >= 1, "num_critics", "at least 1", self.num_critics)
        require_at_most(self, num_critics=2**10)
        if self.critic.needs_training and not self.training_mode:
            raise ValueError(
                f"{type(self).__name__} runs its critics as at inference, where nothing is dropped and moving statistics stay: "
                "leave critic.dropout and critic.batch_norm out, or take an agent in training mode, such as droq or crossq."
            )
        require(0.0 <= self.gamma <= 1.0, "gamma", "between 0 and 1", self.gamma)
        require(0.0 <= self.gae_lambda <= 1.0, "gae_lambda", "between 0 and 1", self.gae_lambda)
        require(self.num_envs >= 1, "num_envs", "at least 1", self.num_envs)
        require(self.num_steps is None or self.num_steps >= 1, "num_steps", "at least 1, or None", self.num_steps)
        require(self.episodes_per_env >= 1, "episodes_per_env", "at least 1", self.episodes_per_env)
        require_at_most(self, num_envs=2**20, num_steps=2**24, episodes_per_env=2**20)
        if self.num_steps is not None and self.episodes_per_env != 1:
            raise ValueError("episodes_per_env counts whole episodes and num_steps steps: set num_steps to None.")
        if self.num_steps is None and self.replay is not None:
            raise ValueError("A replay is written every few steps, not by whole episodes: set num_steps, such as 8.")

    def estimate(self, rollout: Rollout) -> Estimates:
        """Return the returns, advantages and TD errors of a rollout.

        The default computes λ-returns. If no output estimates the value, `rollout.values` is `None`: then it computes
        reward-to-go, and a time limit counts as the end of the task. An override may take a second argument, `now`, the
        networks to be asked for numbers: `now.at(rollout.observations, rollout.actions).log_prob` is float (T, N).

        Args:
            rollout: (T, N) arrays, with `values` and `next_values` if an output estimates the value.

        Returns:
            `Estimates`, each float (T, N), in units of reward.
        """
        boundaries = rollout.terminations | rollout.truncations
        if rollout.values is None:
            returns = estimators.reward_to_go(rollout.rewards, boundaries, self.gamma)
            return Estimates(returns, returns, returns)
        returns = estimators.lambda_returns(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminations,
            boundaries,
            self.gamma,
            self.gae_lambda,
        )
        deltas = estimators.td_errors(
            rollout.rewards, rollout.values, rollout.next_values, rollout.terminations, self.gamma
        )
        return Estimates(returns, returns - rollout.values, deltas)

    def credit(self, batch: Any, now: Outputs) -> Credit:
        """Return how much each output's gradient counts at each step; positive raises the output.

        Numbers in, numbers out: nothing here is differentiated. The method is traced once and compiled, so write conditions
        on tensors with `tf.where`.

        Args:
            batch: a `Batch`, what was collected and estimated; for agents with a replay a `ReplayBatch`.
            now: the outputs at the current weights.

        Returns:
            By output (`"log_prob"`, `"entropy"`, `"value"`): a float or float (M,). An output left out is not trained.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `credit(self, batch, now)`.")

    def beside(self, batch: Any, now: Outputs) -> Any:
        """Return further rows that the critics run on in one pass with the batch's, as `now.at` returns them; `None`: none.

        They run on these observations, at the action that the policy samples there, and `now.beside` is the same with the
        critics' `q`: in training mode, statistics of the batch are of both halves together.

        Args:
            batch: a `ReplayBatch`.
            now: the networks, to be asked elsewhere; there are no outputs yet.

        Example:
            >>> def beside(self, batch, now):
            ...     return now.at(batch.next_observations)
        """
        return None

    def measure(self, batch: Any, now: Outputs) -> Mapping[str, Any]:
        """Return numbers to log. Their means are taken over the rows, then over the steps of the update.

        Called for agents that credit a policy (`"log_prob"`, `"action"`) or `"q"`, and not for those of a mere value.

        Args:
            batch: what was collected and estimated.
            now: the outputs at the current weights.

        Returns:
            By name: a number, or one for each row, (M,). `"clip_fraction"` is logged as `train/clip_fraction`.
        """
        return {}

    def priority(self, batch: Any, now: Outputs, credit: Credit) -> Any:
        """Return how much each step is worth to be drawn again, float (M,) ≥ 0; only with `Replay(prioritized=True)`.

        The default is |credit of q|, its mean where it has several numbers.

        Args:
            batch: a `ReplayBatch`, steps that were just learned from.
            now: the outputs at the weights before that.
            credit: from `credit`.
        """
        if "q" not in credit:
            raise ValueError(
                f"{type(self).__name__} draws by priority, which is |credit of q| unless said otherwise, and credits no q: "
                "override priority(batch, now, credit), or set replay.prioritized to False."
            )
        size = tf.abs(credit["q"])
        return tf.reduce_mean(tf.reshape(size, (tf.shape(size)[0], -1)), axis=-1)

    @property
    def action_values(self) -> ActionValues:
        """Return what the network says of each Discrete action, for an agent that credits `"q"`."""
        if self.atoms is not None:
            low, high = self.support
            return ActionValues(self.atoms, (float(low), float(high)), self.dueling)
        return ActionValues(self.quantiles or 0, None, self.dueling)

    def search_space(self) -> search.Space:
        """Return what `rlgrad tune` searches unless told otherwise: a range or a list of choices by field.

        A dot leads into a field's own fields, as in `"update.learning_rate"`.
        """
        return {
            "gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
            "gae_lambda": search.Range(0.8, 1.0),
            **search.under("update", self.update.search_space()),
        }


class ReplayAgent(Agent):
    """An agent that learns from what it remembers. Subclass it, and override `credit`.

    `credit` gets a `ReplayBatch`, whose rows are steps of any time. A target is `batch.rewards + batch.discounts * v`, v of
    `batch.next_observations`, however many rewards were added up and however the episode ended.

    Example:
        >>> class Mine(ReplayAgent):
        ...     target: Target | None = Target(rate=1.0, every=100)
        ...     def credit(self, batch, now):
        ...         best = now.target(batch.next_observations).value
        ...         return {"q": batch.rewards + batch.discounts * best - now.q}
    """

    # A ClassVar over a field: no option of these agents.
    gae_lambda: ClassVar[float] = 1.0  # type: ignore[misc]
    episodes_per_env: ClassVar[int] = 1  # type: ignore[misc]

    num_envs: int = 1
    """Environments stepped side by side."""
    num_steps: int | None = 8
    """Steps per environment between two calls of the learner."""
    replay: Replay | None = Replay()
    """Steps played earlier, from which batches are drawn."""
    target: Target | None = None
    """Slow copies of the weights, which `now.target` asks. `None`: there are none."""
    exploration: Exploration = Exploration()
    """How acting for training differs from the policy."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        if self.replay is None:
            raise ValueError(
                f"{type(self).__name__} learns from a replay: set replay, or make it a subclass of rlgrad.Agent."
            )

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return how much each output's gradient counts at each step; positive raises the output. See `Agent.credit`.

        Args:
            batch: steps that the replay remembers.
            now: the outputs at the current weights.

        Returns:
            By output: a number, or numbers of the output's shape.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `credit(self, batch, now)`.")

    def search_space(self) -> search.Space:
        """Return ranges for the discount, the update and the batch, and of what is played for the ratio of updates to steps."""
        plays = not self.needs_data and (self.replay is None or self.replay.data is None)
        return {
            "gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
            "replay.batch_size": [32, 64, 128, 256],
            **({"replay.updates_per_step": [0.125, 0.25, 0.5, 1.0]} if plays else {}),
            **search.under("update", self.update.search_space()),
        }
