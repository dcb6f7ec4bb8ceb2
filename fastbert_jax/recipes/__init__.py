"""The recipes by name; a new one is a module here and a line below.

Modules are imported when they are used, and import what trains in `make`, so that reading settings needs no jax.
"""

from __future__ import annotations

import importlib
from typing import cast

from fastbert_jax.config import TrainConfig
from fastbert_jax.errors import UserError, nearest

RECIPES = ("fastbert", "official", "joint", "truncated", "pkd")


def settings_of(name: str) -> type[TrainConfig]:
    """The class of the settings of a run with this recipe.

    Raises:
      UserError: no such recipe, with the nearest name.
    """
    if name not in RECIPES:
        raise UserError(f"--recipe: expected one of {list(RECIPES)}, found {name!r}; {nearest(name, RECIPES)}")
    return cast(type[TrainConfig], importlib.import_module(f"{__name__}.{name}").Settings)
