"""`config.json` of a model directory, Hugging Face's or ours, to and from an architecture; it is read once."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastbert_jax.config import Activation, BertConfig, Precision, ReadingConfig
from fastbert_jax.config_yaml import convert, shown, to_dict
from fastbert_jax.errors import UserError
from fastbert_jax.model.tensor_files import read_json

ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_new": Activation.GELU_TANH,
    "relu": Activation.RELU,
}
"""`hidden_act` of a Hugging Face config -> activation; the first name of several is written."""
CONFIGS: dict[str, type[BertConfig]] = {"bert": BertConfig}
"""`model_type` of a config -> the class of its settings. A subclass with fields of its own has them by their names."""
ENCODER_KEYS = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What a Hugging Face config must say, where it has the key, for the directory to be an encoder."""
BACKBONE_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "feed_forward_size",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "token_types",
    "hidden_act": "activation",
    "layer_norm": "layer_norm",
    "layer_norm_eps": "layer_norm_eps",
    "initializer_range": "init_std",
}
"""Hugging Face's key -> field of `BertConfig`. `layer_norm` is ours."""
EXIT_KEYS = ("num_classes", "exit_kind", "exit_size", "exit_heads", "exit_layers")
"""Of the section `fastbert`: fields of `BertConfig`. Older models have neither `exit_kind` nor `exit_layers`."""


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
    def is_fastbert(self) -> bool:
        """Whether `save_model` wrote the directory; False for a plain Hugging Face one."""
        return "fastbert" in self.values

    @property
    def kind(self) -> type[BertConfig]:
        """The class of the settings that the file holds.

        Raises:
          UserError: another architecture, or none is named.
        """
        name = self.values.get("model_type")
        if isinstance(name, str) and name in CONFIGS:
            return CONFIGS[name]
        found = shown(name) if "model_type" in self.values else 'none; if it is a BERT, add `"model_type": "bert"`'
        raise UserError(
            f"{self.path}: model_type: expected one of {list(CONFIGS)}, found {found}; an architecture of your own is "
            "known after its module was imported"
        )

    def fields(self, values: Mapping[str, Any], keys: Mapping[str, str], required: Iterable[str]) -> dict[str, Any]:
        """The fields of the settings that the values of a part of the file give.

        Args:
          keys: key of a value -> its field.
          required: keys that must be there.

        Raises:
          UserError: a value of another type, or a key that is not there.
        """
        if missing := [key for key in required if key not in values]:
            raise UserError(f"{self.path}: expected the keys {missing}, found {shown(list(values))}")
        kinds = typing.get_type_hints(self.kind)
        return {
            field: convert(kinds[field], values[key], where=str(self.path), key=key)
            for key, field in keys.items()
            if key in values
        }


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
    kind, keys = file.kind, backbone_keys(file.kind)
    for key, expected in ENCODER_KEYS.items():
        if (found := file.values.get(key, expected)) != expected:
            expected = f"expected {expected!r}, found {shown(found)}; only BERT encoders can be loaded"
            raise UserError(f"{file.path}: {key}: {expected}")
    values = dict(file.values)
    if (activation := values.get("hidden_act", "gelu")) not in list(ACTIVATIONS):
        raise UserError(f"{file.path}: hidden_act: expected one of {list(ACTIVATIONS)}, found {shown(activation)}")
    values["hidden_act"] = ACTIVATIONS[activation].value
    fields = file.fields(values, keys, list(keys)[:5])
    try:
        return kind(**fields, **exits)
    except UserError as error:
        names = {field: key for key, field in keys.items()}
        problem = re.sub(r"^model (\w+)", lambda match: names.get(match[1], match[0]), str(error))
        raise UserError(f"{file.path}: {problem}") from None


def backbone_keys(kind: type[BertConfig]) -> dict[str, str]:
    """Key of a `config.json` -> field, for the backbone of an architecture."""
    own = {field.name for field in dataclasses.fields(kind)} - {field.name for field in dataclasses.fields(BertConfig)}
    return BACKBONE_KEYS | {name: name for name in sorted(own)}


def code_notes(source: ModelSource) -> tuple[str, ...]:
    """What to say where a model's `config.json` names code of its own: a model that is computed in another way."""
    file = ConfigJson.read(source)
    if not file.values.get("auto_map"):
        return ()
    return (
        f"{file.path} names code of its own (auto_map), which is never run: the model is computed as plain BERT, and "
        "gives other answers where its code does something else",
    )


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
    required = ("num_classes", "exit_size", "exit_heads")
    exits = file.fields(section, {key: key for key in EXIT_KEYS}, required)
    return read_bert_config(file, **exits), section["extra"]


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


def reading_values(reading: ReadingConfig) -> dict[str, Any]:
    """How the texts of training were read, as `save_model` takes it for `extra`, under `reading`."""
    return {key: value for key, value in to_dict(reading).items() if key != "on_bad_row"}


def bert_values(config: BertConfig) -> dict[str, Any]:
    """What `config.json` says of a backbone, by Hugging Face's keys."""
    fields = to_dict(config)
    fields["activation"] = next(name for name, activation in ACTIVATIONS.items() if activation is config.activation)
    return {
        **({"architectures": ["BertModel"]} if type(config) is BertConfig else {}),
        "model_type": next(name for name, kind in CONFIGS.items() if kind is type(config)),
        **ENCODER_KEYS,
        **{key: fields[field] for key, field in backbone_keys(type(config)).items()},
    }


def exits_values(config: BertConfig, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The section `fastbert` of `config.json`: the exits, and `extra`."""
    fields = to_dict(config)
    return {**{key: fields[key] for key in EXIT_KEYS}, "extra": dict(extra)}
