"""The tokenizer: BERT's framing, truncation, special tokens as text, and a vocabulary of our own."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.config import TextForm
from fastbert_jax.errors import UserError
from fastbert_jax.text.tokenizer import (
    cut_at_end,
    cut_longest_first,
    load_tokenizer,
    train_tokenizer,
    vocabulary_tokenizer,
)

CHINESE = ["这本书很好看", "一本无聊的书，不好看！", "good 书"]
ENGLISH = ["The movie was good.", "The movie was bad, really bad.", "a good, good book"]


@pytest.fixture(scope="module")
def minilm(minilm_directory):
    return load_tokenizer(minilm_directory)


def one(tokenizer, text, max_length=128):
    encoded = tokenizer.encode([text], max_length=max_length)
    return encoded.token_ids.tolist(), encoded.token_types.tolist()


def test_texts_and_pairs_are_framed_as_bert_does(minilm):
    encoded = minilm.encode(["Hello World", "", ("hello", "world world"), ("", "")], max_length=128)
    assert encoded.token_ids.tolist() == [
        *[101, 7592, 2088, 102],
        *[101, 102],
        *[101, 7592, 102, 2088, 2088, 102],
        *[101, 102, 102],
    ]
    assert encoded.token_types.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1]
    assert encoded.offsets.tolist() == [0, 4, 6, 12, 15] and encoded.lengths.tolist() == [4, 2, 6, 3]
    assert len(encoded) == 4 and (encoded.truncated_texts, encoded.truncated_tokens) == (0, 0)
    assert (encoded.token_ids.dtype, encoded.token_types.dtype, encoded.offsets.dtype) == (np.int32, np.int32, np.int64)


def test_equal_to_transformers_on_texts_and_pairs(minilm, minilm_directory):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(minilm_directory), local_files_only=True)
    for text in ["naïve CAFÉ, it's 3.5€", "我爱北京", ("who's there?", "nobody — really")]:
        texts = (text,) if isinstance(text, str) else text
        expected = theirs(*texts)
        assert one(minilm, text) == (expected["input_ids"], expected["token_type_ids"])


def test_special_tokens_in_a_text_are_text(minilm):
    ids, _ = one(minilm, "a [SEP] b [CLS] [MASK]")
    assert ids.count(102) == 1 and ids.count(101) == 1 and 103 not in ids


def test_cuts_are_counted_in_texts_and_tokens(minilm):
    encoded = minilm.encode(["a b c d e f g h", "a b", ("a b c d e f g h", "x y z"), ("a b c", "x y z")], max_length=8)
    assert encoded.lengths.tolist() == [8, 4, 8, 8]
    assert (encoded.truncated_texts, encoded.truncated_tokens) == (3, 2 + 6 + 1)
    assert encoded.token_ids[encoded.offsets[:-1]].tolist() == [101] * 4
    assert encoded.token_ids[encoded.offsets[1:] - 1].tolist() == [102] * 4


def test_the_length_asked_for_counts_and_not_the_one_in_the_tokenizers_own_file(minilm):
    encoded = minilm.encode(["good " * 300], max_length=256)
    assert (encoded.lengths.tolist(), encoded.truncated_tokens) == ([256], 46)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_pairs_are_cut_as_in_the_original_token_by_token(first, second, room):
    expected = [first, second]
    while sum(expected) > room:
        expected[0 if expected[0] > expected[1] else 1] -= 1
    assert cut_longest_first([first, second], room) == expected
    assert cut_longest_first([first], room) == [min(first, room)]


@pytest.mark.parametrize("text", [None, 5, b"a", ["a", "b"], ("a",), ("a", None), "a\ud800"])
def test_what_is_no_text_is_refused_with_its_number(minilm, text):
    with pytest.raises(UserError, match=r"texts\[1\]: expected .*found"):
        minilm.encode(["good", text], max_length=16)


def test_many_texts_come_out_one_by_one_in_order(minilm):
    texts = [("a", "b c") if i % 3 == 0 else "word " * (i % 7) for i in range(2500)]
    together = minilm.encode(texts, max_length=16)
    for i in (0, 1023, 1024, 2047, 2048, 2499):
        alone = minilm.encode([texts[i]], max_length=16)
        start, end = together.offsets[i : i + 2]
        np.testing.assert_array_equal(together.token_ids[start:end], alone.token_ids)
        np.testing.assert_array_equal(together.token_types[start:end], alone.token_types)
    assert len(minilm.encode([], max_length=16)) == 0


def test_the_vocabulary_reaches_to_the_highest_id(minilm, tiny_bert_directory):
    assert minilm.vocab_size == 30522
    tiny = load_tokenizer(tiny_bert_directory)
    assert tiny.vocab_size == 34
    assert one(tiny, "the good")[0] == [2, 31, 32, 3]


def test_a_saved_tokenizer_is_the_same_and_splits_special_tokens(tmp_path, minilm):
    minilm.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    for text in ["a [SEP] b", ("long " * 600, "x"), "我"]:
        assert one(loaded, text, 512) == one(minilm, text, 512)
    assert loaded.vocab_size == minilm.vocab_size


def test_the_fingerprints_of_usual_tokenizers_are_those_of_older_versions(minilm, tokenizer, tiny_bert_directory):
    found = [minilm, tokenizer, load_tokenizer(tiny_bert_directory)]
    found.append(vocabulary_tokenizer(tiny_bert_directory / "vocab.txt", text_form=TextForm.OFFICIAL))
    assert [tokenizer.fingerprint for tokenizer in found] == [
        "f64d60ceb84f4f4f694522a1191c779efea452dabbbc029d249fa010839b4944",
        "81066022da39f8d76e53d4ac1bd377e60b29dfede0c6dd56c069a7dd7004962c",
        "8b6bc99167f3c6a83fb56c8afe73c5ddc7b4278e32f573b71269668d6625efa2",
        "d6791dcdc57d72a1ce501f8443d17a852325690b523e0267bdaaf4c2cef5f45a",
    ]


def test_a_learnt_vocabulary_knows_its_texts_in_chinese_and_english(tmp_path):
    tokenizer = train_tokenizer(iter(CHINESE + ENGLISH), vocab_size=120)
    assert tokenizer.vocab_size <= 120
    unknown = 1
    for text in CHINESE + ENGLISH:
        assert unknown not in one(tokenizer, text)[0]
    assert len(one(tokenizer, "这本书")[0]) == 5  # a token for each Chinese character
    assert one(tokenizer, "龘")[0] == [2, unknown, 3]
    assert one(tokenizer, "GOOD") == one(tokenizer, "good")
    assert one(tokenizer, ("书", "好"))[1] == [0, 0, 0, 1, 1]
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.vocab_size == tokenizer.vocab_size
    for text in [*CHINESE, "really [SEP] good", ("a", "b")]:
        assert one(loaded, text) == one(tokenizer, text)


@pytest.mark.parametrize("size", [6, 12, 40])
def test_a_learnt_vocabulary_is_never_larger_than_asked_and_always_the_same(size):
    texts = [f"{word}{word[::-1]} {word}" for word in "alpha beta gamma delta epsilon zeta eta theta".split()] + CHINESE
    first, second = (train_tokenizer(texts, vocab_size=size) for _ in range(2))
    assert first.vocab_size == second.vocab_size <= size
    for text in texts:
        assert one(first, text) == one(second, text)


def test_messages(tmp_path):
    with pytest.raises(UserError, match=r"expected a tokenizer \(tokenizer\.json or vocab\.txt\) in .*, found none"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ', encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"expected a tokenizer in .*, found one that does not load: "):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"model\.vocab_size: expected more than the 5 special tokens, found 5"):
        train_tokenizer(["a"], vocab_size=5)


@pytest.mark.parametrize("kind", ["BertTokenizer", "StrangeTokenizer"])
@pytest.mark.parametrize("model", ["bert", "strange"])
def test_code_that_a_directory_brings_is_not_run_and_it_is_said(tmp_path, tokenizer_directory, kind, model):
    for path in tokenizer_directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    mark, maps = tmp_path / "mark", {"AutoTokenizer": ["code.T", "code.T"], "AutoConfig": "code.T"}
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w')\nclass T: pass\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model, "auto_map": maps}))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": kind, "auto_map": maps}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    assert one(tokenizer, "oil") == one(load_tokenizer(tokenizer_directory), "oil") and not mark.exists()
    assert [note.partition(" names ")[2] for note in tokenizer.notes] == [
        "code of its own (auto_map), which is never run: the tokenizer is what tokenizer.json says"
    ]


def test_texts_that_are_wholly_unknown(tokenizer):
    texts = ["龘", "oil", "龘 龘", "oil 龘", "", ("龘", ""), ("龘", "oil")]
    known = tokenizer.wholly_unknown(tokenizer.encode(texts, max_length=16))
    assert known.tolist() == [True, False, True, False, False, True, False]
    assert tokenizer.wholly_unknown(tokenizer.encode([], max_length=16)).tolist() == []


def test_loading_says_nothing_and_needs_neither_pytorch_nor_transformers(minilm_directory):
    code = f"from fastbert_jax.text.tokenizer import load_tokenizer; load_tokenizer({str(minilm_directory)!r})"
    code += "; import sys; assert not {'torch', 'transformers'} & {*sys.modules}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "", "书", "a  second word", "##s", "\u3000"]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


def test_a_vocabulary_is_read_as_uer_reads_it(vocabulary):
    """The first word of each line; a line without one counts too."""
    tokenizer = vocabulary_tokenizer(vocabulary, text_form=TextForm.BERT)
    assert tokenizer.vocab_size == len(VOCABULARY)
    assert one(tokenizer, "Góods书A 龘 ???6") == ([2, 5, 9, 7, 8, 1, 1, 1, 1, 1, 3], [0] * 11)


def test_the_official_form_has_no_sep_after_a_single_text_and_cuts_at_the_end(vocabulary):
    tokenizer = vocabulary_tokenizer(vocabulary, text_form=TextForm.OFFICIAL)
    assert one(tokenizer, "good 书") == ([2, 5, 7], [0, 0, 0])
    assert one(tokenizer, ("good 书", "书")) == ([2, 5, 7, 3, 7, 3], [0, 0, 0, 0, 1, 1])
    assert one(tokenizer, ("", "")) == ([2, 3, 3], [0, 0, 1])
    encoded = tokenizer.encode(
        ["good " * 9, ("good " * 3, "书 " * 3), ("书 " * 5, "a"), ("书 " * 9, "a")], max_length=8
    )
    assert encoded.token_ids.reshape(4, 8).tolist() == [
        [2, 5, 5, 5, 5, 5, 5, 5],
        [2, 5, 5, 5, 3, 7, 7, 7],
        [2, 7, 7, 7, 7, 7, 3, 8],
        [2, 7, 7, 7, 7, 7, 7, 7],
    ]
    assert encoded.token_types.reshape(4, 8).sum(1).tolist() == [0, 3, 1, 0]
    assert (encoded.truncated_texts, encoded.truncated_tokens) == (2, 2 + 0 + 0 + 3)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 30))
def test_cutting_at_the_end_keeps_what_stands_first(first, second, room):
    sizes = [1, first, 1, second, 1]
    whole, kept = (
        [*itertools.chain(*(name * size for name, size in zip("[a]b)", counts, strict=True)))]
        for counts in (sizes, cut_at_end(sizes, room))
    )
    assert kept == whole[:room]


def test_the_form_is_saved_with_the_tokenizer_and_part_of_its_fingerprint(vocabulary, tmp_path):
    forms = {form: vocabulary_tokenizer(vocabulary, text_form=form) for form in TextForm}
    assert forms[TextForm.BERT].fingerprint != forms[TextForm.OFFICIAL].fingerprint
    for form, tokenizer in forms.items():
        for directory in (tmp_path / form.value, tmp_path / f"{form.value} again"):
            tokenizer.save(directory)
            tokenizer = load_tokenizer(directory)
        assert tokenizer.text_form is form and tokenizer.fingerprint == forms[form].fingerprint
        for text in ("good 书", ("good", "书 [SEP]")):
            assert one(tokenizer, text) == one(forms[form], text)
    path = tmp_path / "official" / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"official"', '"other"'))
    with pytest.raises(
        UserError, match=r"config\.json: text_form: expected one of \['bert', 'official'\], found 'other'"
    ):
        load_tokenizer(tmp_path / "official")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[MASK]\ngood\n", r"found none of \['\[SEP\]'\] in it"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\na\n", "expected each token once, found 'a' again in line 8"),
        (b"\xff\xfe", "expected a vocabulary, one token a line, found no file of text"),
        (None, "expected a vocabulary, one token a line, found no file of text"),
    ],
)
def test_a_file_that_is_no_vocabulary(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        vocabulary_tokenizer(path, text_form=TextForm.OFFICIAL)


def test_a_text_beyond_any_length_is_cut_before_it_is_tokenised(tokenizer, monkeypatch):
    monkeypatch.setattr("fastbert_jax.text.tokenizer.MOST_CHARACTERS", 20)
    monkeypatch.setattr("fastbert_jax.text.examples.MOST_CHARACTERS", 20)
    monkeypatch.setattr("fastbert_jax.text.tokenizer.CHUNK_CHARACTERS", 30)
    texts = ["oil prices rose the oil prices fell", "oil", " " * 30 + "oil", ("oil " * 30, "bank"), "net profit", ""]
    sizes = []

    class Backend:
        def encode_batch_fast(self, parts, **settings):
            sizes.append(sum(map(len, parts)))
            return backend.encode_batch_fast(parts, **settings)

    backend = tokenizer._backend
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "_backend", Backend())
        found = tokenizer.encode(texts, max_length=128)
    assert len(sizes) > 1 and max(sizes) < 30 + 20
    expected = tokenizer.encode(
        [text[:20] if isinstance(text, str) else (text[0][:20], text[1]) for text in texts], max_length=128
    )
    for field in ("token_ids", "token_types", "offsets"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    assert (found.truncated_texts, expected.truncated_texts) == (3, 0)


def test_all_texts_are_told_while_they_are_tokenised(tokenizer):
    for count in (0, 1, 1024, 2500):
        told = []
        assert len(tokenizer.encode(["good"] * count, max_length=8, on_texts=told.append)) == count
        assert sum(told) == count and len(told) == -(-count // 1024)
