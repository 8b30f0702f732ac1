"""Shared by every side of benchmarks/primitive.py: the networks, and the loop that answers the driver. NumPy only.

A side's script defines `build(task) -> (run, collect)` and calls `serve(build)`. `run()` does the work once, to the end, and
`collect(result)` puts what it returned into Keras's layout, so that the driver can compare the sides.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

# (input shape, layers, activation): a layer is ("conv", filters, kernel, stride) or ("dense", units). Convolutions are valid,
# the last layer has no activation: its outputs are the logits of the actions.
NETS: dict[str, tuple[tuple[int, ...], tuple[tuple[Any, ...], ...], str]] = {
    "4-64-64-2": ((4,), (("dense", 64), ("dense", 64), ("dense", 2)), "tanh"),
    "17-256-256-6": ((17,), (("dense", 256), ("dense", 256), ("dense", 6)), "tanh"),
    "MinAtar CNN": ((10, 10, 4), (("conv", 16, 3, 1), ("dense", 128), ("dense", 6)), "relu"),
    "Nature CNN": (
        (84, 84, 4),
        (("conv", 32, 8, 4), ("conv", 64, 4, 2), ("conv", 64, 3, 1), ("dense", 512), ("dense", 6)),
        "relu",
    ),
}
# Works that no peer is asked for: rlgrad beside plain TensorFlow, in the dense networks.
BY_HAND = (
    "clipped gradient",
    "Hessian product",
    "Gauss-Newton product",
    "input Jacobian",
    "input jvp",
    "activation gradient",
    "Jacobian Gram",
)


@dataclass(frozen=True)
class Task:
    """The task of one side: `work` on `net`, by `system`, with the numbers in the file `data`."""

    net: str
    work: str
    system: str
    data: str

    def numbers(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Inputs (N, …) channels last, actions (N,), weights in Keras's order and layout."""
        with np.load(self.data) as file:
            count = sum(name.startswith("w") for name in file.files)
            return file["x"], file["actions"], [file[f"w{i}"] for i in range(count)]


def weight_shapes(net: str) -> list[tuple[int, ...]]:
    """Kernel and bias of each layer, in Keras's layout."""
    shape, layers, _ = NETS[net]
    shapes: list[tuple[int, ...]] = []
    for kind, units, *geometry in layers:
        if kind == "conv":
            size, stride = geometry
            shapes.append((size, size, shape[-1], units))
            shape = (*((side - size) // stride + 1 for side in shape[:2]), units)
        else:
            shapes.append((prod(shape), units))
            shape = (units,)
        shapes.append((units,))
    return shapes


def flatten_sizes(net: str) -> tuple[int, int, int] | None:
    """(rows, columns, channels) of what the first dense layer after convolutions flattens; `None` without convolutions."""
    shape, layers, _ = NETS[net]
    if len(shape) == 1:
        return None
    for kind, units, *geometry in layers:
        if kind == "conv":
            shape = (*((side - geometry[0]) // geometry[1] + 1 for side in shape[:2]), units)
    return shape


def write_numbers(net: str, batch: int, path: str) -> int:
    """Random inputs, actions and weights into a file; returns P, the number of weights."""
    rng = np.random.default_rng(0)
    shapes = weight_shapes(net)
    weights = {}
    for i, shape in enumerate(shapes):
        scale = 0.1 if len(shape) == 1 else np.sqrt(2.0 / prod(shape[:-1]))
        weights[f"w{i}"] = (scale * rng.standard_normal(shape)).astype(np.float32)
    actions = rng.integers(shapes[-1][0], size=batch).astype(np.int32)
    x = rng.standard_normal((2 * batch + 32, *NETS[net][0])).astype(np.float32)
    x = x[away_from_kinks(net, x, list(weights.values()))][:batch]
    if len(x) < batch:
        raise AssertionError(f"Too few inputs of {net} are away from the kinks of its ReLUs.")
    np.savez(path, x=x, actions=actions, **weights)
    return sum(map(prod, shapes))


def away_from_kinks(net: str, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Return the inputs that leave every ReLU's argument farther from 0 than rounding can move it.

    Where one is within rounding of 0, two correct libraries may differ in whether its unit is on, and so in the gradient.
    """
    _, layers, activation = NETS[net]
    clear = np.ones(len(x), bool)
    if activation != "relu":
        return clear
    y = x.astype(np.float64)
    for i, (kind, *rest) in enumerate(layers[:-1]):
        kernel, bias = (w.astype(np.float64) for w in weights[2 * i : 2 * i + 2])
        if kind == "conv":
            _, size, stride = rest
            windows = np.lib.stride_tricks.sliding_window_view(y, (size, size), axis=(1, 2))[:, ::stride, ::stride]
            z = np.einsum("nhwcij,ijck->nhwk", windows, kernel, optimize=True) + bias
        else:
            z = y.reshape(len(y), -1) @ kernel + bias
        clear &= np.abs(z).reshape(len(z), -1).min(axis=1) > 1e-5 * np.abs(z).mean()
        y = np.maximum(z, 0.0)
    return clear


def digest(result: Any) -> dict[str, np.ndarray]:
    """Return what is compared between sides: everything where it is small; else some samples, a random sum and the norms."""
    if not isinstance(result, list):
        return {"": np.asarray(result)}
    arrays = [np.asarray(part) for part in result]
    if sum(a.size for a in arrays) <= 2**22:
        return {f"variable {i}": a for i, a in enumerate(arrays)}
    batch = len(arrays[0])
    c = np.random.default_rng(1).standard_normal(batch).astype(np.float32)
    found = {}
    for i, a in enumerate(arrays):
        flat = a.reshape(batch, -1)
        found[f"variable {i}, four samples"] = flat[[0, 1, batch // 2, batch - 1]]
        found[f"variable {i}, random sum"] = c @ flat
        found[f"variable {i}, norms"] = np.sqrt(np.einsum("np,np->n", flat, flat))
    return found


def serve(build: Callable[[Task], tuple[Callable[[], Any], Callable[[Any], Any]]]) -> None:
    """Answers the driver's lines of JSON until its end is closed."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runs: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "forget":
            runs.clear()
            gc.collect()
            answer: dict[str, Any] = {}
        elif asked["do"] == "prepare":
            task = Task(**asked["task"])
            run, collect = build(task)
            begun = time.perf_counter()
            first = run()
            answer = {"first": time.perf_counter() - begun}
            if asked["check"]:
                np.savez(asked["check"], **digest(collect(first)))
            del first
            runs[task.system] = run
        else:
            run, seconds = runs[asked["system"]], []
            for _ in range(asked["times"]):
                begun = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - begun)
            answer = {"seconds": seconds}
        print(json.dumps(answer), file=answers, flush=True)
