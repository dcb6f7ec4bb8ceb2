"""What the page asks for: the model's facts, and every exit's answer to one text."""

from __future__ import annotations

import threading
from typing import Any

from fastbert_jax.errors import UserError
from fastbert_jax.inference.explain import exit_paths
from fastbert_jax.inference.predictor import Predictor


class PageAnswers:
    """Answers for one page; requests may come from many threads."""

    def __init__(self, predictor: Predictor, *, name: str, speed: float) -> None:
        """Take a model with exits.

        Raises:
          UserError: there is only a backbone.
        """
        predictor.require_exits()
        self._predictor = predictor
        self._name = name
        self._speed = speed
        self._alone = threading.Lock()

    def model(self) -> dict[str, Any]:
        """What the page shows before a text is typed."""
        return {
            "name": self._name,
            "labels": list(self._predictor.labels),
            "layers": self._predictor.config.num_layers,
            "max_length": self._predictor.max_length,
            "speed": self._speed,
        }

    def answer(self, question: Any) -> dict[str, Any]:
        """Every exit's answer to `{"text": ..., "pair": ...}`, of which `pair` may be left out or null.

        Raises:
          UserError: anything else.
        """
        if not isinstance(question, dict) or not question.keys() <= {"text", "pair"}:
            raise UserError('expected {"text": "..."} or {"text": "...", "pair": "..."}, found something else')
        text = _checked("text", question.get("text"))
        pair = None if question.get("pair") is None else _checked("pair", question["pair"])
        with self._alone:  # one program at a time: several would only share the same cores
            (path,) = exit_paths(self._predictor, [text if pair is None else (text, pair)], self._speed)
        return path.to_json()


def _checked(key: str, value: Any) -> str:
    try:
        value.encode()  # JSON can hold half a character
    except (AttributeError, UnicodeEncodeError):
        raise UserError(f"{key}: expected a string of Unicode text, found {value!a:.40}") from None
    return str(value)
