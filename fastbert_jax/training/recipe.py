"""A recipe: networks, where their parameters begin, and the phases that train them; what its module is given.

The modules are in `fastbert_jax/recipes/`. Parameters are random or read, in place, so that no device holds more than
its part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from fastbert_jax.config import BertConfig, ModelConfig, TrainConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import model_directory, saved_settings
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import read_bert_config, read_fastbert_config
from fastbert_jax.model.flops import forward_flops, training_flops
from fastbert_jax.model.network import Params, Part, Trace
from fastbert_jax.model.networks import make_network
from fastbert_jax.model.sharding import param_shardings
from fastbert_jax.model.weights import find_weights, load_params
from fastbert_jax.text.tokenizer import Tokenizer
from fastbert_jax.training.terms import Case, Phase, Source, Term, Tree

RANDOM = "random"
"""The value of `--model.pretrained` that starts a model of its own sizes."""


@dataclasses.dataclass(frozen=True)
class Start:
    """A network, and where its parameters begin."""

    network: Bert
    directory: Path | None = None
    """Of the pretrained backbone, whose first layers are taken; none: random parameters."""
    stored_exits: tuple[int, ...] = ()
    """Layers whose exits come from there too. The last exit does if it is among them, the lower ones if all are."""

    @property
    def stored(self) -> BertConfig | None:
        """The architecture of what is read with exits; None: the backbone alone is read."""
        config = self.network.config
        if config.num_layers not in self.stored_exits:
            return None
        has_lower = set(config.lower_exit_layers) <= set(self.stored_exits)
        return config if has_lower else dataclasses.replace(config, exit_layers=(config.num_layers,))

    def check(self) -> None:
        """Look whether the weights are there, without reading them.

        Raises:
          UserError: what `find_weights` raises.
        """
        if self.directory is not None:
            find_weights(self.directory, self.stored or self.network.config, exits=self.stored is not None)

    def params(self, *, seed: int, mesh: Mesh) -> Params:
        """The parameters; every device makes or reads its own part alone.

        New exits on a pretrained backbone are those that the seed gives without one.

        Raises:
          UserError: files that are damaged, or have other tensors.
        """
        shardings, read = param_shardings(mesh, self.network), {}
        if self.directory is not None:
            config, exits = self.stored or self.network.config, self.stored is not None
            read = load_params(self.directory, config, exits=exits, shardings=shardings)

        def init() -> Params:
            params = self.network.init(jax.random.key(seed))
            return {part: params[part] for part in params if part not in read}

        made: Params = jax.jit(init, out_shardings={part: shardings[part] for part in shardings if part not in read})()
        return made | read

    def abstract_params(self, mesh: Mesh) -> Params:
        """The shapes and shardings of `params`.

        Raises:
          UserError: a size of the model that the mesh does not divide.
        """
        init = jax.jit(self.network.init, out_shardings=param_shardings(mesh, self.network))
        shapes: Params = init.eval_shape(jax.random.key(0))
        return shapes


@dataclasses.dataclass(frozen=True)
class World:
    """What a run has found before its recipe is made."""

    labels: tuple[str, ...]
    tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Networks, and the phases that train them, one after the other, on one tree of parameters `{source: tree}`."""

    starts: Mapping[str, Start]
    """By source. `model` is the network that is measured on dev and saved."""
    phases: tuple[Phase, ...]
    story: str
    """What trained what, in sentences, for the model card."""

    @property
    def network(self) -> Bert:
        """The network that is trained."""
        return self.starts["model"].network

    def sources_from(self, index: int) -> list[str]:
        """The sources of a phase and of those after it; the parameters of all others are dropped."""
        return sorted({name for phase in self.phases[index:] for name in phase.sources})


class RecipeModule(Protocol):
    """A module of `fastbert_jax/recipes/`, or one of the user's own."""

    Settings: type[TrainConfig]
    """The settings of a run with this recipe: those of every run, and its own."""

    @staticmethod
    def make(settings: Any, world: World) -> Recipe:
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


def distillation_case(student: Bert, teacher: Bert, *terms: Term) -> Case:
    """A teacher's trace beside that of a student, whose backbone and last exit learn by `terms`."""
    return Case(
        sources={"model": forward(student, Part.BACKBONE, Part.LAST_EXIT), "teacher": forward(teacher)},
        terms=terms,
        trains={"model/backbone": 1.0, "model/last_exit": 1.0},
        row_flops=lambda length, texts: (
            training_flops(student, length, texts=texts) + forward_flops(teacher, length, texts=texts)
        ),
    )


def pretrained_weights(name: str) -> Path | None:
    """The directory of the weights that `--model.pretrained` names; for a run, that of its model. None: random ones.

    Raises:
      UserError: no such directory, a run that is not finished, or no such builtin model.
    """
    if name == RANDOM:
        return None
    try:
        return model_directory(name)
    except UserError as error:
        raise UserError(f"--model.pretrained: {error}") from None


def _network(model: ModelConfig, architecture: BertConfig) -> Bert:
    """The network of an architecture, with the arithmetic that the settings ask for."""
    return make_network(
        architecture,
        dropout=model.dropout,
        precision=model.precision,
        remat=model.remat,
        unroll=model.unroll,
    )


def model_start(model: ModelConfig, world: World, *, keep_exits: bool = False, lower_exits: bool = True) -> Start:
    """The start of the model that the settings describe.

    Args:
      keep_exits: as `--model.keep-exits`, which counts too.
      lower_exits: whether the model has exits below its last layer.

    Raises:
      UserError: exits are asked for that are not there or answer with other labels, or more layers than there are.
    """
    keep_exits = keep_exits or model.keep_exits
    exits: dict[str, Any] = {
        "num_classes": len(world.labels),
        "exit_kind": model.exit_kind,
        "exit_size": model.exit_size,
        "exit_heads": model.exit_heads,
    }
    directory = pretrained_weights(model.pretrained)
    if directory is None:
        if keep_exits or model.first_layers:
            raise UserError(
                "--model.pretrained: expected the directory of weights for --model.keep-exits and "
                f"--model.first-layers, found {RANDOM}"
            )
        sizes = ("hidden_size", "num_layers", "num_heads", "feed_forward_size")
        exits |= {size: getattr(model, size) for size in sizes}
        whole = BertConfig(vocab_size=world.tokenizer.vocab_size, **exits)
        stored: tuple[int, ...] = ()
    elif keep_exits:
        whole = trained_architecture(directory, world)
        stored = whole.exit_layers
        whole = dataclasses.replace(whole, exit_layers=())  # lower exits that are not there are new
    else:
        whole, stored = read_bert_config(directory, **exits), ()
    if model.first_layers > whole.num_layers:
        raise UserError(
            f"--model.first-layers: expected 1 to {whole.num_layers}, the layers of {model.pretrained}, found "
            f"{model.first_layers}"
        )
    architecture = whole.first_layers(model.first_layers or whole.num_layers)
    if not lower_exits:
        architecture = dataclasses.replace(architecture, exit_layers=architecture.exit_layers[-1:])
    return Start(_network(model, architecture), directory, stored)


def trained_start(model: ModelConfig, directory: Path, world: World) -> Start:
    """The start of a network that is a trained model as it is: a teacher.

    Raises:
      UserError: not a trained model, or one with other labels.
    """
    architecture = trained_architecture(directory, world)
    return Start(_network(model, architecture), directory, architecture.exit_layers)


def trained_architecture(directory: Path, world: World) -> BertConfig:
    """The architecture of a trained model with the labels of the run.

    Raises:
      UserError: not a trained model, or one with other labels.
    """
    architecture, extra = read_fastbert_config(directory)
    known = saved_settings(directory, extra, architecture)["labels"]
    if known != world.labels:
        raise UserError(
            f"{directory}: expected a model with the labels of --data.train, {list(world.labels)}, found "
            f"{list(known)}; its exits cannot answer with others"
        )
    return architecture
