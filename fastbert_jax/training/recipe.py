"""What a recipe module is given and what it makes. The modules are in `fastbert_jax/recipes/`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax

from fastbert_jax.config import TrainConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.network import Part, Trace
from fastbert_jax.text.tokenizer import Tokenizer
from fastbert_jax.training.initial import Start
from fastbert_jax.training.terms import Recipe, Source, Tree


@dataclasses.dataclass(frozen=True)
class World:
    """What a run has found before its recipe is made."""

    labels: tuple[str, ...]
    tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True)
class Made:
    """A recipe on its networks."""

    starts: Mapping[str, Start]
    """By source. `model` is the network that is measured on dev and saved."""
    recipe: Recipe
    story: str
    """What trained what, in sentences, for the model card."""

    @property
    def network(self) -> Bert:
        """The network that is trained."""
        return self.starts["model"].network


class RecipeModule(Protocol):
    """A module of `fastbert_jax/recipes/`, or one of the user's own."""

    Settings: type[TrainConfig]
    """The settings of a run with this recipe: those of every run, and its own."""

    @staticmethod
    def make(settings: Any, world: World) -> Made:
        """The recipe; `settings` are of the class above.

        Raises:
          UserError: settings, weights or labels that do not belong together.
        """


def forward(network: Bert, *dropout_in: Part, depth: int = 0) -> Source:
    """A network as a source: its trace of the view `batch`, with dropout in these parts.

    Args:
      depth: as in `Bert.trace`.
    """

    def source(params: Tree, traces: Mapping[str, Any], key: jax.Array) -> Trace:
        return network.trace(params, traces["batch"], key, frozenset(dropout_in), depth=depth)

    return source
