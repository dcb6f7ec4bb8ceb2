"""Settings of the commands that show the way of single texts through the layers."""

from __future__ import annotations

import dataclasses

import tyro

from fastbert_jax.config.checks import require
from fastbert_jax.config.inference import ExitConfig
from fastbert_jax.config.output import QuietCommand

MOST_PORT = 65535


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainConfig(QuietCommand):
    """Show what every layer says of a text, how sure it is, and where the text leaves.

    Example: python infer.py explain --model runs/demo "oil prices rose sharply" --speed 0.3

    Several texts may be given, and for a model of pairs the second text of each after --pair.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """The texts, each in quotes."""
    model: str
    """Directory of a run, or of its model."""
    pair: tuple[str, ...] = ()
    """The second text of each pair, as many as there are texts; empty: single texts."""
    speed: float = 0.5
    """Uncertainty below which a text leaves, in [0, 1]: higher is faster, 0 is plain BERT."""
    target: str = ""
    """Thresholds that `infer.py calibrate` found, such as `max-drop=0.5`, instead of speed and exits."""
    exits: ExitConfig = dataclasses.field(default_factory=ExitConfig)
    json: bool = False
    """Give one line of JSON a text instead of the tables."""

    def __post_init__(self) -> None:
        require(len(self.texts) > 0, "texts", "one text or more, each in quotes", self.texts)
        expected = f"{len(self.texts)} second texts, one for each text, or none"
        require(len(self.pair) in (0, len(self.texts)), "--pair", expected, len(self.pair))
        require(0 <= self.speed <= 1, "speed", "a threshold in [0, 1]", self.speed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploreConfig(QuietCommand):
    """Open a page on this machine: type a text, move the speed, see the way through the layers. Ctrl-C ends it.

    Example: python infer.py explore --model runs/demo
    """

    model: str
    """Directory of a run, or of its model."""
    host: str = "127.0.0.1"
    """Address to listen on. The default is reached from this machine alone; the page asks nobody for a password."""
    port: int = 8000
    """TCP port, 1 to 65535; 0: any that is free."""
    speed: float = 0.5
    """Where the page's speed begins, in [0, 1]: the uncertainty below which a text leaves."""
    exits: ExitConfig = dataclasses.field(default_factory=ExitConfig)

    def __post_init__(self) -> None:
        require(bool(self.host), "--host", "a name or an address", self.host)
        require(0 <= self.port <= MOST_PORT, "--port", f"0 to {MOST_PORT}", self.port)
        require(0 <= self.speed <= 1, "speed", "a threshold in [0, 1]", self.speed)
