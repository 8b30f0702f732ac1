"""The diagnosis of one rollout as plain numbers, which are stored, logged and read without TensorFlow."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlgrad.core import plain_files
from rlgrad.core.faults import write_whole

# What a run with diagnose=True reports besides, and then ratio and norm of each layer by itself. docs/metrics.md defines each.
DIAGNOSTICS = (
    "gradient/signal",
    "gradient/noise",
    "gradient/noise_scale",
    "gradient/snr",
    "gradient/cosine",
    "gradient/late_share",
    "gradient/largest_share",
    "gradient/variance_ratio",
    "gradient/optimal_variance_ratio",
    "gradient/componentwise_variance_ratio",
    "gradient/optimal_baseline",
    "gradient/value_noise_scale",
    "gradient/value_snr",
    "gradient/q_noise_scale",
    "gradient/q_snr",
)
# The parts of the networks that are diagnosed, and the outputs whose gradients add up to theirs.
HEADS = {
    "policy": ("log_prob", "logits", "action", "action_log_prob"),
    "value": ("value",),
    "q": ("q",),
}
FILE = "diagnostics.json"


@dataclass(frozen=True)
class Head:
    """Signal and noise of one output's credited gradient. See `rlgrad.diagnostics.noise_scale`.

    Attributes:
        signal: estimate of ‖G‖², possibly below 0.
        noise: tr Σ of one sample.
        noise_scale: B_simple, in samples.
        snr: of the mean over this rollout's samples.
        layers: the same by layer.
        norms: ‖ḡ‖ by layer, the length of the mean over this rollout's samples, signal and noise together.
    """

    signal: float
    noise: float
    noise_scale: float
    snr: float
    layers: dict[str, float]
    norms: dict[str, float] = field(default_factory=dict)  # older files have none


@dataclass(frozen=True)
class Variances:
    """The variance tr Σ of one sample's policy gradient, under different baselines, and the best constant one.

    Attributes:
        none: the credit is the return.
        agent: credit is the agent's advantage.
        optimal: credit is the return less the best constant.
        componentwise: credit is the return less the best constant for each weight.
        baseline: the best constant, in units of the return.
    """

    none: float
    agent: float
    optimal: float
    componentwise: float
    baseline: float


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of the per-sample gradients of a rollout, at the weights that collected it, or of a batch of a replay.

    Attributes:
        unit: a sample is a `"step"` of the environment or a whole `"episode"`.
        count: N, samples in the rollout.
        timesteps: environment steps trained when it was made.
        policy: of the credited gradient of log π, or of whatever else of the policy is credited. `None`: nothing is.
        value: of the credited gradient of v. `None`: v is not trained.
        q: of the credited gradient of q. `None`: q is not trained.
        cosines: of each sample's policy gradient with their mean.
        share_by_time: share of each time step of the rollout in the policy gradient; none of a batch of a replay.
        share_by_episode: share of each episode, or of the part of it that lies in the rollout; likewise.
        variances: under different baselines; `None` for a batch of a replay.
    """

    unit: Literal["step", "episode"]
    count: int
    timesteps: int
    policy: Head | None = None
    value: Head | None = None
    q: Head | None = None
    cosines: list[float] = field(default_factory=list)
    share_by_time: list[float] = field(default_factory=list)
    share_by_episode: list[float] = field(default_factory=list)
    variances: Variances | None = None

    @property
    def cosine(self) -> float:
        """Mean of the finite cosines."""
        return _mean([c for c in self.cosines if math.isfinite(c)])

    @property
    def late_share(self) -> float:
        """Share of the later half of the time steps; NaN if there is only one step."""
        late = self.share_by_time[(len(self.share_by_time) + 1) // 2 :]
        return sum(late) if late else math.nan

    @property
    def largest_share(self) -> float:
        """Share of the episode with the largest one."""
        return max(self.share_by_episode, default=math.nan)

    @property
    def heads(self) -> dict[str, Head]:
        """The heads that there are, by name."""
        found = {name: getattr(self, name) for name in HEADS}
        return {name: head for name, head in found.items() if head is not None}

    def metrics(self) -> dict[str, float]:
        """Return the metrics that are logged: `DIAGNOSTICS` and those of the layers, without those that do not apply."""
        return dict(self._metrics())

    def _metrics(self) -> Iterator[tuple[str, float]]:
        if self.policy is not None:
            for name in ("signal", "noise", "noise_scale", "snr"):
                yield f"gradient/{name}", getattr(self.policy, name)
            yield "gradient/cosine", self.cosine
            if self.share_by_time:
                yield "gradient/late_share", self.late_share
                yield "gradient/largest_share", self.largest_share
            yield from ((f"gradient/snr/{layer}", snr) for layer, snr in self.policy.layers.items())
            yield from ((f"gradient/norm/{layer}", norm) for layer, norm in self.policy.norms.items())
        if self.variances is not None:
            v = self.variances
            yield "gradient/variance_ratio", _over(v.agent, v.none)
            yield "gradient/optimal_variance_ratio", _over(v.optimal, v.none)
            yield "gradient/componentwise_variance_ratio", _over(v.componentwise, v.none)
            yield "gradient/optimal_baseline", v.baseline
        for name in ("value", "q"):
            if name in self.heads:
                head = self.heads[name]
                yield f"gradient/{name}_noise_scale", head.noise_scale
                yield f"gradient/{name}_snr", head.snr
                yield from ((f"gradient/{name}_snr/{layer}", snr) for layer, snr in head.layers.items())
                yield from ((f"gradient/{name}_norm/{layer}", norm) for layer, norm in head.norms.items())

    def write(self, folder: Path) -> Path:
        """Write diagnostics.json into a run's folder."""
        path = folder / FILE
        write_whole(path, (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())
        return path


def read(folder: Path) -> Diagnosis:
    """Read the diagnosis in a run's folder.

    Raises:
        FileNotFoundError: the folder has no diagnosis.
        ValueError: the file holds something else.
    """
    content = plain_files.read_json(folder / FILE)
    parts: Mapping[str, Any] = {**dict.fromkeys(HEADS, Head), "variances": Variances}
    try:  # older files have no q
        built = {name: cls(**content[name]) for name, cls in parts.items() if content.get(name) is not None}
        found = Diagnosis(**content | built)
        _require_numbers(found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / FILE} holds no diagnosis: {error}.") from error
    return found


def _require_numbers(found: Diagnosis) -> None:
    """Raise a ValueError if a diagnosis that was read holds anything but numbers where numbers belong."""
    heads = found.heads.values()
    numbers = [found.count, found.timesteps, *found.cosines, *found.share_by_time, *found.share_by_episode]
    numbers += [number for head in heads for number in (*head.layers.values(), *head.norms.values())]
    numbers += [value for head in heads for value in dataclasses.asdict(head).values() if not isinstance(value, dict)]
    numbers += [] if found.variances is None else dataclasses.asdict(found.variances).values()
    if found.unit not in ("step", "episode") or not all(type(number) in (int, float) for number in numbers):
        raise ValueError("it has numbers, by the names of rlgrad.diagnostics")


def layer_metrics(layers: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the names under which ratios and norms of layers are logged.

    Args:
        layers: of each credited output, the names of its layers.
    """
    names = []
    for head, outputs in HEADS.items():
        before = "" if head == "policy" else f"{head}_"
        mine = dict.fromkeys(layer for output in outputs for layer in layers.get(output, ()))
        names += [f"gradient/{before}{kind}/{layer}" for kind in ("snr", "norm") for layer in mine]
    return tuple(names)


def _over(a: float, b: float) -> float:
    return a / b if b else math.nan


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
