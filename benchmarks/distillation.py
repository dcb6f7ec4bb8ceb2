"""What a step of self-distillation costs, and how much of it goes into real tokens.

    python benchmarks/distillation.py --output benchmarks/results/distillation.json

`cases`: the step as training runs it (frozen backbone and teacher forward, students forward and backward, AdamW) over
the backbone's forward pass alone, on the same full batch, with random weights; beside it the same ratio of FLOPs. Then
the step over the same step with the teacher's answers known, as `distil.cache_teacher` has them from the second epoch
on. On a device whose peak is known, in bfloat16, the utilisation too: FLOPs of the step over seconds times peak.

`texts`: the time that the same texts take on the first model, laid out in three ways: packed rows, one text a row
padded to `length`, and length buckets. One pass over all texts each, one static batch shape per length.

All that is compared takes turns in one process, after all has compiled.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BertConfig, DataConfig, DistilConfig, Precision
from fastbert_jax.errors import UserError
from fastbert_jax.inference.compare import evenly, interleaved_times
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.flops import distillation_flops
from fastbert_jax.recipes.fastbert import self_distillation
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.batches import Batch, collate
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import Encoded, load_tokenizer
from fastbert_jax.text.training_batches import TrainingBatches
from fastbert_jax.training.terms import COMPUTED, KEPT, Kept
from measured import begun, publish, random_tokens, ratio
from scaling import CHIPS, MODELS, bert

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": CHIPS["TPU v5e"].peak_flops,
    "TPU v5": 459e12,
    "TPU v6 lite": CHIPS["TPU v6e"].peak_flops,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": CHIPS["H100 SXM"].peak_flops,
    "NVIDIA H200": CHIPS["H200"].peak_flops,
    "NVIDIA L4": CHIPS["L4"].peak_flops,
}
"""Dense bfloat16 by JAX's name of the device: the makers' data sheets (cloud.google.com/tpu/docs, nvidia.com)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the step of self-distillation."""

    models: tuple[str, ...] = ("MiniLM", "BERT-base")
    """Names of scaling.py, or LAYERSxWIDTHxHEADS; weights are random."""
    length: int = 128
    """Tokens of a row."""
    rows: tuple[int, ...] = (16, 8)
    """Rows of a batch, for each model."""
    data: str = "builtin:movie_reviews#unlabelled"
    """SPEC of the texts to lay out."""
    text_rows: int = 64
    """Rows of a batch of one text a row in length buckets, so that it has about as many places as one of full rows."""
    texts: int = 1024
    """Texts to time, spread evenly over the data; 0: all."""
    precision: Precision = Precision.FLOAT32
    """Of the arithmetic."""
    repeats: int = 7
    """Interleaved repeats; the median counts."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


class Distillation:
    """The second phase of the recipe on one model, step by step."""

    def __init__(self, config: BertConfig, precision: Precision) -> None:
        network = Bert(config, dropout=0.1, precision=precision)
        distil = DistilConfig(cache_teacher=True)
        (phase,) = self_distillation(network, distil)
        self._params = {"model": Bert(config).init(jax.random.key(0))}
        self._steps, self._state, self._frozen = begun(phase, self._params, config)
        self._backbone = jax.jit(lambda params, batch: network.hidden_states(params, batch)[-1])

    def step(self, batch: Batch, kept: Kept | None = None) -> jax.Array | None:
        """One optimizer step; the logits of the last exit, unless they are given."""
        views = {"batch": batch} if kept is None else {"batch": batch, "kept": kept}
        step = self._steps[COMPUTED if kept is None else KEPT]
        self._state, metrics = step(self._state, self._frozen, views)
        jax.block_until_ready((self._state, metrics))
        return metrics.kept_BxKxN

    def backbone(self, batch: Batch) -> None:
        """The last hidden states alone."""
        jax.block_until_ready(self._backbone(self._params["model"], batch))


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    if len(settings.rows) != len(settings.models):
        raise UserError(f"rows: expected a number for each of {settings.models}, found {settings.rows}")
    cases = {
        name: step_over_forward(config_of(name), rows, settings)
        for name, rows in zip(settings.models, settings.rows, strict=True)
    }
    texts = layouts(config_of(settings.models[0]), settings.rows[0], settings)
    publish({"cases": cases, "texts": texts}, settings)


def config_of(name: str) -> BertConfig:
    """The architecture of a name of scaling.py, or of LAYERSxWIDTHxHEADS.

    Raises:
      UserError: neither of them.
    """
    if name in MODELS:
        return MODELS[name]
    sizes = name.split("x")
    if len(sizes) != 3 or not all(size.isdigit() for size in sizes):
        raise UserError(f"models: expected one of {sorted(MODELS)} or LAYERSxWIDTHxHEADS, found {name!r}")
    return bert(*map(int, sizes))


def step_over_forward(config: BertConfig, rows: int, settings: Settings) -> dict:
    """The step, without and with the teacher's answers known, and the backbone's forward pass on one full batch."""
    run = Distillation(config, settings.precision)
    encoded = random_tokens(config, texts=rows, length=settings.length)
    batch = jax.device_put(collate(encoded, np.arange(rows), batch_size=rows, length=settings.length))
    kept = Kept(run.step(batch))
    runs = [functools.partial(run.backbone, batch), functools.partial(run.step, batch)]
    runs.append(functools.partial(run.step, batch, kept))
    for each in runs:
        each()
    backbone, step, known_step = interleaved_times(runs, settings.repeats)
    flops = rows * distillation_flops(Bert(config), settings.length)
    known_flops = rows * distillation_flops(Bert(config), settings.length, targets_known=True)
    absolute = {
        "backbone_seconds": dataclasses.asdict(Spread.of(backbone)),
        "step_seconds": dataclasses.asdict(Spread.of(step)),
        "tokens_per_second": dataclasses.asdict(Spread.of([rows * settings.length / one for one in step])),
        "flops_per_second": dataclasses.asdict(Spread.of([flops / one for one in step])),
    }
    return {
        "step_over_backbone": ratio(step, backbone),
        "backbone_over_step": ratio(backbone, step),
        "flops_of_step_over_backbone": flops / (rows * config.num_layers * Bert(config).layer_flops(settings.length)),
        "step_over_step_with_known_teacher": ratio(step, known_step),
        "flops_of_step_over_step_with_known_teacher": flops / known_flops,
        "utilisation": utilisation(flops, step, settings.precision),
        "noise": Spread.of(backbone).relative,
        "rows": rows,
        "length": settings.length,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
    } | (absolute if jax.default_backend() != "cpu" else {})


def utilisation(flops: int, seconds: Sequence[float], precision: Precision) -> dict[str, float | None] | None:
    """FLOPs of a step over what the device could do in its time; none where its peak is not known."""
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    if peak is None or precision is not Precision.BFLOAT16:
        return None
    return dataclasses.asdict(Spread.of([flops / (one * peak) for one in seconds]))


def layouts(config: BertConfig, rows: int, settings: Settings) -> dict:
    """Real tokens per second of one pass over the texts, in each of the layouts."""
    examples = read_examples(settings.data, DataConfig(), need_label=False, role="unlabelled").examples
    texts = [examples[i].text for i in evenly(len(examples), settings.texts)]
    encoded = load_tokenizer(pretrained_directory("builtin:minilm")).encode(texts, max_length=settings.length)
    batches = batches_of(encoded, rows, settings)
    run = Distillation(config, settings.precision)
    runs: list[Callable[[], None]] = []
    for laid_out in batches.values():
        runs.append(functools.partial(one_pass, run, laid_out))
        runs[-1]()
    times = interleaved_times(runs, settings.repeats)
    real = int(encoded.lengths.sum())
    packed = times[list(batches).index("packed")]
    return {
        "layouts": {
            name: {
                "packed_is_faster_by": ratio(own, packed),
                "batches": len(batches[name]),
                "shapes": sorted({batch.text_BxS.shape for batch in batches[name]}),
                "texts_per_row": batches[name][0].valid_BxK.shape[1],
                "real_token_share": real / sum(batch.text_BxS.size for batch in batches[name]),
            }
            for name, own in zip(batches, times, strict=True)
        },
        "texts": len(encoded),
        "mean_tokens": real / len(encoded),
        "model": settings.models[0],
        "noise": Spread.of(packed).relative,
    }


def batches_of(encoded: Encoded, rows: int, settings: Settings) -> dict[str, list[Batch]]:
    """One epoch in each layout, in the device's memory. The last batch of a layout may be partial."""
    length = settings.length
    buckets = dataclasses.replace(DataConfig(), max_length=length).lengths
    of_texts = functools.partial(TrainingBatches, encoded, None, epochs=1, seed=0)
    laid_out = {
        "packed": of_texts(buckets=(length,), batch_size=rows, pack=True),
        f"one text a row of {length}": of_texts(buckets=(length,), batch_size=rows),
        "length buckets": of_texts(buckets=buckets, batch_size=settings.text_rows),
    }
    return {name: [jax.device_put(batches[i]) for i in range(len(batches))] for name, batches in laid_out.items()}


def one_pass(run: Distillation, batches: list[Batch]) -> None:
    """A step on every batch."""
    for batch in batches:
        run.step(batch)


if __name__ == "__main__":
    end_with(main)
