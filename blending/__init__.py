"""Experiments' probabilities -> one blend, and what it is worth. `load_blend` uses a finished one from Python."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blending.loaded_blend import LoadedBlend


def load_blend(folder: str | Path) -> "LoadedBlend":
    """See `blending.loaded_blend.load_blend`; that is imported when it is called, for commands that answer at once."""
    from blending.loaded_blend import load_blend as load

    return load(folder)
