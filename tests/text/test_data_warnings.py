"""Each oddity of the texts gives one warning with its numbers and what to do; clean texts give none."""

from __future__ import annotations

import pytest

from fastbert_jax.config import DataConfig
from fastbert_jax.text.data_warnings import data_warnings, language_notes
from fastbert_jax.text.examples import Example
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import Tokenizer, load_tokenizer


def examples(*rows: tuple[str, object], name: str = "train.csv") -> list[Example]:
    return [Example(text, label, f"{name}:{number}") for number, (label, text) in enumerate(rows, start=2)]


TRAIN = examples(*[(label, f"text {label} {i}") for i in range(5) for label in "ab"])
DEV = examples(("a", "dev text"), name="dev.csv")
TEST = examples(("b", "test text"), name="test.csv")


def told(train=TRAIN, dev=DEV, test=TEST, labels=("a", "b")) -> list[str]:
    return data_warnings({"train": train, "dev": dev, "test": test}, labels)


def test_nothing_is_said_of_texts_that_are_in_order():
    assert told() == []
    assert told(dev=TRAIN, test=TRAIN) == []


def test_texts_that_train_knows():
    test = examples(("a", "new"), ("b", " TEXT  b 0\n"), ("a", "Text a 4"), ("b", "other"), name="test.csv")
    (note,) = told(test=test)
    assert note == (
        "2 of 4 (50.0 %) test texts are in train too, blanks and case aside; the first: test.csv:3 and train.csv:3. "
        "The model is measured on texts it has seen: remove them from one of the two"
    )
    assert [note[:28] for note in told(dev=test, test=test)] == ["2 of 4 (50.0 %) dev texts ar"]
    pair = examples(("a", ("One", "two")))
    assert "1 of 1 (100.0 %) dev texts are in train" in told(TRAIN + pair, dev=examples(("b", ("one", "two ")))[:1])[0]


def test_one_text_with_two_labels():
    twice = TRAIN + examples(("b", "Text a 0"), ("b", "text a 0"), name="more.csv")
    assert told(twice) == [
        "1 train text has more than one label; the first is 'a' at train.csv:2 and 'b' at more.csv:2. No model can "
        "give both: keep the right one"
    ]


def test_empty_texts_of_every_part():
    dev = examples(("a", " \t"), ("b", "x"), ("a", ("", " ")), name="dev.csv")
    assert told(dev=dev) == [
        "2 of 3 (66.7 %) dev texts are empty; the first: dev.csv:2. They all get one answer: remove them, or check "
        "--data.text-column"
    ]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"a": 49, "b": 5}, ["90.7 %) train texts are 'a'"]),
        ({"a": 44, "b": 5}, []),
        ({"a": 50, "b": 5, "c": 30}, ["'a', has 50 train texts, the smallest, 'b', 5. Accuracy"]),
        ({"a": 6, "b": 4, "c": 3}, ["2 of 3 classes have fewer than 5 train texts: 'c' (3), 'b' (4). They"]),
        ({"a": 5, "b": 5, "c": 0}, ["1 of 3 classes have fewer than 5 train texts: 'c' (0). They"]),
        (dict.fromkeys("abcdefghij", 1), [", ".join(f"{label!r} (1)" for label in "abcdefgh") + " and 2 more. They"]),
    ],
)
def test_sizes_of_classes(sizes, words):
    train = examples(*[(label, f"{label} {i}") for label, size in sizes.items() for i in range(size)])
    notes = told(train, labels=tuple(sizes))
    assert len(notes) == len(words)
    for note, expected in zip(notes, words, strict=True):
        assert expected in note and ": " in note


GERMAN = """
Die Lieferung kam drei Tage zu spät und der Karton war beschädigt.
Ich habe die Rechnung bereits überwiesen, aber keine Bestätigung erhalten.
Der Kundendienst hat mir freundlich und schnell geholfen.
Leider funktioniert die Waschmaschine seit gestern nicht mehr.
Bitte kündigen Sie meinen Vertrag zum nächstmöglichen Zeitpunkt.
Das Hotelzimmer war sauber, doch das Frühstück ließ zu wünschen übrig.
Wann wird die Straßenbahnlinie wieder bis zum Hauptbahnhof fahren?
Die Bundesregierung hat gestern ein neues Gesetz beschlossen.
Der Film ist spannend, die Schauspieler überzeugen auf ganzer Linie.
Mein Passwort wird nicht angenommen, obwohl ich es zurückgesetzt habe.
Im zweiten Halbjahr stieg der Umsatz um zwölf Prozent.
Die Mannschaft verlor das Auswärtsspiel kurz vor Schluss.
Können Sie mir bitte die Gebrauchsanweisung zuschicken?
Das Gerät ist sehr leise und verbraucht wenig Strom.
Für diesen Preis hätte ich eine bessere Verarbeitung erwartet.
Die Aufführung wurde wegen Krankheit kurzfristig abgesagt.
Nach dem Unwetter blieben viele Haushalte ohne Strom.
Ich würde dieses Produkt jederzeit wieder kaufen.
Der Antrag muss bis Ende des Monats eingereicht werden.
Die Wohnung liegt ruhig und hat einen großen Balkon.
Unsere Bestellung wurde ohne Begründung storniert.
Das Ergebnis der Untersuchung liegt noch nicht vor.
Wegen Bauarbeiten ist die Brücke für den Verkehr gesperrt.
Der Verlag veröffentlicht im Herbst ihren ersten Roman.
Die Anmeldung auf der Webseite dauert nur wenige Minuten.
Ein Mitarbeiter rief mich am nächsten Morgen zurück.
Der Akku hält kaum länger als einen halben Tag.
Die Forscher untersuchten das Verhalten junger Zugvögel.
Zum Nachtisch gab es warmen Apfelstrudel mit Vanillesoße.
Ich bin mit der Beratung sehr zufrieden.
""".strip().split("\n")


@pytest.fixture(scope="module")
def minilm(minilm_directory) -> Tokenizer:
    return load_tokenizer(minilm_directory)


@pytest.fixture(scope="module")
def english() -> list[str]:
    return [example.text for example in read_examples("builtin:reuters_r8#dev", DataConfig(), need_label=True).examples]


def test_texts_of_the_tokenizers_language_are_not_told(minilm, english, tokenizer):
    marked = ["Well, it's not - I think - what we'd call \"good\"; 10 of 10!", *english]  # marks are words of their own
    for texts in (english, marked, english[:20], [(text, text) for text in english], [""]):
        assert language_notes(texts, minilm) == []


def test_texts_of_another_language_are_told_with_what_to_do(minilm, english):
    (note,) = language_notes(GERMAN, minilm)
    assert "it cuts a word into 2.2 pieces on average (English: 1.1 to 1.2). Take a backbone" in note
    assert "google-bert/bert-base-multilingual-cased" in note
    for start in range(0, 30, 10):
        assert language_notes(GERMAN[start : start + 10], minilm)
    assert language_notes(GERMAN + [text[:60] for text in english[:20]], minilm)  # 3 of 5 are German
    (note,) = language_notes(["\u8fd9\u90e8\u7535\u5f71\u5f88\u597d\u770b"], minilm)
    assert int(note.split("texts: it does not know ")[1].split()[0]) > 50
    assert language_notes([(text, text) for text in GERMAN], minilm) == language_notes(GERMAN, minilm)
