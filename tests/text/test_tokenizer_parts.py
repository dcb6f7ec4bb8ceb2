"""Kinds of `tokenizer.json`: the ids of each file are ours, before and after saving; what cannot work is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from fastbert_jax.errors import UserError
from fastbert_jax.text.tokenizer import Tokenizer, load_tokenizer

CASES = Path(__file__).parent / "tokenizers"
WORDS = "the film is good bad not a it was don ' t don't e - mail caf cafe é 书 好 这 本 x y user covid ##s ##y".split()
LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLMR = ["<s>", "<pad>", "</s>", "<unk>"]
BERT_TEMPLATE = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
TWO_SEPARATORS = "<s> $A </s>", "<s> $A </s> </s> $B </s>"
TEXTS = [
    "the film is good",
    "Don't E-MAIL the naïve café ﬁlm, it was NOT bad!",
    "这本书好 good书",
    "",
    "the [E1]film[/E1] is @USER covid19",
    "tabs\tand  blanks, a-b_c 3.5€ extraordinarily",
    ("the film is good", "it was not bad"),
    ("the film", ""),
    ("[E1] 好", "covid19 the"),
]


def numbered(*tokens: str) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def framed(backend: Backend, template: tuple[str, str], special: list[str]) -> Backend:
    """The tokenizer with special tokens and a template of them."""
    backend.add_special_tokens(special)
    tokens = [(name, backend.token_to_id(name)) for name in special]
    backend.post_processor = processors.TemplateProcessing(*template, tokens)
    return backend


def bert(*words: str, special: list[str] = BERT, **settings: bool) -> Backend:
    """BERT's tokenizer of these words."""
    backend = Backend(models.WordPiece(numbered(*special, *words), unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(**settings)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return framed(backend, BERT_TEMPLATE, special)


def own_parts() -> Backend:
    backend = bert(*WORDS, "café", "film,")
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex("[0-9]+"), "x")]
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def extended() -> Backend:
    backend = bert(*WORDS, *LETTERS)
    backend.add_special_tokens([AddedToken("[E1]", rstrip=True), "[/E1]", "@USER"])
    backend.add_tokens(["covid19"])
    return backend


def another_prefix() -> Backend:
    vocabulary = numbered(*BERT, *WORDS, *LETTERS, *(f"@@{letter}" for letter in LETTERS))
    backend = bert()
    backend.model = models.WordPiece(
        vocabulary, unk_token="[UNK]", max_input_chars_per_word=6, continuing_subword_prefix="@@"
    )
    return backend


def mpnet() -> Backend:
    special = [*XLMR, "[UNK]", "<mask>"]
    backend = bert(*WORDS, *LETTERS, special=[*special, *BERT[2:4]])
    return framed(backend, TWO_SEPARATORS, special)


def byte_level(special: list[str]) -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([" ".join(WORDS)], trainer)
    return backend


def roberta() -> Backend:
    backend = byte_level([*XLMR, "<mask>"])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def gpt() -> Backend:
    special = ["<|class|>", "<|end|>"]
    backend = framed(byte_level(special), ("<|class|> $A <|end|>", "<|class|> $A <|end|> $B <|end|>"), special)
    backend.post_processor = processors.Sequence([processors.ByteLevel(), backend.post_processor])
    return backend


def unigram(special: list[str], *, unknown: int) -> Backend:
    pieces = ["▁", *(f"▁{word}" for word in WORDS), *LETTERS, *"ABé书好'-,!", *"這本<>/[]"]
    pieces += {"C", "L", "S"} - {*pieces}
    scores = [(token, 0.0) for token in special] + [(piece, -2 - number / 9) for number, piece in enumerate(pieces)]
    backend = Backend(models.Unigram(scores, unk_id=unknown))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend


def xlmr() -> Backend:
    return framed(unigram(XLMR, unknown=3), TWO_SEPARATORS, [*XLMR, "<mask>"])


def albert() -> Backend:
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    backend = framed(unigram(special, unknown=1), BERT_TEMPLATE, special)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    return backend


def word_level() -> Backend:
    backend = Backend(models.WordLevel(numbered(*BERT, *WORDS, "NOT", "[E1]"), unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return framed(backend, BERT_TEMPLATE, BERT)


def old_bpe() -> Backend:
    """Of whole characters, with a sign for a word's end and an unknown token; it can make <s> of its characters."""
    merges = [("<", "s"), ("<s", ">"), ("g", "o"), ("go", "o"), ("goo", "d</w>"), ("th", "e</w>"), ("t", "h")]
    vocabulary = numbered(*XLMR, *LETTERS, *(f"{letter}</w>" for letter in LETTERS), *map("".join, merges), *"<>'-")
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return framed(backend, TWO_SEPARATORS, XLMR)


KINDS: dict[str, Callable[[], Backend]] = {
    "BERT uncased": lambda: bert(*WORDS, *LETTERS),
    "BERT cased": lambda: bert(*WORDS, *LETTERS, "Don", "E", "NOT", "MA", "##IL", lowercase=False),
    "BERT Chinese": lambda: bert(*WORDS, "##书", handle_chinese_chars=True),
    "BERT with accents": lambda: bert(*WORDS, "café", "na", "##ïve", strip_accents=False),
    "own parts": own_parts,
    "extended": extended,
    "another prefix": another_prefix,
    "MPNet": mpnet,
    "RoBERTa": roberta,
    "XLM-R": xlmr,
    "ALBERT": albert,
    "GPT": gpt,
    "words": word_level,
    "BPE": old_bpe,
}


def saved(backend: Backend, directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    return directory


def encoded(tokenizer: Tokenizer, text: str | tuple[str, str], max_length: int = 99) -> tuple[list[int], list[int]]:
    found = tokenizer.encode([text], max_length=max_length)
    return found.token_ids.tolist(), found.token_types.tolist()


def from_file(directory: Path, text: str | tuple[str, str]) -> tuple[list[int], list[int]]:
    backend = Backend.from_file(str(directory / "tokenizer.json"))
    found = backend.encode(text) if isinstance(text, str) else backend.encode(*text)
    return found.ids, found.type_ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_those_of_the_file_before_and_after_saving(tmp_path, kind):
    directory = saved(KINDS[kind](), tmp_path / "model")
    tokenizer = load_tokenizer(directory)
    tokenizer.save(tmp_path / "saved", max_length=16)
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint and again.vocab_size == tokenizer.vocab_size
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert theirs.model_max_length == 16
    for text in TEXTS:
        expected = from_file(directory, text)
        assert encoded(tokenizer, text) == encoded(again, text) == expected, text
        assert encoded(pickle.loads(pickle.dumps(tokenizer)), text) == expected
        if isinstance(text, str) or "" not in text:  # in a pair, which transformers does not see then
            found = theirs(*([text] if isinstance(text, str) else text))
            types = found.get("token_type_ids", [0] * len(expected[1]))
            assert (found["input_ids"], types) == expected, text


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_framing_tokens_in_a_text_are_text(tmp_path, kind):
    tokenizer = load_tokenizer(saved(KINDS[kind](), tmp_path))
    frame = encoded(tokenizer, "")[0]
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    names = [*BERT, *XLMR, "<mask>", "<|class|>", "<|end|>"]
    unknown = {backend.token_to_id(name) for name in ("[UNK]", "<unk>")}
    special = {backend.token_to_id(name) for name in names} - unknown - {None}
    for name in names:
        ids, _ = encoded(tokenizer, f"{name} good{name}bad {name}{name}")
        assert (ids[:1], ids[-1:]) == (frame[:1], frame[-1:]) and not special & {*ids[1:-1]}, name


@pytest.mark.parametrize("kind", KINDS)
def test_any_frame_stays_around_a_text_that_is_cut(tmp_path, kind):
    tokenizer = load_tokenizer(saved(KINDS[kind](), tmp_path))
    for text in ("good " * 30, ("good " * 30, "bad " * 20)):
        whole, cut = encoded(tokenizer, text, 400), encoded(tokenizer, text, 12)
        assert len(cut[0]) == len(cut[1]) == 12
        special = [token for token in whole[0] if token in tokenizer._special]
        assert [token for token in cut[0] if token in tokenizer._special] == special
        assert {*cut[1]} == {*whole[1]}
        found = tokenizer.encode([text], max_length=12)
        assert (found.truncated_texts, found.truncated_tokens) == (1, len(whole[0]) - 12)


@pytest.mark.parametrize("case", json.loads((CASES / "expected.json").read_text("utf-8")))
def test_files_of_models_that_were_read_wrongly(case):
    tokenizer = load_tokenizer(CASES / case)
    for expected in json.loads((CASES / "expected.json").read_text("utf-8"))[case]:
        text = expected["text"] if isinstance(expected["text"], str) else tuple(expected["text"])
        assert encoded(tokenizer, text) == (expected["ids"], expected["token_types"])


def test_a_fingerprint_tells_frames_and_markers_apart(tmp_path):
    plain, other_frame, marker, ordinary = (bert(*WORDS) for _ in range(4))
    framed(other_frame, (BERT_TEMPLATE[0], "[CLS] $A [SEP] [SEP] $B [SEP]"), BERT)
    marker.add_special_tokens(["good"])
    ordinary.add_tokens([AddedToken("good", normalized=False)])
    found = [
        load_tokenizer(saved(backend, tmp_path / str(number))).fingerprint
        for number, backend in enumerate([plain, other_frame, marker, ordinary])
    ]
    assert len({*found}) == 4


def test_the_files_own_truncation_and_padding_do_not_count(tmp_path):
    backend = bert(*WORDS)
    backend.enable_truncation(4)
    backend.enable_padding(length=32)
    assert encoded(load_tokenizer(saved(backend, tmp_path)), "good film is bad")[0].count(2) == 1
    assert len(encoded(load_tokenizer(tmp_path), "good film is bad")[0]) == 6


def test_a_template_without_pairs_takes_single_texts_only(tmp_path):
    backend = bert(*WORDS)
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = load_tokenizer(saved(backend, tmp_path))
    assert encoded(tokenizer, "good") == from_file(tmp_path, "good")
    with pytest.raises(UserError, match="expected single texts, found a pair: the post_processor in .*tokenizer.json"):
        tokenizer.encode(["good", ("good", "bad")], max_length=16)


def no_frame() -> Backend:
    backend = bert(*WORDS)
    backend.post_processor = None
    return backend


def frame_of_another_vocabulary() -> Backend:
    backend = bert(*WORDS)
    backend.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return backend


def class_at_the_end() -> Backend:
    return framed(bert(*WORDS), ("$A [SEP] [CLS]", "$A [SEP] $B [SEP] [CLS]"), BERT)


def cased_behind_lowercase() -> Backend:
    return bert(*WORDS, *(word.title() for word in WORDS), "US")


def cased_bytes_behind_lowercase() -> Backend:
    backend = framed(byte_level(XLMR), TWO_SEPARATORS, XLMR)
    backend.train_from_iterator(
        ["The Film IS Good AND The Bad Film IS Not"] * 9,
        trainers.BpeTrainer(vocab_size=330, special_tokens=XLMR, show_progress=False),
    )
    backend.normalizer = normalizers.Lowercase()
    return backend


def other_pre_tokenizer() -> Backend:
    backend = bert(*WORDS)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend


def no_unknown(model: str) -> Callable[[], Backend]:
    def make() -> Backend:
        vocabulary = numbered("[PAD]", "[CLS]", "[SEP]", *WORDS)
        backend = Backend(
            models.Unigram([(token, -1.0) for token in vocabulary])
            if model == "Unigram"
            else getattr(models, model)(vocabulary, unk_token="[UNK]")
        )
        return framed(backend, BERT_TEMPLATE, ["[CLS]", "[SEP]"])

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_frame, r"frames a text as BERT does, \[CLS\] text \[SEP\], found one that gives 'text'"),
        (class_at_the_end, r"found one that gives 'text \[SEP\] \[CLS\]'"),
        (frame_of_another_vocabulary, r"found the ids \[101, 102\], which are of no token"),
        (bert, "expected a vocabulary, found nothing but special tokens"),
        (cased_behind_lowercase, r"changes \d+ of \d+, such as 'The' to 'the', .*turn lower-casing off"),
        (cased_bytes_behind_lowercase, r"found one that changes \d+ of \d+, .*turn lower-casing off"),
        (
            lambda: bert(*WORDS, "été", "père", "naïf", "où"),
            r"found one that changes \d+ of \d+, .* set strip_accents to false",
        ),
        (other_pre_tokenizer, r"found one that does not know \d+ of \d+, such as 'the': its parts do not belong"),
        (no_unknown("WordPiece"), r"expected a vocabulary with \[UNK\], .* found none"),
        (no_unknown("WordLevel"), r"expected a vocabulary with \[UNK\], .* found none"),
        (no_unknown("Unigram"), r"expected a vocabulary with an unknown token \(unk_id\), .* found none"),
    ],
)
def test_what_cannot_give_a_model_its_tokens_is_refused(tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        load_tokenizer(saved(make(), tmp_path))
