"""docs/benchmarks.md, written from the results: what was measured, and first where rqrec is behind."""

import io
import json
import os
import platform
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rows import MODELS, REASONS, ROWS, TOKENIZERS, Row

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "page.md.in"
Results = dict[str, dict[str, Any]]
"""By key of the row, for models with the minutes: `cornac_tiger-5`."""


class Figure(NamedTuple):
    """A measured number: its name in the results and on the page, and whether less of it is better."""

    key: str
    name: str
    less: bool = False
    digits: int = 0


LEVEL = 0.02  # figures that differ by less, as a share of ours, are level

MODEL_FIGURES = (
    Figure("recall@10", "recall@10", digits=4),
    Figure("ndcg@10", "NDCG@10", digits=4),
    Figure("train_seconds", "CPU seconds", less=True, digits=1),
    Figure("targets_per_second", "targets/s"),
    Figure("users_per_second", "users/s", digits=1),
    Figure("exact_users_per_second", "users/s, scoring every item", digits=2),
    Figure("peak_mib", "peak MiB", less=True),
)
TOKENIZER_FIGURES = (
    Figure("train_seconds", "CPU seconds", less=True, digits=1),
    Figure("usage", "codes in use", digits=4),
    Figure("collision_rate", "collisions", less=True, digits=4),
    Figure("largest_group", "largest group", less=True),
    Figure("reconstruction_error", "lost variance", less=True, digits=4),
    Figure("peak_mib", "peak MiB", less=True),
)


def code_lines(script: str) -> int:
    """Lines of a script with code: no blank lines, comments or docstring."""
    source = (HERE / script).read_text()
    skipped = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines) - source[: source.index('"""', 3)].count("\n") - 1


def shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def label(row: Row, results: Results, key: str) -> str:
    """The package with its version, and the model."""
    versions = results.get(key, {}).get("packages", {})
    package, version = next(iter(versions.items()), (row.package, ""))
    return f"{package} {version}".strip() + f": {row.name}"


def keyed(rows: Sequence[Row], results: Results) -> list[tuple[str, Row, str]]:
    """The measured rows, each with its key in the results, and the key of ours that it is compared with."""
    found = []
    for key in results:
        name, _, minutes = key.partition("-")
        row = ROWS.get(name)
        if row in rows and row is not None and "failed" not in results[key]:
            found.append((key, row, f"{row.against}-{minutes}" if minutes and row.against else row.against))
    order = list(ROWS)
    return sorted(found, key=lambda one: (float(one[0].partition("-")[2] or 0), order.index(one[1].key)))


def behind(rows: Sequence[Row], figures: Sequence[Figure], results: Results) -> list[list[str]]:
    """A line for each figure in which a peer is better than ours."""
    lines = []
    for key, row, ours in keyed(rows, results):
        for figure in figures:
            theirs, our = results[key].get(figure.key), results.get(ours, {}).get(figure.key)
            if theirs is None or our is None or abs(theirs - our) <= LEVEL * our:
                continue
            if (theirs < our) != figure.less:
                continue
            ratio = f"{theirs / our:.2f}" if our else ""
            minutes = key.partition("-")[2]
            where = label(row, results, key) + (f", {minutes} minutes" if minutes else "")
            reason = REASONS.get((row.key, figure.key), "not looked into yet")
            digits = figure.digits
            lines.append([where, figure.name, shown(theirs, digits), shown(our, digits), ratio, reason])
    return lines


def comparison(rows: Sequence[Row], figures: Sequence[Figure], results: Results) -> str:
    """All figures, with the ratio peer / ours in brackets."""
    lines = []
    for key, row, ours in keyed(rows, results):
        cells = []
        for figure in figures:
            value, our = results[key].get(figure.key), results.get(ours, {}).get(figure.key)
            ratio = f" ({value / our:.2f})" if value is not None and our else ""
            cells.append(shown(value, figure.digits) + ratio)
        users = results[key].get("evaluated_users")
        extra = [] if rows is TOKENIZERS else [key.partition("-")[2], *cells, shown(users, 0)]
        lines.append([label(row, results, key), *(extra or cells), str(code_lines(row.script)), row.note])
    names = [figure.name for figure in figures]
    header = names if rows is TOKENIZERS else ["minutes", *names, "users evaluated"]
    return table(["", *header, "lines", "settings"], lines)


def decoding(results: Results) -> str:
    rows = {row["architecture"]: row for row in results["decoding"]["rows"]}
    ours = 1e3 / rows["encoder_decoder"]["cpu_ms_per_user"]
    lines = []
    for name, row in rows.items():
        users = 1e3 / row["cpu_ms_per_user"]
        lines.append([f"`{name}`", shown(users, 1), f"{users / ours:.2f}", f"{row['cpu_ms_of_one']:.1f} ms"])
    return table(["", "users per CPU second", "of `encoder_decoder`", "one user, CPU time"], lines)


def csv(results: Results) -> str:
    lines = []
    for key in sorted((key for key in results if key.startswith("csv-")), key=lambda key: int(key[4:])):
        for tool, row in results[key].items():
            of_ours = row["cpu_seconds"] / results[key]["rqrec"]["cpu_seconds"]
            lines.append(
                [
                    f"{row['rows']:,}",
                    tool,
                    f"{row['cpu_seconds']:.2f}",
                    f"{of_ours:.2f}",
                    f"{row['peak_gib']:.2f}",
                ]
            )
    return table(["rows", "", "CPU seconds", "of ours", "peak GiB"], lines)


def load(results: Results) -> str:
    """The processes that wanted a core while the rows were measured."""
    loads = [row["load_per_core"] for row in results.values() if "load_per_core" in row]
    if not loads:
        return ""
    return f" Meanwhile, {min(loads)} to {max(loads)} processes wanted each core (averages of 15 minutes)."


def write_page(folder: Path, page: Path, note: str = "") -> None:
    """Write the page from all results in `folder`; `note` is added to what it says of the machine."""
    results = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    lagging = behind(MODELS, MODEL_FIGURES, results) + behind(TOKENIZERS, TOKENIZER_FIGURES, results)
    for key in results:
        if key.startswith("csv-") and "failed" not in results[key]:
            ours, theirs = results[key]["rqrec"], results[key]["pandas"]
            for name, words in (("cpu_seconds", "CPU seconds"), ("peak_gib", "peak GiB")):
                if theirs[name] < (1 - LEVEL) * ours[name]:
                    reason = REASONS.get(("csv", name), "not looked into yet")
                    ratio = f"{theirs[name] / ours[name]:.2f}"
                    where = f"pandas: CSV of {ours['rows']:,} rows"
                    lagging.append([where, words, f"{theirs[name]:.2f}", f"{ours[name]:.2f}", ratio, reason])
    minutes = sorted(
        {key.partition("-")[2] for key in results if key.partition("-")[0] in ROWS} - {""}, key=float
    )
    expected = [f"{row.key}-{one}" for one in minutes for row in MODELS] + [row.key for row in TOKENIZERS]
    failed = [[f"`{key}`", results[key]["failed"]] for key in results if "failed" in results[key]]
    failed += [[f"`{key}`", "not measured yet"] for key in expected if key not in results]
    text = TEMPLATE.read_text().format(
        behind=table(["peer", "figure", "theirs", "ours", "theirs / ours", "reason"], lagging),
        models=comparison(MODELS, MODEL_FIGURES, results),
        tokenizers=comparison(TOKENIZERS, TOKENIZER_FIGURES, results),
        decoding=decoding(results) if "rows" in results.get("decoding", {}) else "Not measured yet.\n",
        csv=csv(results) if any(key.startswith("csv-") for key in results) else "Not measured yet.\n",
        failed=table(["row", "why"], failed) if failed else "Every row that was tried ran.\n",
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        load=load(results),
        note=f"{note}\n" if note else "",
    )
    page.write_text(text)
