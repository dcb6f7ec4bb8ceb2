"""`config.json` of a model directory, Hugging Face's or ours, to and from an architecture; it is read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastbert_jax.config import Activation, BertConfig, ExitKind, LayerNormKind, Precision
from fastbert_jax.errors import UserError
from fastbert_jax.model.tensor_files import read_json

ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_new": Activation.GELU_TANH,
    "relu": Activation.RELU,
}
"""`hidden_act` of a Hugging Face config -> activation; the first name of several is written."""
ENCODER_KEYS = {
    "model_type": BertConfig.MODEL_TYPE,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What a Hugging Face config must say for the directory to be a BERT encoder."""


@dataclasses.dataclass(frozen=True)
class ConfigJson:
    """The values of one `config.json`."""

    path: Path
    values: dict[str, Any]

    @classmethod
    def read(cls, source: ModelSource) -> ConfigJson:
        """Read the file in a model directory, unless it was read already.

        Raises:
          UserError: no readable config.json.
        """
        if isinstance(source, ConfigJson):
            return source
        path = Path(source) / "config.json"
        return cls(path, read_json(path))

    @property
    def directory(self) -> Path:
        """The model directory."""
        return self.path.parent

    @property
    def is_fastbert(self) -> bool:
        """Whether `save_model` wrote the directory; False for a plain Hugging Face one."""
        return "fastbert" in self.values

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of a key, of the type `kind`; an int where a float is meant is one.

        Raises:
          UserError: a value of another type, or none where there is no default.
        """
        value = self.values.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and kind is float:
            return float(value)
        if type(value) is not kind:
            found = f"found {value!r}" if key in self.values else "found no such key"
            raise UserError(f"{self.path}: {key}: expected {kind.__name__}, {found}")
        return value

    def one_of(self, key: str, choices: Sequence[str], default: str) -> str:
        """The value of a key that has few choices.

        Raises:
          UserError: another value.
        """
        value: str = self.get(key, str, default)
        if value not in choices:
            raise UserError(f"{self.path}: {key}: expected one of {list(choices)}, found {value!r}")
        return value


ModelSource = str | Path | ConfigJson
"""A model directory, or its `config.json` where that was read already."""


def read_bert_config(source: ModelSource, **exits: Any) -> BertConfig:
    """The architecture that a directory's Hugging Face `config.json` describes, with our exits on it.

    Args:
      exits: `num_classes`, `exit_size`, `exit_heads`, `exit_kind` and `exit_layers` of `BertConfig`.

    Raises:
      UserError: no readable config.json, not a BERT encoder, or a key missing or out of range.
    """
    file = ConfigJson.read(source)
    path, get = file.path, file.get
    for key, expected in ENCODER_KEYS.items():
        found = file.values.get(key, None if key == "model_type" else expected)
        if found != expected:
            raise UserError(f"{path}: {key}: expected {expected!r}, found {found!r}; only BERT encoders can be loaded")
    activation = file.one_of("hidden_act", list(ACTIVATIONS), "gelu")
    layer_norm = file.one_of("layer_norm", [kind.value for kind in LayerNormKind], LayerNormKind.STANDARD.value)
    try:
        return BertConfig(
            vocab_size=get("vocab_size", int),
            hidden_size=get("hidden_size", int),
            num_layers=get("num_hidden_layers", int),
            num_heads=get("num_attention_heads", int),
            feed_forward_size=get("intermediate_size", int),
            max_positions=get("max_position_embeddings", int, 512),
            token_types=get("type_vocab_size", int, 2),
            activation=ACTIVATIONS[activation],
            layer_norm=LayerNormKind(layer_norm),
            layer_norm_eps=get("layer_norm_eps", float, 1e-12),
            init_std=get("initializer_range", float, 0.02),
            **exits,
        )
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def read_fastbert_config(source: ModelSource) -> tuple[BertConfig, dict[str, Any]]:
    """The architecture of a model directory of ours, and what was saved as `extra`.

    Raises:
      UserError: not a directory of `save_model`.
    """
    file = ConfigJson.read(source)
    section = file.values.get("fastbert")
    if not isinstance(section, dict) or not isinstance(section.get("extra"), dict):
        raise UserError(
            f"{file.path}: expected the 'fastbert' section of a trained model, found none; train one with train.py"
        )
    sizes: dict[str, Any] = {key: section.get(key) for key in ("num_classes", "exit_size", "exit_heads")}
    if not all(type(size) is int and size > 0 for size in sizes.values()):
        raise UserError(f"{file.path}: fastbert: expected whole numbers of 1 or more, found {sizes}")
    layers = section.get("exit_layers", [])  # models that were saved before there was a choice have all exits
    if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
        raise UserError(f"{file.path}: fastbert.exit_layers: expected a list of layers, found {layers!r}")
    kind = ConfigJson(file.path, section).one_of(
        "exit_kind", [kind.value for kind in ExitKind], ExitKind.ATTENTION.value
    )
    config = read_bert_config(file, **sizes, exit_kind=ExitKind(kind), exit_layers=tuple(layers))
    return config, section["extra"]


def inference_settings(
    *, labels: Sequence[str], max_length: int, length_buckets: Sequence[int], precision: Precision
) -> dict[str, Any]:
    """What inference needs beside weights and tokenizer, as `save_model` takes it for `extra`."""
    return {
        "labels": list(labels),
        "max_length": max_length,
        "length_buckets": list(length_buckets),
        "precision": precision.value,
    }


def bert_values(config: BertConfig) -> dict[str, Any]:
    """What `config.json` says of a backbone, by Hugging Face's keys."""
    return {
        "architectures": ["BertModel"],
        **ENCODER_KEYS,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.token_types,
        "hidden_act": next(name for name, activation in ACTIVATIONS.items() if activation is config.activation),
        "layer_norm": config.layer_norm.value,
        "layer_norm_eps": config.layer_norm_eps,
        "initializer_range": config.init_std,
    }


def exits_values(config: BertConfig, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The section `fastbert` of `config.json`: the exits, and `extra`."""
    return {
        "num_classes": config.num_classes,
        "exit_kind": config.exit_kind.value,
        "exit_size": config.exit_size,
        "exit_heads": config.exit_heads,
        "exit_layers": list(config.exit_layers),
        "extra": dict(extra),
    }
