"""All that a run needs before its first step: texts, tokenizer, architecture, pretrained weights, batches."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from fastbert_jax import processes
from fastbert_jax.config import BertConfig, TrainConfig, UnlabelledPhaseConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import info, progress_bar
from fastbert_jax.model.config_json import code_notes, read_bert_config
from fastbert_jax.model.sharding import check_batch, local_rows, param_shardings
from fastbert_jax.model.weights import check_token_types, check_vocabulary
from fastbert_jax.text.corpora import PreparedCorpus, TextStream, is_corpus, open_corpus
from fastbert_jax.text.data_warnings import corpus_notes, language_notes
from fastbert_jax.text.examples import Example
from fastbert_jax.text.labelled_data import LabelledData, grouped, label_ids, read_labelled_data
from fastbert_jax.text.tokenizer import Encoded, Tokenizer, load_tokenizer, train_tokenizer
from fastbert_jax.text.training_batches import Batches, StreamedBatches, TrainingBatches
from fastbert_jax.training.recipe import RANDOM, Recipe, RecipeModule, World, pretrained_weights
from fastbert_jax.training.run_directory import REJECTED
from fastbert_jax.training.terms import KEPT

MANY = 10**9
"""Texts of a corpus."""
Texts = Encoded | PreparedCorpus | TextStream
"""Where a phase's texts are."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """All that training needs, before the first parameter is made."""

    settings: TrainConfig
    """Those given, with what was left to the texts and the backbone, and what the recipe sets."""
    task: LabelledData
    tokenizer: Tokenizer
    recipe: Recipe
    batches: dict[str, Batches]
    """By phase name: `TrainingBatches` or `StreamedBatches`, which have one interface."""
    dev: Encoded
    dev_labels: np.ndarray
    test_labels: np.ndarray
    test_groups: dict[str, list[str]]
    """The value of every test text in each column of `evaluate.by`."""
    notes: tuple[str, ...]
    """What was found, guessed, cut and left out, in sentences."""
    data: dict[str, str]
    """Number and checksum of each set of texts that touches training."""

    @property
    def config(self) -> BertConfig:
        """The architecture of the network that is trained."""
        return self.recipe.network.config


def prepare(config: TrainConfig, mesh: Mesh, module: RecipeModule) -> Prepared:
    """Read texts, look at the weights, make the recipe, lay out the batches. Writes nothing.

    Raises:
      UserError: anything that cannot be used, found before the first step.
    """
    if config.data.train and processes.is_first():
        info(f"reading {config.data.train}")
    task = read_labelled_data(config.data, by=config.evaluate.by)
    test_groups = grouped(task.test, config.evaluate.by, option="--evaluate.by")
    pretrained = pretrained_weights(config.model.pretrained)
    width = read_bert_config(pretrained).hidden_size if pretrained else config.model.hidden_size
    # A corpus is many texts, whose number may be unknown.
    unlabelled_texts = MANY if is_corpus(config.data.unlabelled) else len(task.unlabelled)
    given, config = config, config.chosen(train=len(task.train), unlabelled=unlabelled_texts, width=width).resolved
    tokenizer = _tokenizer(config, task, pretrained)
    recipe = module.make(config, World(task.labels, tokenizer))
    _check_sizes(config, recipe, tokenizer, mesh)

    def encode(examples: Sequence[Example], name: str) -> Encoded:
        texts = [example.text for example in examples]
        if processes.is_first():
            info(f"tokenising {len(texts):,} {name} texts")
        with progress_bar("tokenise", total=len(texts), unit="texts", hidden=not processes.is_first()) as advance:
            encoded = tokenizer.encode(
                texts, max_length=config.data.max_length, on_texts=lambda count: advance(count, name)
            )
        for start in recipe.starts.values():
            check_token_types(encoded.token_types, start.network.config)
        return encoded

    labelled, dev = encode(task.train, "train"), encode(task.dev, "dev")
    data = {name: _fingerprint(getattr(task, name)) for name in ("train", "dev", "unlabelled")}
    unlabelled: Texts
    if is_corpus(config.data.unlabelled):
        unlabelled = _corpus(config, recipe, tokenizer)
        data["unlabelled"] = unlabelled.fingerprint
    else:
        unlabelled = labelled if task.unlabelled is task.train else encode(task.unlabelled, "unlabelled")
    texts: dict[str, Texts] = {"train": labelled, "dev": dev, "unlabelled": unlabelled}
    labels = label_ids(task.train, task.labels)
    batches = _batches(config, recipe, labelled, labels, unlabelled, encode=tokenizer.encode, mesh=mesh)
    return Prepared(
        settings=config,
        task=task,
        tokenizer=tokenizer,
        recipe=recipe,
        batches=batches,
        dev=dev,
        dev_labels=label_ids(task.dev, task.labels),
        test_labels=label_ids(task.test, task.labels),
        test_groups=test_groups,
        notes=(
            *(code_notes(pretrained) if pretrained else ()),
            *tokenizer.notes,
            *_notes_on_choices(given, recipe, width),
            *_notes(config, task, tokenizer, texts),
            *_notes_on_batches(recipe, batches),
        ),
        data=data,
    )


def _check_sizes(config: TrainConfig, recipe: Recipe, tokenizer: Tokenizer, mesh: Mesh) -> None:
    for phase in recipe.phases:
        check_batch(mesh, phase.settings)
    check_vocabulary(tokenizer.vocab_size, recipe.network.config)
    for name, start in recipe.starts.items():
        positions = start.network.config.max_positions
        if config.data.max_length > positions:
            raise UserError(
                f"--data.max-length: expected at most the {'backbone' if name == 'model' else name}'s {positions} "
                f"positions, found {config.data.max_length}"
            )
        param_shardings(mesh, start.network)  # whether the mesh divides the model
        start.check()


def _corpus(config: TrainConfig, recipe: Recipe, tokenizer: Tokenizer) -> PreparedCorpus | TextStream:
    steps = {
        f"{phase.settings.SECTION}.steps": phase.settings.steps
        for phase in recipe.phases
        if isinstance(phase.settings, UnlabelledPhaseConfig)
    }
    corpus = open_corpus(config.data, tokenizer, steps=steps)
    for phase in recipe.phases:
        if KEPT in phase.cases and isinstance(corpus, TextStream):
            raise UserError(
                f"--{phase.name}.cache-teacher: expected texts that have numbers, those of a file or of prepared:DIR, "
                f"found {config.data.unlabelled}; python -m fastbert_jax.text.prepare makes a prepared:DIR of them"
            )
    return corpus


def _tokenizer(config: TrainConfig, task: LabelledData, pretrained: Path | None) -> Tokenizer:
    if pretrained is not None:
        return load_tokenizer(pretrained)
    examples = task.train if task.unlabelled is task.train else [*task.train, *task.unlabelled]
    texts = ([example.text] if isinstance(example.text, str) else example.text for example in examples)
    return train_tokenizer(itertools.chain.from_iterable(texts), vocab_size=config.model.vocab_size)


def _batches(
    config: TrainConfig,
    recipe: Recipe,
    labelled: Encoded,
    labels: np.ndarray,
    unlabelled: Texts,
    *,
    encode: Callable[..., Encoded],
    mesh: Mesh,
) -> dict[str, Batches]:
    batches: dict[str, Batches] = {}
    for index, phase in enumerate(recipe.phases):
        settings = phase.settings
        shared: dict[str, Any] = {
            "batch_size": settings.batch_size,
            "buckets": config.data.lengths,
            "seed": config.seed + index,
            "local_rows": local_rows(mesh, settings.batch_size),
        }
        if not isinstance(settings, UnlabelledPhaseConfig):
            batches[phase.name] = TrainingBatches(labelled, labels, epochs=settings.epochs, **shared)
            continue
        shared |= {"steps": settings.steps, "pack": settings.pack, "texts_per_row": settings.texts_per_row}
        if isinstance(unlabelled, TextStream):
            batches[phase.name] = StreamedBatches(
                functools.partial(iter, unlabelled),
                functools.partial(encode, max_length=config.data.max_length),
                window=config.data.shuffle_window,
                **shared,
            )
        else:
            batches[phase.name] = TrainingBatches(unlabelled, None, epochs=settings.epochs, **shared)
    return batches


def _notes(config: TrainConfig, task: LabelledData, tokenizer: Tokenizer, encoded: Mapping[str, Texts]) -> list[str]:
    notes = [*task.notes]
    if config.model.pretrained != RANDOM:
        notes += language_notes([example.text for example in task.train], tokenizer)
    if task.rejected:
        count, first = len(task.rejected), task.rejected[0]
        notes.append(
            f"{count} row{'s' * (count > 1)} left out, because they could not be read; the first: {first.where}: "
            f"{first.problem}; {REJECTED} in the run's directory lists them all"
        )
    for name, texts in encoded.items():
        if texts is encoded["train"] and name != "train":
            continue
        if isinstance(texts, TextStream):
            notes += texts.notes(tokenizer, max_length=config.data.max_length)
            continue
        if isinstance(texts, PreparedCorpus):
            notes += texts.manifest.notes
        max_length = texts.max_length if isinstance(texts, PreparedCorpus) else config.data.max_length
        if texts.truncated_texts:
            notes.append(
                f"{texts.truncated_texts} of {len(texts)} {name} texts have more than {max_length} tokens: "
                f"{texts.truncated_tokens} tokens were cut off; a higher --data.max-length keeps more of them"
            )
        if isinstance(texts, Encoded):
            unknown = int(tokenizer.wholly_unknown(texts).sum())
            notes += corpus_notes(len(texts), unknown=unknown, what=f"{name} texts")
    return notes


def _notes_on_choices(given: TrainConfig, recipe: Recipe, width: int) -> Iterator[str]:
    """The epochs and learning rates that the settings left open, and how to set others."""
    for phase in recipe.phases:
        now, option = phase.settings, f"--{phase.settings.SECTION.replace('_', '-')}"
        before = getattr(given, now.SECTION, now)  # a user's recipe may make settings of its own
        if before.epochs != now.epochs and not getattr(now, "steps", 0):
            yield f"{phase.name}: {now.epochs} epochs, by the number of its texts; {option}.epochs sets others"
        if before.learning_rate != now.learning_rate:
            rate = f"{now.learning_rate:g}, by the backbone's width of {width}"
            yield f"{phase.name}: learning rate {rate}; {option}.learning-rate sets another"


def _notes_on_batches(recipe: Recipe, batches: Mapping[str, Batches]) -> Iterator[str]:
    for name, made in batches.items():
        if isinstance(made, TrainingBatches) and made.words:
            yield f"{name}: {made.words}"
    for phase in recipe.phases:
        if KEPT in phase.cases and len(batches[phase.name]) <= batches[phase.name].batches_per_epoch:
            yield f"{phase.name}: its steps end with its first epoch, so --{phase.name}.cache-teacher saves nothing"


def _fingerprint(examples: Sequence[Example]) -> str:
    """Number and checksum of texts and labels, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.text, example.label)).encode("utf-8"))
    return f"{len(examples)} texts, sha256 {digest.hexdigest()}"
