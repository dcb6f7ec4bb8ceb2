"""What one text at a time costs: a batch of one through the engines, at full depth and leaving early.

    python benchmarks/one_text.py --output benchmarks/results/one_text.json

`full_depth`: every engine at speed 0 over the bare encoder program, called directly on arrays that lie on the device
already; with the plan made beforehand, and with tokenizing and planning inside. `early`: a text that leaves after a
sixth of the layers over the same text at full depth, by the same engine. Two models: a trained one on real texts, and
random weights of BERT-base's size. Runs take turns in one process, after all programs are compiled; it fails when
anything compiles after the warm-up.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, Mode
from fastbert_jax.inference.compare import evenly, interleaved_times
from fastbert_jax.inference.engines.runtime import ExitResult, Texts
from fastbert_jax.inference.plan import BatchedTexts
from fastbert_jax.model.network import Params
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import load_tokenizer
from measured import Model, publish, random_config, random_model, ratio, trained_model

ONE_TOKEN = "film"
"""A word that is one token."""
TEXTS_TO_CHOOSE_FROM = 64
FEWEST, MOST = 5, 300
"""Repeats, however long one takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure what one text at a time costs."""

    model: str = "runs/movie_reviews"
    """Directory of a run."""
    data: str = "builtin:movie_reviews#test"
    """SPEC of its texts; one of each padded length is timed."""
    random_layers: int = 12
    """Layers of the random model."""
    random_hidden_size: int = 768
    """Width of the random model."""
    random_lengths: tuple[int, ...] = (32, 64, 128)
    """Tokens of the texts for it."""
    modes: tuple[Mode, ...] = tuple(Mode)
    """Engines to measure; `early` leaves `masked` out, which skips nothing."""
    seconds: float = 12.0
    """Of repeats for each text, in either part."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    model = trained_model(settings.model)
    examples = read_examples(settings.data, DataConfig(), need_label=False, role="test").examples
    real = [examples[i].text for i in evenly(len(examples), TEXTS_TO_CHOOSE_FROM)]
    lengths = model.predictor.plan(real).padded_lengths.tolist()
    trained = {length: real[lengths.index(length)] for length in sorted(set(lengths))}
    values = {"trained": {"full_depth": [full_depth(model, text, settings) for text in trained.values()]}}

    config = random_config(layers=settings.random_layers, hidden_size=settings.random_hidden_size)
    tokenizer = load_tokenizer(pretrained_directory("builtin:minilm"))
    model = random_model(config, lengths=settings.random_lengths, tokenizer=tokenizer)
    texts = [" ".join([ONE_TOKEN] * (length - 2)) for length in settings.random_lengths]
    values["random"] = {
        "full_depth": [full_depth(model, text, settings) for text in texts],
        "early": [early(model, text, settings) for text in texts],
    }
    publish(values | {"wanted_at_most": {"full_depth": 1.1, "early": 0.25}}, settings)


def full_depth(model: Model, text: str, settings: Settings) -> dict:
    """Every engine's full depth on one text over the bare program."""
    predictor, params = model.predictor, model.params
    plan = predictor.plan([text])
    batch = jax.device_put(plan.batches[0])
    program = bare_program(model)

    def planned_inside(mode: Mode) -> None:
        predictor.answers(predictor.plan([text]), speed=0.0, mode=mode)

    runs: list[Callable[[], object]] = [lambda: jax.block_until_ready(program(params, batch))]
    for mode in settings.modes:
        runs += [
            functools.partial(predictor.answers, plan, speed=0.0, mode=mode),
            functools.partial(planned_inside, mode),
        ]
    for run in runs:
        run()
    compiled = predictor.compiled_programs
    bare, *times = repeated_times(runs, settings.seconds)
    require_nothing_compiled(compiled, predictor.compiled_programs)
    return {
        "length": batch.text_BxS.shape[1],
        "planned_before": {mode.value: ratio(own, bare) for mode, own in zip(settings.modes, times[::2], strict=True)},
        "planned_inside": {mode.value: ratio(own, bare) for mode, own in zip(settings.modes, times[1::2], strict=True)},
        "noise": Spread.of(bare).relative,
        "repeats": len(bare),
    }


def bare_program(model: Model) -> Callable[[Params, Batch], ExitResult]:
    """Embeddings, a scan over all layers, the teacher: one program, and nothing of an engine."""
    runtime = model.runtime

    @jax.jit
    def program(params: Params, batch: Batch) -> ExitResult:
        def step(texts: Texts, layer: Params) -> tuple[Texts, None]:
            return runtime.step(layer, None, texts)[0], None

        texts, _ = jax.lax.scan(step, runtime.enter(params, batch), params["backbone"]["layers"])
        return runtime.judge(params["last_exit"], texts)[1]

    return program


def early(model: Model, text: str, settings: Settings) -> dict:
    """A text that leaves after a sixth of the layers over the same at full depth, for each engine that skips."""
    predictor = model.predictor
    plan, layers = predictor.plan([text]), predictor.config.num_layers
    depth = max(layers // 6, 1)
    found = {}
    for mode in settings.modes:
        if mode is Mode.MASKED:
            continue
        full = functools.partial(predictor.answers, plan, speed=0.0, mode=mode)
        leaving = functools.partial(predictor.answers, plan, speed=leaving_after(depth, layers), mode=mode)
        full()
        compiled, start = predictor.compiled_programs, time.perf_counter()
        answers = leaving()
        warm_up = time.perf_counter() - start
        if answers.exit_layer_B.tolist() != [depth]:
            raise RuntimeError(f"expected the text to leave at layer {depth}, found {answers.exit_layer_B.tolist()}")
        programs = predictor.compiled_programs - compiled
        compiled = predictor.compiled_programs
        full_times, times = repeated_times([full, leaving], settings.seconds / len(settings.modes))
        check_all_depths(predictor.answers, plan, layers, mode)
        require_nothing_compiled(compiled, predictor.compiled_programs)
        found[mode.value] = {
            "over_full_depth": ratio(times, full_times),
            "noise": Spread.of(full_times).relative,
            "repeats": len(times),
            "programs_of_warm_up": programs,
            "warm_up_over_full_depth": warm_up / float(np.median(full_times)),
        }
    return {"length": int(plan.padded_lengths[0]), "exit_layer": depth, "layers": layers, "engines": found}


def leaving_after(depth: int, layers: int) -> np.ndarray:
    """A speed, one threshold per layer, at which every text whose uncertainty is below 1 exits at `depth`."""
    speed = np.zeros(layers)
    speed[depth - 1] = 1.0
    return speed


def check_all_depths(answer: Callable, plan: BatchedTexts, layers: int, mode: Mode) -> None:
    """Have the text leave at every layer once, so that all that an engine may ever run on it has run."""
    for depth in range(1, layers + 1):
        found = answer(plan, speed=leaving_after(depth, layers), mode=mode).exit_layer_B.tolist()
        if found != [depth]:
            raise RuntimeError(f"expected the text to leave at layer {depth} by {mode.value}, found {found}")


def repeated_times(runs: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Interleaved times `[runs][repeats]` of as many repeats as take about `seconds`.

    Each run is timed right after an untimed one of its own: the second text of a service, not what another program's
    buffers left of the cache.
    """
    start = time.perf_counter()
    for run in runs:
        run()
    one = 2 * (time.perf_counter() - start)
    twice = [step for run in runs for step in (run, run)]
    return interleaved_times(twice, int(np.clip(seconds / one, FEWEST, MOST)))[1::2]


def require_nothing_compiled(before: int, after: int) -> None:
    """Fail when programs were compiled in the meantime."""
    if after != before:
        raise RuntimeError(f"expected nothing to compile after the warm-up, found {after - before} new programs")


if __name__ == "__main__":
    end_with(main)
