"""The baseline beside every table: TF-IDF and a linear SVM on the same texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastbert_jax.errors import needs_extra
from fastbert_jax.text.examples import Example

# Texts without a blank in this share of characters are in a script that is written without them.
BLANKS_BETWEEN_WORDS = 0.05


def tfidf_svm_accuracy(train: Sequence[Example], test: Sequence[Example]) -> float:
    """Accuracy on `test` of a linear SVM trained on `train`: words and word pairs, or 1-3 characters without blanks."""
    with needs_extra("train", "TF-IDF baseline"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC

    texts = [_joined(example) for example in train]
    if _has_words(texts):
        vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    else:
        vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer="char", ngram_range=(1, 3))
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # not one word in all of train: every text looks the same
        vectorizer = TfidfVectorizer(analyzer=lambda text: ["text", *text])
        features = vectorizer.fit_transform(texts)
    classifier = LinearSVC(random_state=0).fit(features, [example.label for example in train])
    answers = classifier.predict(vectorizer.transform([_joined(example) for example in test]))
    return sum(answer == example.label for answer, example in zip(answers, test, strict=True)) / len(test)


def _joined(example: Example) -> str:
    return example.text if isinstance(example.text, str) else " ".join(example.text)


def _has_words(texts: Sequence[str]) -> bool:
    characters = sum(map(len, texts))
    blanks = sum(len(re.findall(r"\s+", text)) for text in texts)
    return characters == 0 or blanks / characters >= BLANKS_BETWEEN_WORDS
