"""Whatever a YAML file holds, it gives settings or an error that names the place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert_jax.commands import train_arguments
from fastbert_jax.config_yaml import from_yaml, to_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.recipes import fastbert

LAUGHS = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: 2024-01-01", r"run: expected str, found datetime.date\(2024, 1, 1\); put it in quotes"),
        ("run: 2024-13-45", r"expected YAML, found month must be in 1\.\.12"),
        ("profile: 10:20", r"profile: expected str, found 620; put it in quotes"),
        ("data: {labels: [no, yes]}", r"data.labels: expected str, found False; put it in quotes"),
        (f"seed: {'9' * 400}", r"seed: expected a number of at most 64 bits, found 999"),
        (f"seed: {'9' * 5000}", r"expected YAML, found Exceeds the limit"),
        (f"seed: 0x{'f' * 5000}", r"seed: expected a number of at most 64 bits, found a int of many digits"),
        (f"fine_tune: {{learning_rate: {'9' * 400}}}", r"fine_tune.learning_rate: expected float, found 999"),
        ("fine_tune: {learning_rate: .inf}", r"fine_tune.learning_rate: expected a finite number, found inf"),
        ("fine_tune: {learning_rate: nan}", r"fine_tune.learning_rate: expected a finite number, found nan"),
        ("fine_tune: {learning_rate: 1e999}", r"fine_tune.learning_rate: expected a finite number, found inf"),
        ("fine_tune: {learning_rate: [1]}", r"fine_tune.learning_rate: expected float, found \[1\]"),
        ("evaluate: {speeds: 0.5}", r"evaluate.speeds: expected a list, found 0.5"),
        ("evaluate: {speeds: [.nan]}", r"evaluate.speeds: expected a finite number, found nan"),
        ("evaluate: {modes: [[masked]]}", r"evaluate.modes: expected one of \[.*\], found \['masked'\]"),
        ('run: "a\\0b"', r"run: expected a text without null characters, found 'a\\x00b'"),
        ('run: "\\ud800"', r"run: expected Unicode text, found '\\ud800'"),
        ("seed: 1\nseed: 2", r"expected YAML, found the key 'seed' twice\n  in .*line 2"),
        ("data: {train: a, train: b}", r"the key 'train' twice"),
        ("[]", r"expected `key: value` lines under 'the top level', found \[\]"),
        ("0", r"expected `key: value` lines under 'the top level', found 0"),
        ("data: text.csv", r"expected `key: value` lines under 'data.', found 'text.csv'"),
        ("? [1, 2]\n: 3", r"expected YAML, found while constructing a mapping"),
        ("1: 2", r"unknown key '1'; known: "),
        (f"{'k' * 900}: 1", r"unknown key 'k{90,}\.\.\.k+'; known: "),
        ("[" * 700, "expected YAML, found"),
        (LAUGHS, r"unknown key 'a'"),
        (f"run: {{{LAUGHS[:-1]}}}".replace("\n", ", "), r"run: expected str, found \{'a': \['x'\], 'b': \[\["),
        (MERGES, r"more than 10000 keys in one place|unknown key 'a'"),  # later versions of PyYAML merge each key once
        ("data: &a {labels: [*a]}", r"data.labels: expected str, found \{"),
        ("!!python/object/apply:os.system [true]", r"could not determine a constructor"),
    ],
)
def test_a_value_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        from_yaml(fastbert.Settings, path)
    assert len(str(error.value)) < 2000
    with pytest.raises(UserError):
        train_arguments(["--config", str(path)])


def test_parts_of_a_file_may_be_shared(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("fine_tune: &phase {epochs: 4, batch_size: 8}\ndistil: {<<: *phase, batch_size: 16}\n")
    found = from_yaml(fastbert.Settings, path)
    assert (found.distil.epochs, found.distil.batch_size, found.fine_tune.batch_size) == (4, 16, 8)
    path.write_text("# nothing\n")
    assert from_yaml(fastbert.Settings, path) == fastbert.Settings()


WORDS = (
    "~ null true no .inf -.inf .nan nan 1e999 0x1F 1_0 12:30 2024-01-01 2024-02-30 2024-01-01T99:00 - -- ? : {} [] [1] "
    "[[1]] {a: 1} &a *a <<: !!int !!float !!binary !!set !!timestamp % @ ` ' \" | > # , } ] \t --- ... gs://a/b"
).split(" ")
WORDS += [
    "9" * 400,
    "9" * 5000,
    "x" * 300,
    "~/x",
    "~nobody/x",
    '"\\0"',
    '"\\ud800"',
    "\u200b",
    "\x07",
    "\ufeff",
    "-1",
    "0",
]
LINES = to_yaml(fastbert.Settings()).splitlines()


@st.composite
def changed_files(draw: st.DrawFn) -> str:
    """The default settings with some values, keys and lines replaced, doubled, cut or moved."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        key, _, value = lines[at].partition(":")
        word = draw(st.sampled_from(WORDS) | st.text(max_size=5))
        kind = draw(st.integers(0, 6))
        lines[at] = [
            f"{key}: {word}",
            f"{key}: [{word}, {word}]",
            f"{key}: {{{word}: {word}}}",
            f"{word}:{value}",
            f"{lines[at]}\n{lines[at]}",
            lines[at][: draw(st.integers(0, 30))] + word,
            f"  {lines[at]}",
        ][kind]
    return "\n".join(lines)


@given(text=changed_files())
@settings(max_examples=300)
def test_a_file_with_changes_gives_settings_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = from_yaml(fastbert.Settings, path)
    except UserError as error:
        assert str(path) in str(error) and len(str(error)) < 4000
    else:
        assert isinstance(found, fastbert.Settings)
