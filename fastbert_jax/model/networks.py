"""The network of each architecture; a new one is a file beside this one and an entry below."""

from __future__ import annotations

from typing import Any

from fastbert_jax.config import BertConfig
from fastbert_jax.model.bert import Bert

NETWORKS: dict[type[BertConfig], type[Bert]] = {BertConfig: Bert}
"""By the class of settings, which `CONFIGS` in `config_json.py` names."""


def make_network(config: BertConfig, **settings: Any) -> Bert:
    """The network of an architecture; the settings are those of its class, such as `precision` and `dropout`."""
    return NETWORKS[type(config)](config, **settings)
