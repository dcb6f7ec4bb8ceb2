"""Makes checkpoints and answers of the official FastBERT, by its own code. Needs torch and more; the tests do not.

    pip install torch==2.13.0 thop==0.1.1.post2209072238 && pip install --no-deps fastbert==0.2.2
    python tests/golden/make_official_golden.py run_fastbert.py ENGLISH.tsv CHINESE.tsv

run_fastbert.py is that of github.com/autoliuweijie/FastBERT at 15fae97; its UER modules are taken from the package. The
others are any texts, one a line in the last column under a header: here the test splits of the movie reviews and of the
official repository's Book review. A model of 3 layers has weights of -1, 0 and 1 times a scale, which compress. Writes,
beside this file:

- `official.tar.xz`: the checkpoints `package.bin` (by the package), `script.bin` (by the script, after thop has
  counted) and `backbone.bin` (in PyTorch's form before 1.6), and their `vocab.txt`;
- `official.npz`: texts, their tokens, the logits of every exit, and labels and executed layers at every speed.
"""

from __future__ import annotations

import collections
import io
import json
import sys
import tarfile
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import fastbert  # its import puts the modules of UER on the path
import fastbert.config
import numpy as np
import thop
import torch
from fastbert.uer.utils.tokenizer import BertTokenizer

HERE = Path(__file__).parent
SIZES = {"emb_size": 64, "hidden_size": 64, "feedforward_size": 96, "heads_num": 4, "layers_num": 3, "dropout": 0.1}
LENGTH = 48
LABELS = ["bad", "fair", "good"]
SPEEDS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TEXTS, PAIRS, CHARACTERS = 250, 60, 24
"""Texts of each language, pairs of them, and the characters that a Chinese text keeps."""
TOKENS = 300
"""Tokens of each language in the vocabulary, beside the letters."""
SPREAD = 2.0
"""Standard deviation of an exit's logits over the texts."""
TIE = 1e-5
"""No uncertainty is so near a speed that rounding could decide."""


def read_texts(path: str) -> list[str]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[-1] for line in lines][:TEXTS]


def make_vocabulary(path: Path, languages: dict[str, list[str]]) -> None:
    """The most frequent tokens of each language, after special tokens in their official places and a line of none."""
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", ""]
    tokens += [form for letter in "abcdefghijklmnopqrstuvwxyz" for form in (letter, f"##{letter}")]
    for file, texts in languages.items():
        tokenizer = BertTokenizer(Namespace(vocab_path=str(Path(fastbert.config.FILES_DIR) / file)))
        counts = collections.Counter(token for text in texts for token in tokenizer.tokenize(text))
        new = [
            token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if token not in tokens
        ]
        tokens += new[:TOKENS]
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")


def make_package(directory: Path) -> Any:
    """The package's model, all its weights random."""
    names = ("vocab_path", "pretrained_model_path", "pretrained_model_md5", "pretrained_model_url")
    settings = {"embedding": "bert", "encoder": "bert", "pooling": "first", "pretrained_model_url_bak": ""}
    settings |= dict.fromkeys(names, "") | {"vocab_path": str(directory / "vocab.txt")} | SIZES
    (directory / "mini.json").write_text(json.dumps(settings))
    fastbert.config.MODEL_CONFIG_FILE["mini"] = str(directory / "mini.json")
    model = fastbert.FastBERT("mini", labels=LABELS, seq_length=LENGTH, device="cpu", is_load=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            set_weights(name, parameter)
    return model.eval()


def set_weights(name: str, parameter: torch.Tensor) -> None:
    if name.startswith("kernel.target.") or name.endswith("nothing"):
        parameter.zero_()
    elif parameter.ndim == 1:
        parameter.normal_(1.0 if name.endswith("gamma") else 0.0, 0.2)
    else:
        scale = 1.0 if "embedding" in name else parameter.shape[1] ** -0.5
        scale *= 2.0
        parameter.copy_(torch.randint(-1, 2, parameter.shape) * scale)
    if name.endswith("position_embedding.weight"):
        parameter[LENGTH:] = 0


@torch.no_grad()
def make_answers_differ(model: Any, ids: np.ndarray, segments: np.ndarray) -> None:
    """Move and stretch the logits of random exits, which say much the same of every text."""
    logits = torch.from_numpy(exit_logits(model, model.kernel, ids, segments))
    for number, classifier in enumerate(model.classifiers):
        stretch = SPREAD / logits[:, number].std(0).mean()
        classifier.output_layer_2.weight *= stretch
        classifier.output_layer_2.bias.sub_(logits[:, number].mean(0)).mul_(stretch)


def make_script(module: Any, package: Any) -> Any:
    """The script's model with the package's weights."""
    arguments = Namespace(labels_num=len(LABELS), speed=0.5, pooling="first", **SIZES)
    model = module.FastBertClassifier(arguments, package.kernel)
    model.classifiers.load_state_dict(package.classifiers.state_dict())
    return model.eval()


def script_tokens(tokenizer: Any, vocab: Any, text: str | list[str]) -> tuple[list[int], list[int]]:
    """Tokens and segments as `read_dataset` inside the script's `main` has them, before padding."""
    if isinstance(text, str):
        tokens = [101, *map(vocab.get, tokenizer.tokenize(text))]
        return tokens[:LENGTH], [1] * len(tokens[:LENGTH])
    first, second = ([*map(vocab.get, tokenizer.tokenize(part)), 102] for part in text)
    return [101, *first, *second][:LENGTH], ([1] * (1 + len(first)) + [2] * len(second))[:LENGTH]


def padded(numbers: list[list[int]]) -> np.ndarray:
    return np.array([row + [0] * (LENGTH - len(row)) for row in numbers])


@torch.no_grad()
def hidden_states(kernel: Any, ids: np.ndarray, segments: np.ndarray) -> torch.Tensor:
    """`[layers + 1, batch, length, hidden]`."""
    states = [kernel.embedding(torch.from_numpy(ids), torch.from_numpy(segments))]
    for layer in kernel.encoder.transformer:
        states.append(layer(states[-1], mask_of(segments)))
    return torch.stack(states)


def mask_of(segments: np.ndarray) -> torch.Tensor:
    seen = torch.from_numpy(segments > 0).float()[:, None, None]
    return (1.0 - seen) * -10000.0


@torch.no_grad()
def exit_logits(model: Any, kernel: Any, ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Of every exit, `[batch, layers, classes]`."""
    states, mask = hidden_states(kernel, ids, segments)[1:], mask_of(segments)
    return torch.stack([part(hidden, mask) for part, hidden in zip(model.classifiers, states, strict=True)], 1).numpy()


def package_answers(model: Any, texts: list[str]) -> np.ndarray:
    """Label and executed layers, `[speeds, texts, 2]`."""
    answers = [[model(text, speed=speed) for text in texts] for speed in SPEEDS]
    return np.array([[(LABELS.index(label), layers) for label, layers in at] for at in answers], np.int8)


@torch.no_grad()
def script_answers(model: Any, ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The same by the script, text by text as it evaluates; a layer ran each time that it asked who goes on."""
    asked, ask = [], model._difficult_samples_idxs
    model._difficult_samples_idxs = lambda *inputs: asked.append(None) or ask(*inputs)
    answers = np.zeros((len(SPEEDS), len(ids), 2), np.int8)
    for place, speed in enumerate(SPEEDS):
        model.threshold = speed
        for row in range(len(ids)):
            asked.clear()
            _, logits = model(torch.from_numpy(ids[[row]]), None, torch.from_numpy(segments[[row]]), fast=True)
            answers[place, row] = logits.argmax(1).item(), len(asked)
    del model._difficult_samples_idxs
    return answers


def check_no_ties(logits: np.ndarray) -> None:
    probabilities = torch.softmax(torch.from_numpy(logits).double(), -1)
    uncertainty = (torch.distributions.Categorical(probs=probabilities).entropy() / np.log(len(LABELS))).numpy()
    nearest = min(np.abs(uncertainty - speed).min() for speed in SPEEDS[1:-1])
    if nearest < TIE or uncertainty.min() < TIE or uncertainty.max() > 1 - TIE:
        raise RuntimeError(f"expected no ties, found an uncertainty at {nearest}; take another seed")


def main(script: str, english: str, chinese: str) -> None:
    torch.manual_seed(0)
    texts = [*read_texts(english), *(text[:CHARACTERS] for text in read_texts(chinese))]
    languages = {"google_uncased_en_vocab.txt": texts[:TEXTS], "google_zh_vocab.txt": texts[TEXTS:]}
    sizes = np.random.default_rng(0).integers(1, 160, (PAIRS, 2))
    pairs = [[texts[7 * i][: int(a)], texts[7 * i + 3][: int(b)]] for i, (a, b) in enumerate(sizes)]
    sys.path.insert(0, str(Path(script).parent))
    import run_fastbert

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_vocabulary(directory / "vocab.txt", languages)
        package = make_package(directory)
        encoded = [package._convert_to_id_and_mask(text) for text in texts]
        ids, segments = (np.array(part) for part in zip(*encoded, strict=True))
        make_answers_differ(package, ids, segments)
        both = [script_tokens(package.tokenizer, package.vocab, text) for text in [*texts, *pairs]]
        script_ids, script_segments = (padded(list(part)) for part in zip(*both, strict=True))
        model = make_script(run_fastbert, package)
        # A pair that is not cut is framed as UER's BERTs were trained: [CLS] a [SEP] b [SEP].
        pair = next(row for row in range(len(texts), len(both)) if 0 in script_segments[row])
        np.savez_compressed(
            HERE / "official.npz",
            texts=json.dumps(texts),
            pairs=json.dumps(pairs),
            speeds=SPEEDS,
            package_ids=ids.astype(np.int16),
            package_segments=segments.astype(np.int8),
            package_logits=exit_logits(package, package.kernel, ids, segments),
            package_answers=package_answers(package, texts),
            script_ids=script_ids.astype(np.int16),
            script_segments=script_segments.astype(np.int8),
            script_logits=exit_logits(model, model, script_ids, script_segments),
            script_answers=script_answers(model, script_ids, script_segments),
            backbone_pair=pair - len(texts),
            backbone_hidden=hidden_states(package.kernel, script_ids[[pair]], script_segments[[pair]])[:, 0].numpy(),
        )
        package.save_model(directory / "package.bin")
        torch.save(package.kernel.state_dict(), directory / "backbone.bin", _use_new_zipfile_serialization=False)
        check_no_ties(exit_logits(model, model, script_ids, script_segments))
        thop.profile(model, (torch.from_numpy(ids[:1]), None, torch.from_numpy(segments[:1]), True), verbose=False)
        run_fastbert.save_model(model, directory / "script.bin")
        with tarfile.open(HERE / "official.tar.xz", "w:xz", preset=9) as archive:
            for file in ("vocab.txt", "package.bin", "script.bin", "backbone.bin"):
                content = (directory / file).read_bytes()
                entry = tarfile.TarInfo(file)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
