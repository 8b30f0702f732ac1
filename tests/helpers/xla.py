"""Turns rlgrad's own choice of XLA off and on."""

import functools

import tensorflow as tf

from rlgrad.policies import actors
from rlgrad.rollouts.compiled import CompiledCollector

_RULE, _INIT = actors.gains_from_xla, CompiledCollector.__init__


def choose(by_rule):
    """Let rlgrad's rule decide, which is for XLA almost everywhere; or run every program as a plain graph.

    A small program is ready in less than half of the time as a plain graph, and gives the same numbers but for rounding. A
    learner that is made with `xla=True` is compiled all the same. Plain graphs are not rewritten before they run, which takes
    longer than the few times that a test runs one.
    """
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not by_rule})
    actors.gains_from_xla = _RULE if by_rule else lambda model: False
    CompiledCollector.__init__ = _INIT if by_rule else _init_as_a_plain_graph


@functools.wraps(_INIT)
def _init_as_a_plain_graph(collector, *arguments, **options):
    _INIT(collector, *arguments, **options)
    collector.xla = False
