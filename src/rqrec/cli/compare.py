"""`rqrec compare`."""

from rqrec.cli.command import AsJson, Bindings, Configs, command, emit
from rqrec.core.artifact import read_json
from rqrec.core.config import configured


@command("rqrec compare configs/compare_beauty.gin --gin compare.jobs=2")
def compare(configs: Configs = None, bindings: Bindings = None, as_json: AsJson = False) -> None:
    """Compare architectures on trained, untrained and random semantic IDs, with equal parameters and compute."""
    from rqrec.experiments.compare.config import CompareConfig
    from rqrec.experiments.compare.stage import RESULTS_FILE
    from rqrec.experiments.compare.stage import compare as run
    from rqrec.experiments.compare.summary import format_summary

    folder = run(configured(CompareConfig(), ["compare"], configs or [], bindings or []))
    results, report = read_json(folder / RESULTS_FILE), folder / "report.md"
    text = f"{format_summary(results['summary'])}\n\nReport: {report}"
    emit({**results, "report": str(report)}, as_json, text)
