"""rlgrad: reinforcement-learning agents on Keras 3, built on the gradient of what a model says.

`rlgrad.gradients` needs TensorFlow and NumPy alone; everything else is imported when it is first used.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.core.importing import uncollected

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rlgrad import config, diagnostics, estimators, gradients, random, search, spaces
    from rlgrad.agent import Agent, ReplayAgent
    from rlgrad.core.faults import EnvironmentFault
    from rlgrad.data import Batch, Credit, Estimates, Outputs, ReplayBatch
    from rlgrad.exporting.formats import export
    from rlgrad.learning.learner import Learner
    from rlgrad.learning.nonfinite import NonFiniteError
    from rlgrad.policies import Policy, make_policy
    from rlgrad.replay import Exploration, Linear, Replay, Target
    from rlgrad.rollouts import GymCollector, Rollout
    from rlgrad.rollouts.compiled import CompiledCollector
    from rlgrad.runs.training import Callback, Run, load, train
    from rlgrad.streams import StreamAgent
    from rlgrad.updates import Ascent, NaturalGradient, PerHead, Traces, TrustRegion

_HOME = {
    "config": "rlgrad.config",
    "diagnostics": "rlgrad.diagnostics",
    "estimators": "rlgrad.estimators",
    "gradients": "rlgrad.gradients",
    "random": "rlgrad.random",
    "search": "rlgrad.search",
    "spaces": "rlgrad.spaces",
    "Agent": "rlgrad.agent",
    "ReplayAgent": "rlgrad.agent",
    "Batch": "rlgrad.data",
    "Credit": "rlgrad.data",
    "Estimates": "rlgrad.data",
    "Outputs": "rlgrad.data",
    "ReplayBatch": "rlgrad.data",
    "EnvironmentFault": "rlgrad.core.faults",
    "Learner": "rlgrad.learning.learner",
    "NonFiniteError": "rlgrad.learning.nonfinite",
    "export": "rlgrad.exporting.formats",
    "Policy": "rlgrad.policies",
    "make_policy": "rlgrad.policies",
    "Exploration": "rlgrad.replay",
    "Linear": "rlgrad.replay",
    "Replay": "rlgrad.replay",
    "Target": "rlgrad.replay",
    "CompiledCollector": "rlgrad.rollouts.compiled",
    "GymCollector": "rlgrad.rollouts",
    "Rollout": "rlgrad.data",
    "Callback": "rlgrad.callbacks",
    "Run": "rlgrad.runs.run",
    "load": "rlgrad.runs.training",
    "train": "rlgrad.runs.training",
    "Ascent": "rlgrad.updates",
    "NaturalGradient": "rlgrad.updates",
    "StreamAgent": "rlgrad.streams",
    "PerHead": "rlgrad.updates",
    "Traces": "rlgrad.updates",
    "TrustRegion": "rlgrad.updates",
}
__all__ = [
    "Agent",
    "Ascent",
    "Batch",
    "Callback",
    "CompiledCollector",
    "Credit",
    "EnvironmentFault",
    "Estimates",
    "Exploration",
    "GymCollector",
    "Learner",
    "Linear",
    "NaturalGradient",
    "NonFiniteError",
    "Outputs",
    "PerHead",
    "Policy",
    "Replay",
    "ReplayAgent",
    "ReplayBatch",
    "Rollout",
    "Run",
    "StreamAgent",
    "Target",
    "Traces",
    "TrustRegion",
    "config",
    "diagnostics",
    "estimators",
    "export",
    "gradients",
    "load",
    "make_policy",
    "random",
    "search",
    "spaces",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rlgrad' has no attribute {name!r}")
    with uncollected():
        module = importlib.import_module(_HOME[name])
    value = module if _HOME[name] == f"rlgrad.{name}" else getattr(module, name)
    globals()[name] = value  # so that this function is not called for it again
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


if importlib.util.find_spec("tensorflow") is None:
    _advice = (
        "rlgrad needs TensorFlow and leaves the choice of its build to you: pip install 'rlgrad[cpu]', or "
        "pip install 'rlgrad[gpu]' on Linux with an NVIDIA GPU."
    )
    # The command line is imported through this package too, and owes its user a sentence, not a traceback.
    raise SystemExit(_advice) if sys.argv and Path(sys.argv[0]).stem == "rlgrad" else ImportError(_advice)

if importlib.util.find_spec("rlgrad.agents") is None:  # Python was started in a checkout whose copy is installed
    __path__.append(str(Path(__file__).parents[1]))  # there agents, envs and configs lie beside this folder
