"""Independent random generators from a root seed and names.

``generator(seed, "replicate", 0, "train", step)`` is a pure function of its arguments: no stream depends on how many
numbers another one drew, on the order of calls, or on the process that makes it.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

Name = str | int


def derive_seed(root: int, *names: Name) -> int:
    """A 63-bit seed: SHA-256 of the root seed and the names, each with its type and a separator."""
    text = "/".join([f"int:{int(root)}", *(_part(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _part(name: Name) -> str:
    # Without the escape, the one name "a/str:b" would share the stream of the two names "a", "b".
    name = int(name) if isinstance(name, np.integer) else name
    return f"{type(name).__name__}:{name}".replace("%", "%25").replace("/", "%2F")


def generator(root: int, *names: Name, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on ``device``, seeded by ``derive_seed``."""
    return torch.Generator(device=device).manual_seed(derive_seed(root, *names))


def numpy_generator(root: int, *names: Name) -> np.random.Generator:
    """A numpy generator, seeded by ``derive_seed``."""
    return np.random.default_rng(derive_seed(root, *names))
