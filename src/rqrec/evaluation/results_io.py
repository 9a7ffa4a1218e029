"""Evaluation artefacts: metrics, ranks and a report in one folder, and the comparison of two of them.

Shapes: C examples.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rqrec.core.artifact import create, find, read_manifest, write_json
from rqrec.evaluation.evaluation_report import write_evaluation_report
from rqrec.evaluation.measure import RANKS_FILE, EvalResult
from rqrec.evaluation.significance import difference

EVALUATION_FILE = "evaluation.json"
MAIN_METRICS = ("recall@10", "ndcg@10")  # in the manifest, and in comparisons


@dataclass(frozen=True)
class EvalSetup:
    """What two evaluations must have in common for their metrics to be comparable."""

    split: str
    """The evaluated split: "test" or "validation"."""
    protocol: str
    """How interactions are split: "leave_one_out" or "temporal" (see `rqrec.data.splits`)."""
    exclude_seen: bool = True
    """Whether items of the history are excluded from the recommendations of the headline metrics."""

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise ValueError(f"Unknown split {self.split!r}; use test or validation.")


def write_evaluation(
    folder: Path,
    result: EvalResult,
    setup: EvalSetup,
    *,
    recommender: str,
    selected: str,
    inputs: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    compare: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write an artefact of type "evaluation" and return the contents of its `evaluation.json`.

    If `result` was measured with both values of `exclude_seen`, `seen_items` holds both: "excluded" and "allowed".
    `recommender` is the name used in the report, `selected` one sentence on how the model was selected,
    `settings` are inference settings such as the beam width. `compare` is another evaluation of the same examples.
    """
    evaluation: dict[str, Any] = {
        "recommender": recommender,
        **asdict(setup),
        "selected": selected,
        "settings": dict(settings or {}),
        "seed": seed,
        **result.summary(seed),
    }
    if "other" in evaluation:
        headline = {name: evaluation[name] for name in ("metrics", "intervals")}
        evaluation["seen_items"] = {
            _seen_items(exclude_seen=setup.exclude_seen): headline,
            _seen_items(exclude_seen=not setup.exclude_seen): evaluation.pop("other"),
        }
    if compare is not None:
        evaluation["comparison"] = comparison(result, setup, inputs["dataset"], compare, seed)
    chosen = {"recommender": recommender, **asdict(setup), **evaluation["settings"], "seed": seed}
    main = {name: evaluation["metrics"][name] for name in MAIN_METRICS}
    with create(folder, "evaluation", settings=chosen, inputs=inputs, metrics=main) as target:
        write_json(target / EVALUATION_FILE, evaluation)
        result.write(target)
        write_evaluation_report(target, evaluation)
    return evaluation


def _seen_items(*, exclude_seen: bool) -> str:
    return "excluded" if exclude_seen else "allowed"


def comparison(
    result: EvalResult, setup: EvalSetup, dataset_hash: str, other: Path, seed: int = 0
) -> dict[str, Any]:
    """Compare a recommender with that of the evaluation `other`, example by example; returns JSON values.

    Raises ValueError if `other` has no ranks or evaluated other examples.
    """
    other = find(other, "evaluation")
    manifest = read_manifest(other, "evaluation", verify=True)
    if not (other / RANKS_FILE).is_file():
        raise ValueError(f"{other} has no {RANKS_FILE} to compare with. Recreate it with `rqrec evaluate`.")
    found = EvalResult.read(other)
    expected = {**asdict(setup), "dataset": dataset_hash}
    actual = {name: manifest.settings.get(name) for name in asdict(setup)}
    actual["dataset"] = manifest.inputs.get("dataset")
    other_ranks_C = found.ranks_C
    if found.other_ranks_C is not None and actual["exclude_seen"] != setup.exclude_seen:
        other_ranks_C, actual["exclude_seen"] = found.other_ranks_C, setup.exclude_seen
    if differing := [
        f"{k} is {actual[k]} and not {expected[k]}" for k in expected if actual[k] != expected[k]
    ]:
        raise ValueError(
            f"{other} evaluated other examples: {'; '.join(differing)}. Evaluate both with the same options."
        )
    metrics = {name: difference(name, result.ranks_C, other_ranks_C, seed)._asdict() for name in MAIN_METRICS}
    return {"with": manifest.settings["recommender"], "metrics": metrics}
