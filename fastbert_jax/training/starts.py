"""Where the models of a run begin: their architectures, and whose weights they take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fastbert_jax.config import BertConfig, ModelConfig, RecipeName, TrainConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import model_directory
from fastbert_jax.model.weights import check_weights, read_bert_config, read_fastbert_config
from fastbert_jax.text.builtin import pretrained_directory

RANDOM = "random"
"""The value of `model.pretrained` that starts a model of its own sizes."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Where the parameters of one model begin."""

    config: BertConfig
    directory: Path | None = None
    """Of the pretrained backbone, whose first `config.num_layers` layers are taken; none: random parameters."""
    with_exits: bool = False
    """The exits come from there too; else they are new."""

    def check(self) -> None:
        """Look whether the weights are there, without reading them.

        Raises:
          UserError: what `check_weights` raises.
        """
        if self.directory is not None:
            check_weights(self.directory, self.config, exits=self.with_exits)


def pretrained_weights(name: str) -> Path | None:
    """The directory of the weights that `model.pretrained` names, a run's being that of its model; None: random ones.

    Raises:
      UserError: a run that is not finished, or no such builtin model.
    """
    if name == RANDOM:
        return None
    directory = pretrained_directory(name)
    return model_directory(directory) if (directory / "config.yaml").is_file() else directory


def starts_of(
    config: TrainConfig, pretrained: Path | None, *, labels: tuple[str, ...], vocab_size: int
) -> dict[str, Start]:
    """The beginning of each source of the run's recipe: `model`, and under `truncated` its `teacher`.

    Args:
      pretrained: as `pretrained_weights` gives it.
      vocab_size: of the tokenizer, for a random model.

    Raises:
      UserError: exits are asked for that are not there or answer with other labels, or more layers than there are.
    """
    model = config.model
    truncated = config.recipe is RecipeName.TRUNCATED
    with_exits = truncated or model.keep_exits
    if pretrained is None:
        if with_exits or model.first_layers:
            raise UserError(
                "model.pretrained: expected the directory of weights for recipe truncated, keep_exits and "
                f"first_layers, found {RANDOM}"
            )
        return {"model": Start(_random_architecture(model, num_classes=len(labels), vocab_size=vocab_size))}
    if with_exits:
        whole = _trained_architecture(pretrained, labels)
    else:
        whole = read_bert_config(pretrained, **_exit_settings(model, num_classes=len(labels)))
    if model.first_layers > whole.num_layers or (truncated and not model.first_layers):
        raise UserError(
            f"model.first_layers: expected 1 to {whole.num_layers}, the layers of {model.pretrained}, found "
            f"{model.first_layers}"
        )
    architecture = dataclasses.replace(whole, num_layers=model.first_layers or whole.num_layers)
    starts = {"model": Start(architecture, pretrained, with_exits)}
    return starts | {"teacher": Start(whole, pretrained, with_exits=True)} if truncated else starts


def _trained_architecture(directory: Path, labels: tuple[str, ...]) -> BertConfig:
    """That of a trained FastBERT with these labels."""
    architecture, extra = read_fastbert_config(directory)
    known = tuple(extra.get("labels", ()))
    if known != labels:
        raise UserError(
            f"{directory}: expected a model with the labels of data.train, {list(labels)}, found {list(known)}; its "
            "exits cannot answer with others"
        )
    return architecture


def _random_architecture(model: ModelConfig, *, num_classes: int, vocab_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        feed_forward_size=model.feed_forward_size,
        **_exit_settings(model, num_classes=num_classes),
    )


def _exit_settings(model: ModelConfig, *, num_classes: int) -> dict[str, Any]:
    return {
        "num_classes": num_classes,
        "exit_kind": model.exit_kind,
        "exit_size": model.exit_size,
        "exit_heads": model.exit_heads,
    }
