"""Gradients of a Keras model's outputs with respect to each of its weights. Needs TensorFlow and NumPy alone.

Sums, never means. Results are dicts keyed by `variable.path` in the order of `model.trainable_variables`, so
`list(gradient(model, x).values())` is what `K.gradients(model.output, model.trainable_weights)` was.
"""

from rlgrad.core.keras_internals import require_tensorflow_backend
from rlgrad.gradients.activations import activation_gradient
from rlgrad.gradients.clipping import clipped_gradient
from rlgrad.gradients.closed_forms.factors import Direct
from rlgrad.gradients.closed_forms.lookups import Lookup
from rlgrad.gradients.closed_forms.outer_products import OuterProduct
from rlgrad.gradients.closed_forms.rule_table import register_rule
from rlgrad.gradients.curvature import hessian_vector_product
from rlgrad.gradients.dicts import by_layer, dot, flatten, norm, unflatten
from rlgrad.gradients.functions import forget, gradient, input_gradient, value_and_gradient
from rlgrad.gradients.gauss_newton import gauss_newton_vector_product
from rlgrad.gradients.input_derivatives import input_jacobian, input_jvp
from rlgrad.gradients.jacobian_grams import jacobian_gram
from rlgrad.gradients.jacobians import jacobian
from rlgrad.gradients.linearization import Linearization, linearize
from rlgrad.gradients.norms import gram, per_sample_norm
from rlgrad.gradients.output_values import evaluate
from rlgrad.gradients.per_sample import per_sample_gradient
from rlgrad.gradients.planning import Plan, plan
from rlgrad.gradients.programs.backward import DisconnectedGradientError
from rlgrad.gradients.programs.coupling import BatchCoupledError
from rlgrad.gradients.questions.outputs import Entropy, LogProb, Output, PerSequence
from rlgrad.gradients.questions.vector_outputs import Action, ActionLogProb, Chosen, Each, Weighted

require_tensorflow_backend()

__all__ = [
    "Action",
    "ActionLogProb",
    "BatchCoupledError",
    "Chosen",
    "Direct",
    "DisconnectedGradientError",
    "Each",
    "Entropy",
    "Linearization",
    "LogProb",
    "Lookup",
    "OuterProduct",
    "Output",
    "PerSequence",
    "Plan",
    "Weighted",
    "activation_gradient",
    "by_layer",
    "clipped_gradient",
    "dot",
    "evaluate",
    "flatten",
    "forget",
    "gauss_newton_vector_product",
    "gradient",
    "gram",
    "hessian_vector_product",
    "input_gradient",
    "input_jacobian",
    "input_jvp",
    "jacobian",
    "jacobian_gram",
    "linearize",
    "norm",
    "per_sample_gradient",
    "per_sample_norm",
    "plan",
    "register_rule",
    "unflatten",
    "value_and_gradient",
]
