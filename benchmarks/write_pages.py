"""Write the measured numbers of the pages from the committed results.

    make pages      (python benchmarks/write_pages.py)

A page marks where a table or a number goes, and a config where its score goes:

    <!-- table: NAME -->          a number in a sentence: <!-- number: NAME -->0.97<!-- end -->
    | ... |
    <!-- end -->

What stands between the markers is replaced. `tests/test_documented_numbers.py` fails when a page differs from what
this script writes, so a result that changes must be followed by `make pages`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compiled_tables
import corpus_tables
import numpy as np
from rich.console import Console

import scaling
from fastbert_jax.inference.explain import show
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.flops import distillation_flops
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render
from markdown_tables import at_the_same_speedup, markdown, span, table_3

ROOT = Path(__file__).parent.parent
RESULTS, STUDIES = ROOT / "benchmarks" / "results", ROOT / "docs" / "fidelity"
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
CONFIGS = tuple(sorted((ROOT / "configs").glob("*.yaml")))

TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
NUMBER = re.compile(r"(<!-- number: ([\w-]+) -->)(.*?)(<!-- end -->)")
SCORE = re.compile(r"(# table: ([\w-]+)\n)(.*?)(# end\n)", re.DOTALL)
AT_THE_START_OF_A_LINE = re.compile(r"^ *<!-- number: .*", re.MULTILINE)
"""GitHub would show such a line as HTML and end the paragraph."""


def main() -> None:
    """Rewrite all pages and configs, and list those that changed."""
    for path in (*PAGES, *CONFIGS):
        text = path.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(path.relative_to(ROOT))


def written(text: str) -> str:
    """A page or a config with every marked table and number replaced.

    Raises:
      ValueError: a number's marker begins a line, or a name is unknown.
    """
    if wrong := AT_THE_START_OF_A_LINE.search(text):
        raise ValueError(f"move the marker from the start of the line: {wrong[0]}")
    text = TABLE.sub(lambda found: f"{found[1]}\n{_made(TABLES, found[2])}\n\n{found[4]}", text)
    text = NUMBER.sub(lambda found: found[1] + _made(NUMBERS, found[2]) + found[4], text)
    return SCORE.sub(lambda found: found[1] + _made(SCORES, found[2]) + found[4], text)


def _made(known: dict[str, Callable[[], str]], name: str) -> str:
    if name not in known:
        raise ValueError(f"expected one of {sorted(known)}, found {name!r}")
    return known[name]()


@functools.cache
def result(name: str) -> Any:
    """A committed result of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


# Early exit on whole test sets.

SETS = {
    "reuters_r8": ("Reuters R8", 0.3),
    "movie_reviews": ("movie reviews", 0.25),
    "book_review_zh": ("book review, Chinese, random weights", 0.8),
}
"""By config: the name of the texts, and the speed that was chosen on dev."""


def row_at(name: str, *, speed: float, mode: str = "cascade") -> dict[str, Any]:
    """A row of a committed comparison."""
    (size,) = result(f"early_exit_{name}")["batch_sizes"]
    return next(row for row in size["rows"] if (row["mode"], row["speed"]) == (mode, speed))


def accuracy_cells(name: str) -> tuple[str, str, str, str]:
    """The accuracy at full depth and with early exit, the mean depth, and the accuracy of the baseline."""
    full, early = row_at(name, speed=0, mode="full depth"), row_at(name, speed=SETS[name][1])
    return (
        f"{full['accuracy']:.4f}",
        f"{early['accuracy']:.4f} at speed {early['speed']}",
        f"{early['mean_depth']:.2f} of {early['layers']}",
        f"{result(f'early_exit_{name}')['baseline_accuracy']:.4f}",
    )


def accuracies() -> str:
    """Accuracy at full depth and with early exit, for every config that was measured."""
    rows = [(texts, f"`configs/{name}.yaml`", *accuracy_cells(name)) for name, (texts, _) in SETS.items()]
    header = ("texts", "config", "full depth", "early exit", "mean depth", "TF-IDF + linear SVM")
    return markdown(header, rows, numbers_right=False)


def score(name: str) -> str:
    """The score that a config states."""
    full, early, depth, svm = accuracy_cells(name)
    return (
        f"#   Score      test accuracy {full} at full depth; {early}, mean depth {depth}\n"
        f"#              (TF-IDF + linear SVM: {svm}; benchmarks/results/early_exit_{name}.json)\n"
    )


def masked(key: Callable[[dict[str, Any]], float], form: str) -> str:
    """The range of a column of `masked` in the table of `make demo`."""
    rows = result("early_exit_reuters_r8")["batch_sizes"][0]["rows"]
    return span([key(row) for row in rows if row["mode"] == "masked"], form)


def printed_comparison(name: str) -> str:
    """What `infer.py compare` printed beside a committed comparison, without its notes."""
    comparison = Comparison.from_json(result(name))
    table, _, notes = render(comparison).partition(f"\n\n{comparison.texts} texts, ")
    return f"```\n{table}\n\n{notes[notes.index('Fastest mode') :]}\n```"


def printed_path() -> str:
    """What `infer.py explain` printed beside a committed path."""
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        show(result("explained_movie_review"), Console(file=io.StringIO(), width=120))
    lines = shown.getvalue().splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("layer"))
    return "\n".join(["```", *filter(None, lines[first:]), "```"])


def demo_answer() -> str:
    """The first answer of `make demo`, with its two most probable labels."""
    answer = json.loads((RESULTS / "demo_answers.jsonl").read_text(encoding="utf-8").splitlines()[0])
    most_probable = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:2]
    return f"```json\n{json.dumps(answer | {'probabilities': dict(most_probable)})}\n```"


# Time and memory.

EFFICIENCIES = ("engine_efficiency_movie_reviews_copies", "engine_efficiency", "engine_efficiency_bert_base")
ENGINES = ("auto", "bucketed", "cascade", "graph-cascade")


def efficiencies() -> str:
    """The efficiency of the engines, and the noise of each run."""
    copies, once, base = map(result, EFFICIENCIES)
    found = (copies, once, base)
    rows = []
    for engine in (name for name in ENGINES if all(name in of["engines"] for of in found)):
        first, *others = (f"{of['engines'][engine]['efficiency']:.2f}" for of in found)
        rows.append((f"`{engine}`", first, f"{copies['engines'][engine]['efficiency_by_tokens']:.2f}", *others))
    depths = [f"{of['mean_depth']:.2f} of {of['layers']}" for of in found]
    best = [f"{of['mean_depth'] / of['mean_depth_of_tokens']:.2f}" for of in found]
    by_tokens = copies["mean_depth_of_tokens"]
    rows += [
        ("an engine without any loss", best[0], "1.00", *best[1:]),
        ("mean depth", depths[0], f"{by_tokens:.2f} of {copies['layers']}", depths[1], depths[2]),
        ("noise: full depth against itself", *(f"{of['noise']:.0%}" for of in (copies, copies, once, base))),
    ]
    texts = ("movie reviews, four times over", "the same, weighted by tokens", "movie reviews, once")
    return markdown(("engine", *texts, "BERT-base, random weights"), rows, numbers_right=False)


def efficiency_of_auto() -> str:
    """The range of what `auto` gets; before it is measured, that of the engine that it picks for these inputs."""
    engines = [result(name)["engines"] for name in EFFICIENCIES]
    return span([engine.get("auto", engine["graph-cascade"])["efficiency"] for engine in engines], ".2f")


def ratios_of_times() -> str:
    """Full depth and fine-tuning over PyTorch; what distillation, padding and exits cost."""
    distil, tuning = result("distillation"), result("peer_fine_tuning")["torch_over_ours"]
    layouts, exits = distil["texts"]["layouts"], result("exits_cost")
    found = {
        "peer_full_depth": {
            f"full depth / PyTorch's BERT (sdpa), {name}": inverse(case["torch_over_ours"])
            for name, case in result("peer_full_depth")["cases"].items()
        },
        "peer_fine_tuning": {
            "fine-tuning / PyTorch, same batches, `--model.unroll 6`": inverse(tuning["fixed over fixed"]),
            "fine-tuning in length buckets / PyTorch padding to the longest text": inverse(
                tuning["dynamic over buckets"]
            ),
        },
        "distillation": {
            f"distillation step / backbone's forward pass, {name}": case["step_over_backbone"]
            for name, case in distil["cases"].items()
        }
        | {
            f"{layout} / packed rows of 128, same texts": layouts[layout]["packed_is_faster_by"]
            for layout in ("length buckets", "one text a row of 128")
        },
        "exits_cost": {
            f"{name} with all exits / without exits, all layers run": exits[kind]["over_full_depth"]["one program"]
            for name, kind in (("MiniLM", "trained"), ("BERT-base", "random"))
        },
    }
    rows = [
        (of, f"{ratio['median']:.2f}", span((ratio["low"], ratio["high"]), ".2f"), f"`benchmarks/results/{file}.json`")
        for file, ratios in found.items()
        for of, ratio in ratios.items()
    ]
    return markdown(("time / time", "median", "range", "result"), rows, numbers_right=False)


def inverse(ratio: dict[str, float]) -> dict[str, float]:
    """The median and range of 1 / ratio."""
    return {"median": 1 / ratio["median"], "low": 1 / ratio["high"], "high": 1 / ratio["low"]}


def cost_of_exits(kind: str) -> str:
    """The share of time that exits cost when no text exits early."""
    return f"{result('exits_cost')[kind]['over_full_depth']['one program']['median'] - 1:.0%}"


def policies() -> str:
    """Thresholds from `calibrate` on a set of many classes."""
    found = result("many_classes")["policies"]
    rows = [
        (
            *(f"`{name}`", f"{policy['threshold']:.2f}", f"{policy['test']['accuracy']:.4f}"),
            *(f"{policy['test']['mean_depth']:.2f}", f"{policy['speedup']['median']:.1f}x"),
        )
        for name, policy in found.items()
    ]
    (full,) = {f"{policy['test']['full_accuracy']:.4f}" for policy in found.values()}
    rows.append(("full depth", "", full, "6.00", "1.0x"))
    return markdown(("policy", "threshold", "test accuracy", "mean depth", "speedup"), rows)


def memory_of_the_input() -> str:
    """Memory of a process that makes batches, at both numbers of texts."""
    rows = []
    for way, found in result("input_memory")["ways"].items():
        if way != "nothing":
            first, last = found["looks"]
            sizes = [f"{look['peak_bytes'] / 1e6:.0f} MB" for look in (first, last)]
            rows.append((way, *sizes, f"{last['real_tokens']:.1%}"))
    return markdown(("texts", "10,000 texts", "100,000 texts", "real tokens"), rows)


# Unlabelled texts and agreement with others.


def runs_on(texts: str) -> list[dict[str, Any]]:
    """The runs of the experiment with unlabelled texts."""
    return [run for run in result("unlabelled_texts")["runs"] if run["texts"] == texts]


def mean(texts: str, key: str) -> float:
    """Over the seeds."""
    return float(np.mean([run[key] for run in runs_on(texts)]))


def other_domains() -> str:
    """Accuracy and depth by seed, with few texts of the task and with many of other domains."""
    keys = {"accuracy": ".4f", "mean_depth": ".2f", "mean_accuracy_of_students": ".4f"}
    pairs = list(zip(runs_on("few"), runs_on("many"), strict=True))
    rows = [
        [run["seed"], *(f"{one[key]:{form}}" for one in (run, other) for key, form in keys.items())]
        for run, other in pairs
    ]
    rows.append(["mean", *(f"{mean(texts, key):{form}}" for texts in ("few", "many") for key, form in keys.items())])
    columns = [
        f"{texts}: {column}" for texts in ("task", "others") for column in ("accuracy", "mean depth", "exits alone")
    ]
    return markdown(("seed", *columns), rows)


def parity() -> str:
    """The largest difference of logits from the official package's, relative to the largest logit."""
    cases = result("peer_official_parity")["cases"].values()
    speeds = [speed for case in cases for speed in case["speeds"].values()]
    if any(speed["other_labels"] or speed["other_layers"] for speed in speeds):
        raise ValueError("the pages say that all labels and exit layers are equal")
    return f"{np.ceil(1e7 * max(max(case['largest_difference_of_logits_by_exit']) for case in cases)) / 10}e-6"


# The paper's tables, and the arithmetic of docs/scaling.md.


@functools.cache
def study(name: str, file: str = "study") -> Any:
    """A committed study or its ablations."""
    return json.loads((STUDIES / name / f"{file}.json").read_text(encoding="utf-8"))


def table_2(name: str) -> str:
    """Accuracy, FLOPs and time of full depth, truncated models and speeds."""
    found = study(name)
    named = [("full depth", found["full_depth"]["mean_depth"], found["full_depth"])]
    named += [(row["name"], row["layers"], row) for row in found["baselines"]]
    named += [(f"speed {point['speed']:g}", point["mean_depth"], point) for point in found["table"]]
    rows = []
    for label, depth, row in named:
        time = row.get("measured")
        clock = f"{time['median']:.2f}x ({time['low']:.2f} to {time['high']:.2f})" if time else ""
        speedups = f"{row['paper_speedup']:.2f}x", f"{row['true_speedup']:.2f}x"
        flops = f"{row['paper_flops'] / 1e6:.0f}M"
        rows.append((label, f"{row['accuracy']:.4f}", f"{depth:.2f}", flops, *speedups, clock))
    header = ("model", "accuracy", "depth", "FLOPs (paper)", "speedup (paper)", "speedup (true)", "wall clock")
    return markdown(header, rows)


def variants(name: str) -> str:
    """The paper's Table 3: every variant, and FastBERT at the layers of the truncated models alone."""
    found = study(name)
    layers = [truncated["layers"] for truncated in found["baselines"]]
    return table_3(study(name, "ablations")["runs"], found["exits"], layers)


def same_speedup(name: str) -> str:
    """Accuracy of every variant at 2 and 3 times fewer FLOPs."""
    return at_the_same_speedup(study(name, "ablations")["runs"])


def standard_error(name: str) -> str:
    """Of an accuracy at full depth, in points."""
    accuracy, texts = study(name)["full_depth"]["accuracy"], study(name)["texts"]
    return f"{100 * (accuracy * (1 - accuracy) / texts) ** 0.5:.2g}"


def with_a_known_teacher() -> str:
    """How many times fewer FLOPs a step of distillation takes when the last exit's answers are kept."""
    minilm = Bert(scaling.MODELS["MiniLM"])
    return f"{distillation_flops(minilm, 128) / distillation_flops(minilm, 128, targets_known=True):.2f}"


TABLES: dict[str, Callable[[], str]] = {
    "accuracies": accuracies,
    "demo": functools.partial(printed_comparison, "early_exit_reuters_r8"),
    "batch-sizes": functools.partial(printed_comparison, "early_exit_batch_sizes"),
    "explained": printed_path,
    "demo-answer": demo_answer,
    "efficiencies": efficiencies,
    "ratios-of-times": ratios_of_times,
    "policies": policies,
    "memory-of-the-input": memory_of_the_input,
    "other-domains": other_domains,
    **scaling.TABLES,
    **compiled_tables.TABLES,
    **corpus_tables.TABLES,
    **{
        f"{form}-{name}": functools.partial(make, name)
        for name in ("reuters_r8", "movie_reviews")
        for form, make in (("table-2", table_2), ("table-3", variants), ("same-speedup", same_speedup))
    },
}
NUMBERS: dict[str, Callable[[], str]] = {
    "auto-efficiency": efficiency_of_auto,
    "auto-512": lambda: f"{result('engine_efficiency_512_reviews')['engines']['auto']['efficiency_by_tokens']:.2f}",
    "auto-copies": lambda: f"{result('engine_efficiency_auto_copies')['engines']['auto']['efficiency_by_tokens']:.2f}",
    "auto-noise": lambda: f"{result('engine_efficiency_auto_copies')['noise']:.0%}",
    "masked-time": lambda: masked(lambda row: row["speedup"]["median"], ".2f"),
    "masked-paper-flops": lambda: masked(lambda row: row["paper_speedup"], ".1f"),
    "exits-cost-minilm": lambda: cost_of_exits("trained"),
    "exits-cost-bert-base": lambda: cost_of_exits("random"),
    "known-teacher-flops": with_a_known_teacher,
    "few-accuracy": lambda: f"{mean('few', 'accuracy'):.4f}",
    "many-accuracy": lambda: f"{mean('many', 'accuracy'):.4f}",
    "other-domains-gain": lambda: f"{100 * (mean('many', 'accuracy') - mean('few', 'accuracy')):.1f}",
    "few-speed": lambda: span([run["speed"] for run in runs_on("few")], ".2f"),
    "many-speed": lambda: span([run["speed"] for run in runs_on("many")], ".2f"),
    "distilled-teacher": lambda: f"{runs_on('few')[0]['accuracy_of_exits'][-1]:.4f}",
    "distilled-depth": lambda: f"{result('unlabelled_texts')['settings']['depth']}",
    "official-logits": parity,
    "hugging-face-states": lambda: (
        f"{result('peer_hugging_face_round_trip')['largest_difference']['last_hidden_state']:.0e}".replace("e-0", "e-")
    ),
    "error-reuters_r8": functools.partial(standard_error, "reuters_r8"),
    "error-movie_reviews": functools.partial(standard_error, "movie_reviews"),
    **scaling.NUMBERS,
}
SCORES: dict[str, Callable[[], str]] = {name: functools.partial(score, name) for name in SETS}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("expected no arguments; the pages say what they hold")
    main()
