"""The thresholds that the `calibrate` command found for a target, and their file beside the model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fastbert_jax.config import RECOMMENDED, ExitConfig
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
    speedup: Spread | None
    """Measured, over full depth; None where it was not."""
    confidence: float | None
    """Of the guarantee; None for a target without one."""
    mode: str
    device: str
    date: str
    no_accuracy: str = ""
    """Why there is no accuracy; empty where there is one."""
    lost: int | None = None
    """Texts that full depth answers correctly and these thresholds do not; None where there is no accuracy."""
    gained: int | None = None
    """Texts for which it is the other way round."""

    @property
    def speed(self) -> float:
        """The threshold of the last layer, which is that of all exits in use where they have one."""
        return self.thresholds[-1]

    def summary(self) -> str:
        """The result in words."""
        lines = [
            f"target      {self.target}" + (f" with confidence {self.confidence:g}" if self.confidence else ""),
            f"thresholds  {' '.join(f'{threshold:.4g}' for threshold in self.thresholds)}",
            f"depth       {self.mean_depth:.2f} of {self.layers} layers on {self.texts} texts of {self.data}",
            f"agreement   {self.agreement:.2%} of the texts get full depth's label",
        ]
        if self.speedup is not None:
            spread = f"{self.speedup.low:.2f}..{self.speedup.high:.2f}"
            lines.insert(
                3, f"measured    {self.speedup.median:.2f}x full depth ({spread}), {self.mode} on {self.device}"
            )
        if self.accuracy is not None and self.full_accuracy is not None:
            counts = "" if self.lost is None else f" ({self.lost} texts lost, {self.gained} gained)"
            lines.append(f"accuracy    {self.accuracy:.4f}, at full depth {self.full_accuracy:.4f}{counts}")
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
        speedup = values["speedup"] and Spread(**values["speedup"])
        thresholds = tuple(map(float, values["thresholds"]))
        if not (thresholds and all(0 <= threshold <= 1 for threshold in thresholds)):
            raise ValueError(f"thresholds {values['thresholds']}")
        return Calibration(**values | {"exits": exits, "speedup": speedup, "thresholds": thresholds})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a file of `infer.py calibrate` ({error}); calibrate again") from None


def recommended_calibration(model: Path) -> Calibration | None:
    """The calibration of a model's recommended speed; None where it has none, as models of earlier versions.

    Raises:
      UserError: as `stored_calibration`, for a file that cannot be read.
    """
    return stored_calibration(model, RECOMMENDED) if RECOMMENDED in entries_of(model / FILE) else None


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
