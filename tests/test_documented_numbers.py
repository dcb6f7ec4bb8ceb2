"""Every measured number of README.md and docs/ is that of a committed result file: sentences are made of them again.

`docs/fidelity.md` has tests/test_fidelity.py, `docs/scaling.md`, which is computed, tests/test_scaling.py.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fastbert_jax.config import BertConfig
from fastbert_jax.report import tables
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.exit_path import ExitPath, PathStep, rendered
from fastbert_jax.report.flops import distillation_flops
from tests.pages import FENCED, PAGES, ROOT, prose

RESULTS = ROOT / "benchmarks" / "results"
TESTED_ELSEWHERE = ("docs/fidelity.md", "docs/scaling.md")
MEASURED = re.compile(r"\d+\.\d+|\d+(?= ?%| times)")
NOT_MEASURED = {
    "README.md": ["3.11", "0.5"],
    "docs/explanation/early_exit.md": ["2.8", "1.4"],  # computed: tests/report/test_flops.py
    "docs/howto/calibrate.md": ["5"],  # what --confidence promises
    "docs/howto/one_text.md": ["127.0", "0.1"],
    "docs/launch/gke.md": ["0.6"],
    "docs/launch/virtual_machines.md": ["3.11", "3.10", "4.4"],
    "docs/official_models.md": ["1.6", "0.2", "0.4", "0.6", "0.8"],
    "docs/tutorial.md": ["3.11", "0.9"],
}
"""Versions, settings, addresses."""
ENGINES = ("bucketed", "cascade", "graph-cascade")
MINILM = BertConfig(vocab_size=30522, hidden_size=384, num_layers=6, num_heads=12, feed_forward_size=1536)


@functools.cache
def result(name: str) -> dict[str, Any]:
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def words_of(page: Path) -> str:
    """A page in one line."""
    return " ".join(page.read_text(encoding="utf-8").split())


def table_of(name: str) -> list[str]:
    """The lines that `infer.py compare` printed beside a committed comparison."""
    return tables.render(Comparison.from_json(result(name))).splitlines()


def path_of(name: str) -> list[str]:
    """The lines that `infer.py explain` printed beside a committed path."""
    found = result(name)
    names = [field.name for field in dataclasses.fields(PathStep)]
    steps = tuple(PathStep(**{name: layer[name] for name in names}) for layer in found["layers"])
    path = ExitPath(text=found["text"], pair=None, steps=steps, exit_layer=found["exit_layer"])
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as captured:
        console.print(rendered(path))
    return [line.rstrip() for line in captured.get().splitlines()]


def row_at(name: str, *, speed: float, mode: str = "cascade") -> dict[str, Any]:
    """A row of a committed comparison."""
    (size,) = result(name)["batch_sizes"]
    return next(row for row in size["rows"] if (row["mode"], row["speed"]) == (mode, speed))


def accuracies() -> Iterator[str]:
    for texts, config, speed in (
        ("Reuters R8", "reuters_r8", 0.3),
        ("movie reviews", "movie_reviews", 0.25),
        ("book review, Chinese, random weights", "book_review_zh", 0.8),
    ):
        name = f"early_exit_{config}"
        full, early = row_at(name, speed=0, mode="full depth"), row_at(name, speed=speed)
        yield (
            f"| {texts} | `configs/{config}.yaml` | {full['accuracy']:.4f} | {early['accuracy']:.4f} at speed {speed} "
            f"| {early['mean_depth']:.2f} of {early['layers']} | {result(name)['baseline_accuracy']:.4f} |"
        )


def efficiencies() -> Iterator[str]:
    copies, once, base = (result(f"engine_efficiency{of}") for of in ("_movie_reviews_copies", "", "_bert_base"))
    yield (
        f"| engine | movie reviews four times over, depth {copies['mean_depth']:.2f} of {copies['layers']} | the same "
        f"by tokens | movie reviews once | random BERT-base, depth {base['mean_depth']:.1f} of {base['layers']} |"
    )
    for engine in ENGINES:
        found = copies["engines"][engine]
        others = [of["engines"][engine]["efficiency"] for of in (once, base)]
        cells = [found["efficiency"], found["efficiency_by_tokens"], *others]
        yield f"| `{engine}` | {' | '.join(f'{cell:.2f}' for cell in cells)} |"
    noises = [f"{of['noise'] * 100:.0f}" for of in (copies, once, base)]
    yield f"varied by {noises[0]}, {noises[1]} and {noises[2]} % in the three runs"
    by_tokens = copies["mean_depth_of_tokens"]
    yield (
        f"a text's mean depth is {by_tokens:.2f}, and an engine that loses nothing would have "
        f"{copies['mean_depth'] / by_tokens:.2f} in the first column"
    )


def range_of_efficiencies() -> str:
    found = [
        engine["efficiency"]
        for name in ("", "_movie_reviews_copies", "_bert_base")
        for engine in result(f"engine_efficiency{name}")["engines"].values()
    ]
    return f"the engines deliver {min(found):.2f} to {max(found):.2f} in wall-clock time"


def of_pytorch() -> tuple[str, str]:
    """Our share of PyTorch's time on MiniLM and on BERT-base."""
    ours = [1 / case["torch_over_ours"]["median"] for case in result("peer_full_depth")["cases"].values()]
    assert f"{ours[0]:.2f}" == f"{ours[1]:.2f}", "in both sizes of a batch"
    return f"{ours[0]:.2f}", f"{ours[-1]:.2f}"


def training() -> Iterator[str]:
    ratios = result("peer_fine_tuning")["torch_over_ours"]
    same, dynamic = ratios["fixed over fixed"], ratios["dynamic over buckets"]
    yield f"Fine-tuning takes {1 / same['median']:.2f} of the time of a PyTorch loop on the same batches"
    yield f"`--model.unroll 6`; {1 / same['high']:.2f} to {1 / same['low']:.2f})"
    yield f"length buckets {1 / dynamic['median']:.2f} of the time of PyTorch"
    found = result("distillation")
    speeds = [found["cases"][model]["backbone_over_step"]["median"] for model in ("MiniLM", "BERT-base")]
    yield f"A step of distillation runs at {speeds[0]:.2f} of the speed of the backbone's forward pass alone on MiniLM"
    yield f"and at {speeds[1]:.2f} on BERT-base"
    buckets, padded = (
        found["texts"]["layouts"][layout]["packed_is_faster_by"]["median"]
        for layout in ("length buckets", "one text a row of 128")
    )
    yield f"take {buckets:.1f} times less time than length buckets for the same texts, and {padded:.1f} times less"


def packing() -> Iterator[str]:
    layouts = result("distillation")["texts"]["layouts"]
    yield f"rows of 128 tokens with {layouts['packed']['real_token_share']:.0%} real tokens"
    padded = layouts["one text a row of 128"]["packed_is_faster_by"]["median"]
    yield f"{padded:.1f} times as much of everything"


def cost_of_exits() -> str:
    minilm, base = (
        result("exits_cost")[model]["over_full_depth"]["one program"]["median"] for model in ("trained", "random")
    )
    return (
        f"Exits that nobody leaves by cost {minilm - 1:.0%} of MiniLM's time and {base - 1:.0%} of BERT-base's".replace(
            "%", " %"
        )
    )


def flops_with_a_known_teacher() -> str:
    saved = distillation_flops(MINILM, 128) / distillation_flops(MINILM, 128, teacher_known=True)
    return f"of {MINILM.num_layers} layers, {saved:.2f} times fewer FLOPs a step"


def masked() -> Iterator[tuple[str, str]]:
    rows = [row for row in result("early_exit_reuters_r8")["batch_sizes"][0]["rows"] if row["mode"] == "masked"]
    times, flops = ([row[key] for row in rows] for key in ("speedup", "paper_speedup"))
    medians = [time["median"] for time in times]
    on_paper = f"{min(flops):.1f} to {max(flops):.1f}"
    yield "engines", f"{min(medians):.2f} to {max(medians):.2f} of its speed in the table of `make demo`"
    yield "engines", f"In FLOPs on paper it is {on_paper} times faster"
    yield "flops_and_time", f"{on_paper} times fewer FLOPs on paper"


def many_classes() -> Iterator[str]:
    policies = result("many_classes")["policies"].values()
    tests = [policy["test"] for policy in policies]

    def span(values: list[float], digits: int) -> str:
        return f"{min(values):.{digits}f} to {max(values):.{digits}f}"

    yield f"leave after {span([test['mean_depth'] for test in tests], 2)} of 6 layers on test"
    yield f"with {span([test['accuracy'] for test in tests], 4)} accuracy"
    (full,) = {f"{test['full_accuracy']:.4f}" for test in tests}
    yield f"(full depth {full}) and {span([policy['speedup']['median'] for policy in policies], 1)} times faster"
    yield f"here {span([policy['threshold'] for policy in policies], 1)}, not the policy"


def memory_of_the_input() -> Iterator[str]:
    ways = result("input_memory")["ways"]
    packed, buckets = (ways[way]["looks"][-1]["real_tokens"] * 100 for way in ("prepared, packed", "prepared"))
    yield f"{packed:.1f} % of what it holds of 100,000 texts of 32 words are real tokens, {buckets:.1f} % in length"
    held = [look["peak_bytes"] / 1e6 for look in ways["in memory"]["looks"]]
    yield f"grows from {held[0]:.0f} to {held[1]:.0f} MB when it holds the texts"
    growth = [
        (way["looks"][-1]["peak_bytes"] - way["looks"][0]["peak_bytes"]) / 1e6
        for name, way in ways.items()
        if name not in ("nothing", "in memory")
    ]
    yield f"and by {min(growth):.0f} to {max(growth):.0f} of 250 MB when they are prepared or streamed"


def texts_of_other_domains() -> Iterator[tuple[str, str]]:
    found = result("unlabelled_texts")
    few, many = ([run for run in found["runs"] if run["texts"] == texts] for texts in ("few", "many"))
    rows = list(zip(few, many, strict=True))
    for one, other in rows:
        cells = [f"{run['accuracy']:.4f} | {run['mean_depth']:.2f}" for run in (one, other)]
        yield "unlabelled_texts", f"| {one['seed']} | {cells[0]} | {cells[1]} |"
    means = [
        [np.mean([run[key] for run in runs]) for key in ("accuracy", "mean_depth", "mean_accuracy_of_students")]
        for runs in (few, many)
    ]
    yield "unlabelled_texts", "| mean | " + " | ".join(f"{mean[0]:.4f} | {mean[1]:.2f}" for mean in means) + " |"
    yield "unlabelled_texts", f"by {(means[1][0] - means[0][0]) * 100:.1f} points on average"
    error = np.sqrt(means[1][0] * (1 - means[1][0]) / 1056) * 100
    yield "unlabelled_texts", f"one standard error of an accuracy on these 1,056 texts is {error:.1f} points"
    yield "unlabelled_texts", f"({means[0][2]:.4f} and {means[1][2]:.4f} on average over the five)"
    speeds = [sorted({run["speed"] for run in runs}) for runs in (few, many)]
    yield "unlabelled_texts", f"the speed that gives this depth is {speeds[0][0]}; taught by many"
    yield "unlabelled_texts", f"and it is {speeds[1][0]} to {speeds[1][-1]:.2f}"
    yield "unlabelled_texts", f"`configs/movie_reviews.yaml` ({few[0]['accuracy_of_exits'][-1]:.4f} on test)"
    assert found["texts"] == {"few": 846, "many": 13098}
    yield "unlabelled_texts", f"whose mean depth on dev is nearest to {found['settings']['depth']}"
    yield "unlabelled_texts", f"each seen some {300 * 16 * 5 // 846} times"
    yield "early_exit", f"{speeds[0][0]} is then what {np.median([run['speed'] for run in many])} is to a student"
    yield "unlabelled", f"{means[1][0]:.3f} against {means[0][0]:.3f} at the same mean depth on the movie reviews"


def parity() -> str:
    """By how much our logits differ from the official package's at most, in words."""
    cases = result("peer_official_parity")["cases"].values()
    largest = max(max(case["largest_difference_of_logits_by_exit"]) for case in cases)
    assert all(
        speed["other_labels"] == speed["other_layers"] == 0 for case in cases for speed in case["speeds"].values()
    )
    return f"{np.ceil(largest * 1e7) / 10}e-6 of the largest"


def claims() -> Iterator[tuple[str, str]]:
    """The name of a page, and what it says."""
    for page in ("README", "results"):
        yield from ((page, row) for row in accuracies())
    yield "README", range_of_efficiencies()
    minilm, base = of_pytorch()
    yield "README", f"took {minilm} of the time of PyTorch's BERT on MiniLM and {base} on BERT-base"
    yield "results", f"took {minilm} of the time of PyTorch's BERT (sdpa) on the same batches of MiniLM, and {base} on"
    yield from (("engines", words) for words in efficiencies())
    yield from masked()
    yield from (("results", words) for words in training())
    yield from ((page, cost_of_exits()) for page in ("results", "early_exit"))
    yield from (("calibrate", words) for words in many_classes())
    yield from (("unlabelled", words) for words in memory_of_the_input())
    yield "unlabelled", flops_with_a_known_teacher()
    yield from texts_of_other_domains()
    yield "official_models", f"differ by at most {parity()}"
    yield "fidelity", f"logits within {parity()}"
    yield from (("scaling", words) for words in packing())


CLAIMS = list(claims())


def page_of(name: str) -> Path:
    """The page of a name; README is the repository's."""
    (page,) = (page for page in PAGES if page == ROOT / "README.md" or page.name != "README.md" if page.stem == name)
    return page


@pytest.mark.parametrize(("name", "words"), CLAIMS)
def test_a_page_says_what_was_measured(name: str, words: str) -> None:
    assert words in words_of(page_of(name))


@pytest.mark.parametrize(
    ("name", "first", "printed"),
    [
        ("README", "mode ", table_of("early_exit_reuters_r8")),
        ("measure", "mode ", table_of("early_exit_batch_sizes")),
        ("one_text", "layer ", path_of("explained_movie_review")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_page_shows_what_was_printed(name: str, first: str, printed: list[str]) -> None:
    blocks = FENCED.findall(page_of(name).read_text(encoding="utf-8"))
    (shown,) = (body.splitlines() for _, _, body in blocks if body.startswith(first))
    assert len(shown) > 5 and [line for line in shown if line not in printed] == []


def test_the_tutorials_answer_is_the_demos() -> None:
    blocks = FENCED.findall(page_of("tutorial").read_text(encoding="utf-8"))
    (shown,) = (json.loads(body) for _, language, body in blocks if language == "json")
    answers = [json.loads(line) for line in (RESULTS / "demo_answers.jsonl").read_text(encoding="utf-8").splitlines()]
    shown_probabilities = shown.pop("probabilities")
    (answer,) = (answer for answer in answers if shown.items() <= answer.items())
    assert shown_probabilities.items() <= answer["probabilities"].items()


@pytest.mark.parametrize(
    "name", [name for page in PAGES if (name := str(page.relative_to(ROOT))) not in TESTED_ELSEWHERE]
)
def test_no_other_number_is_told(name: str) -> None:
    page = ROOT / name
    left = " ".join(prose(page).split())
    for own, words in CLAIMS:
        if page_of(own) == page:
            left = left.replace(words, "")
    left = re.sub(r"`[^`]*`|\]\([^)]*\)", "", left)
    assert [number for number in MEASURED.findall(left) if number not in NOT_MEASURED.get(name, [])] == []


@pytest.mark.parametrize(
    ("config", "name", "speed"),
    [
        ("demo", "reuters_r8", 0.3),
        ("reuters_r8", "reuters_r8", 0.3),
        ("movie_reviews", "movie_reviews", 0.25),
        ("book_review_zh", "book_review_zh", 0.8),
    ],
)
def test_a_configs_score_is_what_was_measured(config: str, name: str, speed: float) -> None:
    lines = (ROOT / "configs" / f"{config}.yaml").read_text(encoding="utf-8").splitlines()
    head = " ".join(" ".join(line.lstrip("# ") for line in lines if line.startswith("#")).split())
    full = row_at(f"early_exit_{name}", speed=0, mode="full depth")
    early = row_at(f"early_exit_{name}", speed=speed)
    assert f"test accuracy {full['accuracy']:.4f} at full depth" in head
    same = "the same" if early["accuracy"] == full["accuracy"] else f"{early['accuracy']:.4f}"
    assert f"{same} at speed {speed}, mean depth {early['mean_depth']:.2f} of {early['layers']}" in head
