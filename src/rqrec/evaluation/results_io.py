"""An evaluation on disk: figures, ranks and a report in one folder, and the comparison of two of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rqrec.core.artifact import create, find, read_manifest, write_json
from rqrec.evaluation.evaluation_report import write_evaluation_report
from rqrec.evaluation.measure import RANKS_FILE, EvalResult
from rqrec.evaluation.significance import difference

EVALUATION_FILE = "evaluation.json"
COMPARED = ("recall@10", "ndcg@10")


@dataclass(frozen=True)
class Protocol:
    """What two evaluations must have in common for their figures to be compared.

    split: "test" or "validation". protocol: "leave_one_out" or "temporal" (see `rqrec.data.splits`).
    exclude_seen: whether items of the history could not be recommended.
    """

    split: str
    protocol: str
    exclude_seen: bool = True

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise ValueError(f"There is no split {self.split!r} to evaluate on; use test or validation.")


def write_evaluation(
    folder: Path,
    measured: EvalResult,
    protocol: Protocol,
    *,
    recommender: str,
    selected: str,
    inputs: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    compare: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the artefact of kind "evaluation" and return what its `evaluation.json` holds.

    `recommender` is the name that the report calls it by, `selected` a sentence on how it was chosen,
    `settings` what it was asked with (a beam width). `compare` is another evaluation of the same cases.
    """
    facts: dict[str, Any] = {
        "recommender": recommender,
        **asdict(protocol),
        "selected": selected,
        "settings": dict(settings or {}),
        "seed": seed,
        **measured.facts(seed),
    }
    if compare is not None:
        facts["comparison"] = comparison(measured, protocol, inputs["dataset"], compare, seed)
    chosen = {"recommender": recommender, **asdict(protocol), **facts["settings"], "seed": seed}
    main = {name: facts["metrics"][name] for name in COMPARED}
    with create(folder, "evaluation", settings=chosen, inputs=inputs, metrics=main) as target:
        write_json(target / EVALUATION_FILE, facts)
        measured.write(target)
        write_evaluation_report(target, facts)
    return facts


def comparison(
    measured: EvalResult, protocol: Protocol, dataset_hash: str, other: Path, seed: int = 0
) -> dict[str, Any]:
    """How a recommender differs from that of another evaluation, case by case, as JSON values.

    Raises ValueError where the other one has no ranks, or is of other cases.
    """
    other = find(other, "evaluation")
    manifest = read_manifest(other, "evaluation", verify=True)
    if not (other / RANKS_FILE).is_file():
        raise ValueError(f"{other} has no {RANKS_FILE} to compare by. Make it again with `rqrec evaluate`.")
    wanted = {**asdict(protocol), "dataset": dataset_hash}
    found = {name: manifest.settings.get(name) for name in asdict(protocol)}
    found["dataset"] = manifest.inputs.get("dataset")
    if differing := [f"{k} is {found[k]} and not {wanted[k]}" for k in wanted if found[k] != wanted[k]]:
        raise ValueError(
            f"{other} is an evaluation of other cases: {'; '.join(differing)}. Evaluate both in the same way."
        )
    ranks_C = EvalResult.read(other).ranks_C
    named = {name: difference(name, measured.ranks_C, ranks_C, seed)._asdict() for name in COMPARED}
    return {"with": manifest.settings["recommender"], "metrics": named}
