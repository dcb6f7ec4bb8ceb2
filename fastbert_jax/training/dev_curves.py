"""What the dev set said during training, out of a run's journal."""

from __future__ import annotations

import json
from pathlib import Path

from fastbert_jax.report.html.contents import DevPoint
from fastbert_jax.training.loggers import DEV_EVENT

MOST = 300
"""Measurements that are given; of more, some that are spread evenly, the last one always among them."""


def dev_points(metrics: Path) -> tuple[DevPoint, ...]:
    """The measurements in `metrics.jsonl`, in the order of their steps; none where there is no such file.

    A measurement is of the phase whose step was logged before it.
    """
    if not metrics.exists():
        return ()
    points, phase = [], ""
    with metrics.open(encoding="utf-8") as lines:
        for line in lines:
            values = json.loads(line)
            if values["event"] != DEV_EVENT:
                phase = values["event"]
                continue
            points.append(
                DevPoint(
                    step=values["step"],
                    phase=phase,
                    accuracy=tuple(values["accuracy"]),
                    loss=tuple(values["loss"]),
                )
            )
    every = -(-len(points) // MOST) or 1
    return tuple(points[::-1][::every][::-1])
