"""The recipes by name; a new one is a module here and a name below.

A module has the settings of its runs (`Settings`, a subclass of `TrainConfig`) and `make`, which gives its phases. It
imports what trains in its functions, so that reading settings needs no jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from fastbert_jax.config import TrainConfig
from fastbert_jax.errors import UserError, nearest

if TYPE_CHECKING:
    from fastbert_jax.report.comparison import Comparison
    from fastbert_jax.training.recipe import RecipeModule

RECIPES = ("fastbert", "official", "joint", "truncated", "pkd")


def recipe_module(name: str) -> RecipeModule:
    """The module of a recipe.

    Raises:
      UserError: no such recipe, with the nearest name.
    """
    if name not in RECIPES:
        raise UserError(f"--recipe: expected one of {list(RECIPES)}, found {name!r}; {nearest(name, RECIPES)}")
    return cast("RecipeModule", importlib.import_module(f"{__name__}.{name}"))


def train(settings: TrainConfig, *, recipe: Any = None) -> Comparison | None:
    """Do the run that the settings describe, or the rest of it, and measure it on the test texts.

    Args:
      settings: of the class `Settings` of the recipe.
      recipe: a module as those in `fastbert_jax/recipes/`; None: the one that `settings.recipe` names.

    Returns:
      The measurements; None in all processes of a run but the first.

    Raises:
      UserError: settings, texts or files that cannot be used.
      PreemptedError, KeyboardInterrupt: stopped by SIGTERM or Ctrl-C, and saved.
    """
    from fastbert_jax.training import run

    module = recipe or recipe_module(settings.recipe)
    if not isinstance(settings, module.Settings):
        raise UserError(
            f"settings: expected an instance of {module.Settings.__module__}.Settings for recipe "
            f"{settings.recipe!r}, found one of {type(settings).__module__}.{type(settings).__name__}"
        )
    return run.train(settings, module)
