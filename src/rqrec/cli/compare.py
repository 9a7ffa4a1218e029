"""The command that compares architectures."""

from rqrec.cli.app import AsJson, Bindings, Configs, app, emit, sentence


@app.command(epilog="Example: rqrec compare configs/compare_beauty.gin --gin compare.jobs=2")
@sentence
def compare(configs: Configs, bindings: Bindings = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Train the architectures on trained, untrained and random semantic IDs, on equal terms."""
    from rqrec.core.artifact import read_json
    from rqrec.core.config import configured
    from rqrec.experiments.compare.stage import RESULTS_FILE
    from rqrec.experiments.compare.stage import compare as run
    from rqrec.experiments.compare.summary import format_summary

    folder = configured({"compare": run}, configs, bindings)["compare"]()
    results = read_json(folder / RESULTS_FILE)
    report = str(folder / "report.md")
    emit({**results, "report": report}, as_json, f"{format_summary(results['summary'])}\n\nReport: {report}")
