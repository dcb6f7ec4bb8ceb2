"""The thresholds that the `calibrate` command found for a target, and their file beside the model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fastbert_jax.config import ExitConfig
from fastbert_jax.config_yaml import from_dict
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.report.comparison import Spread

FILE = "calibration.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Thresholds for a target, and the measurements that they are based on."""

    target: str
    thresholds: tuple[float, ...]
    """One per layer, in [0, 1]; 0 where no exit is asked."""
    exits: ExitConfig
    """The exits that the thresholds belong to."""
    data: str
    texts: int
    mean_depth: float
    layers: int
    agreement: float
    """Share of the texts with full depth's label."""
    accuracy: float | None
    """None where not every text has a label that the model knows."""
    full_accuracy: float | None
    speedup: Spread
    """Measured, over full depth."""
    confidence: float | None
    """Of the guarantee; None for a target without one."""
    mode: str
    device: str
    date: str
    no_accuracy: str = ""
    """Why there is no accuracy; empty where there is one."""

    def summary(self) -> str:
        """The result in words."""
        lines = [
            f"target      {self.target}" + (f" with confidence {self.confidence:g}" if self.confidence else ""),
            f"thresholds  {' '.join(f'{threshold:.4g}' for threshold in self.thresholds)}",
            f"depth       {self.mean_depth:.2f} of {self.layers} layers on {self.texts} texts of {self.data}",
            f"measured    {self.speedup.median:.2f}x full depth ({self.speedup.low:.2f}..{self.speedup.high:.2f}), "
            f"{self.mode} on {self.device}",
            f"agreement   {self.agreement:.2%} of the texts get full depth's label",
        ]
        if self.accuracy is not None and self.full_accuracy is not None:
            lines.append(f"accuracy    {self.accuracy:.4f}, at full depth {self.full_accuracy:.4f}")
        elif self.no_accuracy:
            lines.append(f"accuracy    unknown: {self.no_accuracy}")
        return "\n".join(lines)


def stored_calibration(model: Path, target: str) -> Calibration:
    """The calibration of a target, as `calibrate` stored it in a model's own directory.

    Raises:
      UserError: there is none for this target.
    """
    path = model / FILE
    entries = entries_of(path)
    if target not in entries:
        known = f"; {nearest(str(target), list(entries))}" if entries else ""
        raise UserError(f"{path}: no calibration for {target!r}{known}; make it with `infer.py calibrate`")
    values = entries[target]
    try:
        exits = from_dict(ExitConfig, values["exits"], where=str(path), prefix="exits.")
        return Calibration(
            **values
            | {"exits": exits, "speedup": Spread(**values["speedup"]), "thresholds": tuple(values["thresholds"])}
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a file of `infer.py calibrate` ({error}); calibrate again") from None


def entries_of(path: Path) -> dict[str, Any]:
    """The calibrations of a file by their targets; none where there is no file.

    Raises:
      UserError: something else than calibrations.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, dict):
            raise ValueError(f"{type(entries).__name__} in place of an object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a file of `infer.py calibrate` ({error}); delete it") from None
    return entries
