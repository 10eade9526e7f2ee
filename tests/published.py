"""Weights that anybody can make again: random, from the name of each tensor, and what published code answers for them.

tests/published/<network>.npz has the names and shapes of the authors' state dict, and the logits of the authors' code
for `published_state` of them and `log_mel` of a shape: the files hold numbers only, none of the code that made them.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True)
class Reference:
    """What the authors' code has and gives."""

    shapes: dict[str, tuple[int, ...]]  # of its state dict
    inputs: dict[str, tuple[int, ...]]  # shape of the input, by name
    logits: dict[str, np.ndarray]  # by the same names


def read_reference(name: str) -> Reference:
    with np.load(FOLDER / f"{name}.npz") as held:
        lines = [str(line).split(" ") for line in held["names"]]
        shapes = {key: tuple(int(n) for n in sizes) for key, *sizes in lines}
        inputs = {k.removeprefix("input_"): tuple(held[k].tolist()) for k in held if k.startswith("input_")}
        return Reference(shapes, inputs, {k: held[f"logits_{k}"] for k in inputs})


def write_reference(name: str, reference: Reference) -> None:
    names = np.array([" ".join(map(str, (key, *shape))) for key, shape in reference.shapes.items()])
    arrays: dict[str, Any] = {f"input_{k}": np.array(v) for k, v in reference.inputs.items()}
    arrays |= {f"logits_{k}": v.astype(np.float32) for k, v in reference.logits.items()}
    np.savez_compressed(FOLDER / f"{name}.npz", names=names, **arrays)


def published_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Matrices and kernels keep the variance of what they multiply; vectors are about 1 for scales and 0 for others."""
    return {key: torch.from_numpy(_values(key, shape)) for key, shape in shapes.items()}


def log_mel(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, np.float32))


def _values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.array(7)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    values = rng.standard_normal(shape, np.float32)
    if len(shape) > 1:
        return values * np.float32(np.prod(shape[1:]) ** -0.5)
    return 0.2 * values + np.float32(key.endswith(("weight", "weight_g")))
