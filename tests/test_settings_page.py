"""docs/settings.md is what `rqrec settings` prints."""

import json
from pathlib import Path

from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.cli.settings import SECTIONS
from rqrec.core import config

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["settings", *arguments])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text() == printed(), "Run `rqrec settings > docs/settings.md`."


def test_every_section_of_gin_files_is_on_the_page() -> None:
    assert {*SECTIONS, "train"} == {*config.SECTIONS}


def test_one_section_has_the_defaults_of_the_config_and_of_architectures_that_differ() -> None:
    page = printed("train_decoder")
    assert page.startswith("## train_decoder\n")
    assert page in PAGE.read_text()
    assert "| `label_smoothing` | `0.0` |" in page
    assert "| `decoder_embed_dim` | `128, hierarchical: 96` |" in page
    assert "`dropout_p` for `attn_dropout`" in page
    assert "- `t5_d_ff`: " in page


def test_as_json_and_unknown_sections() -> None:
    facts = json.loads(printed("fit_rqkmeans", "--json"))
    assert facts["fit_rqkmeans"]["levels"]["default"] == "3"
    refused = CliRunner().invoke(app, ["settings", "fit-rqkmeans"])
    assert refused.exit_code == 2
    assert "fit_rqkmeans" in refused.stderr
