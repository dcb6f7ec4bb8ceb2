"""The kinds of networks by `model_type` of `config.json`; a new one is a file beside this one and a line below."""

from __future__ import annotations

from typing import Any

from fastbert_jax.config import BertConfig
from fastbert_jax.model.bert import Bert

NETWORKS: dict[str, type[Bert]] = {BertConfig.MODEL_TYPE: Bert}


def make_network(config: BertConfig, **settings: Any) -> Bert:
    """The network of an architecture; the settings are those of its class, such as `dtype` and `dropout`."""
    return NETWORKS[config.MODEL_TYPE](config, **settings)
