"""The table of table.md: what every shipped agent credits, with links to the lines of code that say so.

`python docs/site/algorithms.py` writes it anew; a test compares them. A line is found by what stands in it: one that moves is
followed, and one that is gone is an error.
"""

import inspect
import re
from pathlib import Path
from typing import NamedTuple

from rlgrad import Agent, StreamAgent
from rlgrad.config import agent_class
from rlgrad.core import registry
from rlgrad.hyperparameters import fields
from rlgrad.replay import Linear, Target
from rlgrad.updates import PerHead, Update

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "table.md"
BEGIN, END = "<!-- algorithms -->\n", "<!-- end of algorithms -->"
OUTPUTS = {"log_prob": "∇ log π(a\\|s)", "value": "∇ v(s)", "entropy": "∇ H(π(·\\|s))", "q": "∇ q(s)[a]"}
OF_CRITICS = {
    "q": "∇ q_i(s, a)",
    "action": "∇ a(s; ε), a vector",
    "action_log_prob": "∇ log π(a(s; ε)\\|s)",
    "log_alpha": "∇ log α",
}
OF_DISCRETE = {"q": "∇ q_i(s)[a]", "logits": "∇ l(s), the logits, a vector", "log_alpha": "∇ log α"}
OF_DATA = {"log_prob": "∇ log π(a\\|s)", "value": "∇ v(s)", "q": "∇ q_i(s, a)"}
"""The columns of credits, of agents without critics, with critics of continuous actions and of Discrete ones, and of those that
learn from recorded episodes: outputs of the policy, and their heads."""

FROM_DATA = ("bc", "awac", "iql")


class Cell(NamedTuple):
    """A credit, and what stands in the line of the agent's file that says it."""

    text: str
    line: str


_VALUE = Cell("c_v (G^λ − v)", '"value": self.value_coefficient * (batch.returns - now.value)')
_ENTROPY = Cell("c_H, or none", 'credit["entropy"] = anneal(')
_ADVANTAGE = Cell("Â^λ", 'return {"log_prob": advantages,')

_SLOPE = '"action": now.slope(lambda heads: heads.q[:, 0]'
_ELIGIBLE = Cell("1", 'credit = {"log_prob": 1.0, "value": 1.0}')

CREDITS: dict[str, dict[str, Cell]] = {
    "reinforce": {
        "log_prob": Cell("G − b", 'credit = {"log_prob": advantages}'),
        "value": Cell(
            "c_v (G − v), if b is v", 'credit["value"] = self.value_coefficient * (batch.returns - now.value)'
        ),
        "entropy": _ENTROPY,
    },
    "a2c": {"log_prob": Cell("Â^λ", 'credit = {"log_prob": advantages,'), "value": _VALUE, "entropy": _ENTROPY},
    "ppo": {
        "log_prob": Cell("r Â^λ, 0 where clipped", "counts = tf.where(self._clipped("),
        "value": Cell("c_v (G^λ − v), or clipped", '"value": self._of_value(batch, now)'),
        "entropy": _ENTROPY,
    },
    "impala": {
        "log_prob": Cell("Â of V-trace", '"log_prob": advantages,'),
        "value": Cell("c_v (V − v)", '"value": self.value_coefficient * (batch.returns - now.value)'),
        "entropy": Cell("c_H", '"entropy": anneal(self.entropy_coefficient, self.entropy_schedule, batch.progress),'),
    },
    "npg": {"log_prob": _ADVANTAGE, "value": _VALUE},
    "trpo": {"log_prob": _ADVANTAGE, "value": _VALUE},
    "pqn": {"q": Cell("G^λ − q", 'return {"q": batch.returns - now.q}')},
    "stream-ac": {
        "log_prob": _ELIGIBLE,
        "value": _ELIGIBLE,
        "entropy": Cell("c_H sgn δ, or none", 'credit["entropy"] = '),
    },
    "stream-q": {"q": Cell("1", 'return {"q": 1.0}')},
    "stream-sarsa": {"q": Cell("1", 'return {"q": 1.0}')},
    "dqn": {"q": Cell("R + d q̄(s′)[a*] − q, or clipped", "error = batch.rewards + batch.discounts *")},
    "qr-dqn": {"q": Cell("mean_j \\|τ_i − [u_ij < 0]\\| ψ(u_ij)", 'return {"q": quantile_slope(')},
    "c51": {"q": Cell("m − softmax(f)", 'return {"q": self.projected(batch, after) - tf.nn.softmax(now.q)}')},
    "ddpg": {"q": Cell("R + d q̄(s′, μ̄(s′)) − q", '"q": y[:, None] - now.q'), "action": Cell("∇ₐ q(s, μ(s))", _SLOPE)},
    "td3": {
        "q": Cell("R + d min q̄(s′, ã′) − q_i", '"q": y[:, None] - now.q'),
        "action": Cell("∇ₐ q₁(s, μ(s))", _SLOPE),
    },
    "sac": {
        "q": Cell("R + d (min q̄ − α log π′) − q_i", "return y[:, None] - now.q"),
        "action": Cell("∇ₐ min q", '"action": now.slope(lambda heads: self.value(heads.q)'),
        "action_log_prob": Cell("−α", '"action_log_prob": -tf.exp(now.log_alpha)'),
        "log_alpha": Cell("log π + H̄", '"log_alpha": now.action_log_prob + kept'),
    },
    "tqc": {
        "q": Cell(
            "mean_j \\|τ_i − [u_ij < 0]\\| ψ(u_ij)",
            "return quantile_slope(target[:, None, None, :] - now.q[..., None])",
        ),
        "action": Cell("∇ₐ mean z", "return tf.reduce_mean(q, axis=[1, 2])"),
    },
    "redq": {
        "q": Cell("as SAC, min of a random pair", "return tf.reduce_min(tf.gather(q, drawn, batch_dims=1), axis=-1)"),
        "action": Cell("∇ₐ mean q", "return tf.reduce_mean(q, axis=-1)"),
    },
    "bc": {"log_prob": Cell("1", 'return {"log_prob": 1.0}')},
    "awac": {
        "log_prob": Cell(
            "exp(A / β), bounded", '"log_prob": tf.minimum(tf.exp(advantage / self.beta), self.max_weight)'
        ),
        "q": Cell("R + d min q̄(s′, a′) − q_i", '"q": y[:, None] - now.q'),
    },
    "iql": {
        "log_prob": Cell("exp(u / β), bounded", "weight = tf.minimum(tf.exp(better / self.beta), self.max_weight)"),
        "value": Cell("\\|τ − [u < 0]\\| u", "share = tf.where(better < 0.0"),
        "q": Cell("R + d v(s′) − q_i", '"q": y[:, None] - now.q'),
    },
    "droq": {},
    "crossq": {
        "q": Cell(
            "R + d (min q′ − α log π′) − q_i", "return (batch.rewards + batch.discounts * following)[:, None] - now.q"
        ),
    },
    "discrete-sac": {
        "q": Cell("R + d Σ π′ (min q̄ − α log π′) − q_i", '"q": y[:, None] - now.q'),
        "logits": Cell("π (A − Σ π A), A = min q − α log π", '"logits": pi * (worth - tf.reduce_sum(pi * worth'),
        "log_alpha": Cell("H̄ − H", '"log_alpha": self.entropy_share'),
    },
}
"""By agent and output, in the order of the table."""


def table() -> str:
    """Return the table."""
    kinds = {
        "": OUTPUTS,
        "With critics of continuous actions": OF_CRITICS,
        "With critics of Discrete actions": OF_DISCRETE,
        "From recorded episodes": OF_DATA,
    }
    parts = []
    for heading, outputs in kinds.items():
        names = [name for name in CREDITS if outputs_of(name) is outputs]
        parts.append((f"\n{heading}:\n\n" if heading else "") + _table(names, outputs))
    return "".join(parts)


def outputs_of(name: str) -> dict[str, str]:
    """Return the columns of credits of the table that an agent is in."""
    if name in FROM_DATA:
        return OF_DATA
    cls = agent_class(name)
    if _credit(cls, "action") != "–":
        return OF_CRITICS
    return OF_DISCRETE if _credit(cls, "logits") != "–" else OUTPUTS


def written(page: str) -> str:
    """Return the page with its table as the code has it now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def shipped() -> list[str]:
    """Return the names of the agents that ship."""
    return sorted(name for name, point in registry.agents().items() if point.value.startswith("rlgrad.agents."))


def _table(names: list[str], outputs: dict[str, str]) -> str:
    heads = ["agent", *outputs.values(), "a batch is", "target weights", "exploration", "update"]
    rows = [_row(name, list(outputs)) for name in names]
    return "\n".join(["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *rows]) + "\n"


def _row(name: str, outputs: list[str]) -> str:
    cls = agent_class(name)
    agent = cls()
    credits = [_credit(cls, output) for output in outputs]
    settings = {
        "replay" if agent.replay is not None else "num_steps": _batch(agent),
        "target": _target(agent.target),
        "exploration": _explores(agent),
        "update": _update(agent.update),
    }
    linked = [_link(text, *_field(cls, field)) if text != "–" else text for field, text in settings.items()]
    return f"| [{name}](agents/{name}.md) | " + " | ".join([*credits, *linked]) + " |"


def _credit(cls: type[Agent], output: str) -> str:
    """Return the cell of an output: the agent's own, or that of the agent that it is a kind of."""
    names = {agent_class(name): name for name in CREDITS}
    for owner in (base for base in cls.__mro__ if base in names):
        cell = CREDITS[names[owner]].get(output)
        if cell is not None:
            file = Path(inspect.getfile(owner))
            return _link(cell.text, file, _line(file, re.escape(cell.line)))
    return "–"


def _field(cls: type[Agent], name: str) -> tuple[Path, int]:
    """Return the file and the line in which a class, or the nearest of its bases, sets a field's default."""
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    file = Path(inspect.getfile(owner))
    begin = inspect.getsourcelines(owner)[1]
    lines = file.read_text().splitlines()[begin - 1 :]
    found = next(i for i, text in enumerate(lines) if re.match(rf"    {name}: ", text))
    return file, begin + found


def _line(file: Path, pattern: str) -> int:
    """Return the number of the one line of a file that a pattern is found in."""
    found = [i for i, text in enumerate(file.read_text().splitlines(), 1) if re.search(pattern, text)]
    if len(found) != 1:
        raise ValueError(
            f"{file.name} has {len(found)} lines with {pattern!r}: say in algorithms.py what stands there now."
        )
    return found[0]


def _link(text: str, file: Path, line: int) -> str:
    return f"[{text}](../{file.resolve().relative_to(ROOT)}#L{line})"


def _batch(agent: Agent) -> str:
    if agent.replay is not None:
        return f"{agent.replay.batch_size} steps of a replay"
    if isinstance(agent, StreamAgent):
        return "each step"
    return "whole episodes" if agent.num_steps is None else f"a rollout, {agent.num_envs} × {agent.num_steps} steps"


def _target(target: Target | None) -> str:
    if target is None:
        return "–"
    when = "each step" if target.every == 1 else f"every {target.every} steps"
    return f"replaced {when}" if target.rate == 1.0 else f"follow by {target.rate} {when}"


def _explores(agent: Agent) -> str:
    """Return the share of random actions, or the noise of a deterministic policy; a stochastic one needs neither."""
    share, noise = agent.exploration.random, agent.exploration.noise
    if isinstance(share, Linear):
        return f"ε {share.start:g} to {share.end:g}"
    return f"ε {share:g}" if share else f"noise {noise:g}" if noise else "–"


def _update(update: Update) -> str:
    if isinstance(update, PerHead):
        parts = {name: part for name, part in fields(update).items() if isinstance(part, Update)}
        return ", ".join(f"{name}: {_update(part)}" for name, part in parts.items())
    return str(registry.name_of("rlgrad.updates", type(update)))


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
