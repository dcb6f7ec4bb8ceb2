"""Our fine-tuning step against a PyTorch training loop: the same weights, classifier, texts, dropout and threads.

    pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/fine_tuning.py --output benchmarks/results/peer_fine_tuning.json

Ours is what `train.py` runs in its first phase. Theirs is the loop of transformers' Trainer, written out: transformers'
BertModel with sdpa attention, eager, in train mode; the exit of `model/exits.py` written in PyTorch, so that FLOPs are
equal; cross entropy, backward, clipping, fused AdamW, a linear schedule. float32 and dropout 0.1 on both sides. Before
anything is timed, both must give the same logits without dropout.

Three questions: `fixed over fixed`, batches of one static length on both sides; `fixed over buckets`, ours with length
buckets as train.py has them; `dynamic over buckets`, theirs with each batch padded to its longest text. The ratios are
PyTorch's time over ours: above 1, ours is faster. All take turns batch by batch in one process; our batches come from
the host's memory, theirs are tensors made beforehand. PyTorch's OpenMP threads sleep when they have nothing to do
(OMP_WAIT_POLICY, set below before it is imported), or they would take the cores from XLA's.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np
import torch
import transformers
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BertConfig, DataConfig, FineTuneConfig
from fastbert_jax.inference.compare import evenly, interleaved_times
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import read_bert_config
from fastbert_jax.model.network import Params
from fastbert_jax.model.weights import load_params
from fastbert_jax.recipes.fastbert import fine_tuning
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.labelled_data import label_ids
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import Encoded, load_tokenizer
from fastbert_jax.text.training_batches import TrainingBatches
from fastbert_jax.training.terms import COMPUTED
from measured import TOTAL_STEPS, begun, publish, ratio

LARGEST_DIFFERENCE = 1e-4
"""Of two logits that count as equal."""
DROPOUT = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure fine-tuning against PyTorch's."""

    data: str = "builtin:movie_reviews#train"
    """SPEC of the labelled texts."""
    texts: int = 512
    """Texts to train on, spread evenly over the data; 0: all."""
    batch_size: int = 32
    """Texts per optimizer step."""
    max_length: int = 64
    """The fixed length; longer texts are cut."""
    unroll: int = 1
    """Our layers that are compiled one after the other, as `--model.unroll` of train.py."""
    repeats: int = 7
    """Interleaved passes over the texts; the median counts."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


class Ours:
    """The first phase of the recipe, step by step."""

    def __init__(self, config: BertConfig, params: Params, unroll: int) -> None:
        network = Bert(config, dropout=DROPOUT, unroll=unroll)
        steps, self._state, self._frozen = begun(fine_tuning(network, FineTuneConfig()), {"model": params}, config)
        self._step = steps[COMPUTED]
        self.logits = jax.jit(lambda batch: network.trace(params, batch).logits_BxKxN[:, 0])

    def step(self, batch: Batch) -> None:
        """One optimizer step."""
        self._state, metrics = self._step(self._state, self._frozen, {"batch": batch})
        jax.block_until_ready((self._state, metrics))


class TorchExit(torch.nn.Module):
    """The exit of `model/exits.py`, for one text a row: one query, and keys and values moved to it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.exit_size
        self.heads = config.exit_heads
        self.narrow = torch.nn.Linear(config.hidden_size, width)
        self.query, self.value = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.key = torch.nn.Linear(width, width, bias=False)
        self.attention_output, self.dense = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.classifier = torch.nn.Linear(width, config.num_classes)
        self.drop = torch.nn.Dropout(DROPOUT)

    def forward(self, hidden_BxSxH: torch.Tensor, mask_BxS: torch.Tensor) -> torch.Tensor:
        """Logits `[B, N]`."""
        narrow_BxSxC = torch.tanh(self.narrow(hidden_BxSxH))
        rows, _, width = narrow_BxSxC.shape
        each = width // self.heads
        query_BxAxD = self.query(narrow_BxSxC[:, 0]).view(rows, self.heads, each) * each**-0.5
        probe_BxAxC = torch.einsum("bad,adc->bac", query_BxAxD, self.key.weight.view(self.heads, each, width))
        scores_BxAxS = probe_BxAxC @ narrow_BxSxC.transpose(1, 2)
        scores_BxAxS = scores_BxAxS.masked_fill(mask_BxS[:, None] == 0, -1e30)
        weights_BxAxS = self.drop(torch.softmax(scores_BxAxS, -1))
        mean_BxAxC = weights_BxAxS @ narrow_BxSxC
        value_BxAxD = torch.einsum("bac,adc->bad", mean_BxAxC, self.value.weight.view(self.heads, each, width))
        value_BxAxD = value_BxAxD + weights_BxAxS.sum(-1, keepdim=True) * self.value.bias.view(self.heads, each)
        attended_BxC = self.attention_output(value_BxAxD.reshape(rows, width))
        return self.classifier(torch.tanh(self.dense(attended_BxC)))


class Theirs:
    """BertModel and the exit, and the steps of Trainer's loop."""

    def __init__(self, directory: Path, config: BertConfig, teacher: Params) -> None:
        self.bert = transformers.BertModel.from_pretrained(
            directory, add_pooling_layer=False, attn_implementation="sdpa", dtype=torch.float32
        )
        self.bert.config.hidden_dropout_prob = self.bert.config.attention_probs_dropout_prob = DROPOUT
        for module in self.bert.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = DROPOUT
        self.exit = TorchExit(config)
        copy_exit(self.exit, teacher)
        self.model = torch.nn.ModuleList([self.bert, self.exit])
        named = dict(self.model.named_parameters())
        decayed = [one for name, one in named.items() if name.endswith("weight") and "LayerNorm" not in name]
        spared = [one for name, one in named.items() if not (name.endswith("weight") and "LayerNorm" not in name)]
        settings = FineTuneConfig()
        self.clip_norm = settings.clip_norm
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, eps=1e-6, fused=True)
        self.schedule = transformers.get_linear_schedule_with_warmup(
            self.optimizer, round(settings.warmup * TOTAL_STEPS), TOTAL_STEPS
        )

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits `[B, N]`, with dropout in train mode."""
        return self.exit(self.bert(**inputs).last_hidden_state, inputs["attention_mask"])

    def step(self, inputs: dict[str, torch.Tensor], label_B: torch.Tensor) -> None:
        """One optimizer step."""
        loss = torch.nn.functional.cross_entropy(self.logits(inputs), label_B)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    threads = len(os.sched_getaffinity(0))  # XLA's pool has as many
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    publish(measure(settings) | {"wanted_at_least": 1.0, "threads": threads, **versions}, settings)


def measure(settings: Settings) -> dict:
    """The ratios, and texts per second of each way."""
    directory = pretrained_directory("builtin:minilm")
    encoded, labels = texts_of(settings, directory)
    config = read_bert_config(directory, num_classes=int(labels.max()) + 1, exit_size=128, exit_heads=2)
    params = Bert(config).init(jax.random.key(0)) | load_params(directory, config, exits=False)
    params = jax.device_put(params)
    ours, theirs = Ours(config, params, settings.unroll), Theirs(directory, config, jax.device_get(params["last_exit"]))

    lengths = dataclasses.replace(DataConfig(), max_length=settings.max_length).lengths
    of_texts = functools.partial(TrainingBatches, encoded, labels, batch_size=settings.batch_size, epochs=1, seed=0)
    fixed, buckets = (list_of(of_texts(buckets=chosen)) for chosen in ((settings.max_length,), lengths))
    dynamic = [cut_to_longest(batch) for batch in fixed]
    difference = largest_difference(ours, theirs, fixed[0])
    if difference > LARGEST_DIFFERENCE:
        raise RuntimeError(f"expected equal logits without dropout, found a difference of {difference}")
    theirs.model.train()

    ways = {
        "ours, fixed": [functools.partial(ours.step, batch) for batch in fixed],
        "torch, fixed": [functools.partial(theirs.step, *torch_inputs(batch)) for batch in fixed],
        "ours, buckets": [functools.partial(ours.step, batch) for batch in buckets],
        "torch, dynamic": [functools.partial(theirs.step, *torch_inputs(batch)) for batch in dynamic],
    }
    runs: list[Callable[[], None]] = [run for turn in zip(*ways.values(), strict=True) for run in turn]
    for run in runs:
        run()
    times = np.array(interleaved_times(runs, settings.repeats)).reshape(len(fixed), len(ways), settings.repeats)
    seconds = dict(zip(ways, times.sum(0).tolist(), strict=True))
    return {
        "torch_over_ours": {
            "fixed over fixed": ratio(seconds["torch, fixed"], seconds["ours, fixed"]),
            "fixed over buckets": ratio(seconds["torch, fixed"], seconds["ours, buckets"]),
            "dynamic over buckets": ratio(seconds["torch, dynamic"], seconds["ours, buckets"]),
        },
        "padding_share": {
            name: 1 - int(encoded.lengths.sum()) / sum(batch.text_BxS.size for batch in batches)
            for name, batches in {"fixed": fixed, "buckets": buckets, "dynamic": dynamic}.items()
        },
        "noise": Spread.of(seconds["ours, fixed"]).relative,
        "largest_difference_of_logits": difference,
        "texts": len(encoded),
        "batches": len(fixed),
    }


def texts_of(settings: Settings, directory: Path) -> tuple[Encoded, np.ndarray]:
    """Whole batches of texts as tokens, and their labels."""
    found = read_examples(settings.data, DataConfig(), need_label=True, role="train").examples
    chosen = [found[i] for i in evenly(len(found), settings.texts)]
    chosen = chosen[: len(chosen) // settings.batch_size * settings.batch_size]
    encoded = load_tokenizer(directory).encode([example.text for example in chosen], max_length=settings.max_length)
    return encoded, label_ids(chosen, sorted({example.label for example in found if example.label is not None}))


def list_of(batches: TrainingBatches) -> list[Batch]:
    """All of them, in the host's memory."""
    return [batches[i] for i in range(len(batches))]


def cut_to_longest(batch: Batch) -> Batch:
    """The batch without the columns that are padding in every row."""
    longest = int((batch.text_BxS > 0).sum(1).max())
    return batch._replace(
        token_ids_BxS=batch.token_ids_BxS[:, :longest],
        token_type_BxS=batch.token_type_BxS[:, :longest],
        position_BxS=batch.position_BxS[:, :longest],
        text_BxS=batch.text_BxS[:, :longest],
    )


def torch_inputs(batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The same batch for PyTorch: what the model takes, and the labels."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).long()

    inputs = {
        "input_ids": tensor(batch.token_ids_BxS),
        "token_type_ids": tensor(batch.token_type_BxS),
        "attention_mask": tensor(batch.text_BxS),
    }
    return inputs, tensor(batch.label_BxK[:, 0])


def largest_difference(ours: Ours, theirs: Theirs, batch: Batch) -> float:
    """Of the logits of both, without dropout."""
    theirs.model.eval()
    with torch.inference_mode():
        logits_BxN = theirs.logits(torch_inputs(batch)[0]).numpy()
    return float(abs(np.asarray(ours.logits(batch)) - logits_BxN).max())


def copy_exit(module: TorchExit, params: Params) -> None:
    """Our exit's parameters into PyTorch's."""
    with torch.no_grad():
        for name, leaves in params.items():
            linear: Any = getattr(module, name)
            linear.weight.copy_(torch.from_numpy(np.array(leaves["kernel"]).T))
            if "bias" in leaves:
                linear.bias.copy_(torch.from_numpy(np.array(leaves["bias"])))


if __name__ == "__main__":
    end_with(main)
