"""torch.func, Opacus and BackPACK at the work of benchmarks/primitive.py, which starts this and tells it what to do."""

import os

import torch
from backpack import backpack, extend
from backpack.extensions import BatchGrad, BatchL2Grad
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from primitive_common import NETS, Task, flatten_sizes, serve
from torch import nn
from torch.func import functional_call, grad, vmap

torch.set_num_threads(int(os.environ["PRIMITIVE_THREADS"]))
torch.set_num_interop_threads(1)


def network(task):
    """The network with the task's weights, its inputs (channels first, as torch likes them) and actions."""
    shape, layers, activation = NETS[task.net]
    x, actions, weights = task.numbers()
    parts, size = [], shape[-1]
    for i, (kind, units, *geometry) in enumerate(layers):
        if kind == "conv":
            parts.append(nn.Conv2d(size, units, *geometry))
        else:
            if i and layers[i - 1][0] == "conv":
                parts.append(nn.Flatten())
            parts.append(nn.Linear(weights[2 * i].shape[0], units))
        if i < len(layers) - 1:
            parts.append(nn.Tanh() if activation == "tanh" else nn.ReLU())
        size = units
    model = nn.Sequential(*parts)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(to_torch(torch.from_numpy(value), task.net))
    x = torch.from_numpy(x)
    if x.ndim == 4:
        x = x.permute(0, 3, 1, 2).contiguous()
    return model, x, torch.from_numpy(actions).long()


def to_torch(value, net):
    """From Keras's layout to torch's."""
    sizes = flatten_sizes(net)
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    if value.ndim == 2 and sizes and value.shape[0] == sizes[0] * sizes[1] * sizes[2]:
        return value.reshape(*sizes, -1).permute(3, 2, 0, 1).reshape(value.shape[1], -1)
    return value.T if value.ndim == 2 else value


def to_keras(value, net):
    """From torch's layout to Keras's, of one gradient per sample."""
    sizes = flatten_sizes(net)
    value = value.detach()
    if value.ndim == 5:
        return value.permute(0, 3, 4, 2, 1).numpy()
    if value.ndim == 3 and sizes and value.shape[2] == sizes[0] * sizes[1] * sizes[2]:
        rows, columns, channels = sizes
        apart = value.reshape(len(value), -1, channels, rows, columns)
        return apart.permute(0, 3, 4, 2, 1).reshape(len(value), -1, value.shape[1]).numpy()
    return value.permute(0, 2, 1).numpy() if value.ndim == 3 else value.numpy()


def log_prob(logits, actions):
    return torch.log_softmax(logits, -1).gather(-1, actions[:, None])[:, 0]


def func(task):
    """torch.func: vmap of grad."""
    model, x, actions = network(task)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def of_one(values, one, action):
        return log_prob(functional_call(model, values, (one[None],)), action[None])[0]

    per_sample = vmap(grad(of_one), in_dims=(None, 0, 0))
    return lambda: list(per_sample(parameters, x, actions).values())


def opacus(task, ghost=False):
    """Opacus: hooks write `grad_sample` during backward; its ghost norms do not write the gradients out."""
    model, x, actions = network(task)
    if ghost:
        model = GradSampleModuleFastGradientClipping(
            model, loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True
        )
    else:
        model = GradSampleModule(model, loss_reduction="sum")
    parameters = list(model.parameters())

    def run():
        for parameter in parameters:
            parameter.grad = parameter.grad_sample = None
        log_prob(model(x), actions).sum().backward()
        return model.get_norm_sample() if ghost else [parameter.grad_sample for parameter in parameters]

    return run


def back_pack(task, extension, field):
    """BackPACK: an extension of the backward pass."""
    model, x, actions = network(task)
    extend(model)
    parameters = list(model.parameters())

    def run():
        for parameter in parameters:
            parameter.grad = None
        with backpack(extension()):
            log_prob(model(x), actions).sum().backward()
        return [getattr(parameter, field) for parameter in parameters]

    return run


MATERIALIZING = {
    "torch.func": func,
    "Opacus": opacus,
    "BackPACK": lambda task: back_pack(task, BatchGrad, "grad_batch"),
}


def norms(rows):
    return sum(row.flatten(1).square().sum(1) for row in rows).sqrt()


def gram(rows):
    return sum(row.flatten(1) @ row.flatten(1).T for row in rows)


def build(task: Task):
    if task.system == "Opacus ghost":
        return opacus(task, ghost=True), lambda result: result.detach().numpy()
    if task.system == "BackPACK L2":
        squares = back_pack(task, BatchL2Grad, "batch_l2")
        return lambda: sum(squares()).sqrt(), lambda result: result.detach().numpy()
    per_sample = MATERIALIZING[task.system](task)
    if task.work == "per-sample gradients":
        return per_sample, lambda rows: [to_keras(row, task.net) for row in rows]
    reduce = {"norms": norms, "Gram": gram}[task.work]
    return lambda: reduce([row.detach() for row in per_sample()]), lambda result: result.detach().numpy()


serve(build)
