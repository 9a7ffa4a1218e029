"""Reading gin files: what is understood, and what is refused in a sentence that names the place."""

from pathlib import Path

import pytest

from rqrec.core.gin_files import read_gin


def values(*bindings: str) -> dict[str, object]:
    return {one.name: one.value for one in read_gin([], bindings)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train.a = %NOPE", "the macro %NOPE is not defined: set it, as NOPE = value"),
        ("train.a = %RecDataset.AMAZN", r"did you mean data\.processed\.RecDataset\.AMAZON\?"),
        ("N = %N\ntrain.a = %N", "the macro %N is defined by itself"),
        ("train.a = out/b", "a string in quotes in `train.a = out/b`"),
        ("train.a = true", "write a number, True, False"),
        ("train.a =", "there is no value"),
        ("train.a = [1,", "a bracket or a quote is opened and not closed"),
        ("train.a = {[1]: 2}", "a key of a dictionary"),
        ("train.a = " + "[" * 5000, "nested too deeply|opened and not closed|nested"),
        ("train.a = @train()", r"@train\(\) refers to a function"),
        ("train.a = @torch.optim.AdamW", "refers to a function"),
        ("one/train.a = 3", "has a scope"),
        ("a = 3", "a has no section"),
        ("%%%", "Unexpected token"),
        ("train.a = 1 2", "Expected newline"),
        ("train.a = " + "1" * 5000, "a whole number has too many digits"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(line: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        read_gin([], [line])
    assert "\n" not in str(caught.value)


def test_mistakes_in_a_file_have_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text("train.a = 3\ntrain.b = out/a\n")
    with pytest.raises(ValueError, match=r"a\.gin, line 2: there is no value"):
        read_gin([tmp_path / "a.gin"], [])
    (tmp_path / "a.gin").write_bytes(b"train.a = 3 # \xff")
    with pytest.raises(ValueError, match=r"a\.gin is not a text file"):
        read_gin([tmp_path / "a.gin"], [])


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text("train.a = 3\r\n", encoding="utf-8-sig")
    assert read_gin([tmp_path / "a.gin"], [])[0].value == 3


def test_macros_are_replaced_at_any_depth_and_the_last_definition_counts() -> None:
    assert values("N = 3", "M = [%N]", "train.a = {'x': (%M, %N)}", "N = 4") == {"a": {"x": ([4], 4)}}


def test_constants_are_known_by_the_end_of_their_name_too() -> None:
    given = values("train.a = %data.processed.RecDataset.ML_1M", "train.b = %QuantizeForwardMode.STE")
    assert given == {"a": "ml-1m", "b": "STE"}


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even modules of the reference implementation, if they lie in the current folder."""
    for module in ("data/processed.py", "own.py"):
        (tmp_path / module).parent.mkdir(exist_ok=True)
        (tmp_path / module).write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert values("import data.processed", "from modules.quantize import QuantizeForwardMode") == {}
    for line in ("import own", "from own import name", "import os"):
        with pytest.raises(ValueError, match=r"the module \w+(\.name)? is not imported.*runs no code"):
            read_gin([], [line])
    assert not (tmp_path / "ran").exists()


def test_files_include_gin_files_beside_them_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere" / "configs"
    (folder / "more").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (folder / "more" / "base.gin").write_text("train.a = 1\ntrain.b = 1")
    (folder / "run.gin").write_text("include 'more/base.gin'\ntrain.b = 2")
    assert {one.name: one.value for one in read_gin([folder / "run.gin"], [])} == {"a": 1, "b": 2}
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    (folder.parent / "outside.gin").write_text("train.c = 3")
    (folder / "link.gin").symlink_to(folder.parent / "outside.gin")
    for name in ("/etc/passwd", str(secret), "../outside.gin", "link.gin"):
        (folder / "run.gin").write_text(f"include '{name}'")
        with pytest.raises(ValueError, match=r"run\.gin, line 1: .* is not included") as caught:
            read_gin([folder / "run.gin"], [])
        assert "password" not in str(caught.value)
    for name in ("a" * 300 + ".gin", "a/" * 3000 + "b.gin", r"x\0.gin"):
        (folder / "run.gin").write_text(f"include '{name}'")
        with pytest.raises(ValueError, match="cannot be included") as caught:
            read_gin([folder / "run.gin"], [])
        assert "run.gin, line 1" in str(caught.value)
        assert len(str(caught.value)) < 400
    (folder / "run.gin").write_text("include 'run.gin'")
    with pytest.raises(ValueError, match="includes itself"):
        read_gin([folder / "run.gin"], [])
    (folder / "run.gin").write_text("include 'missing.gin'")
    with pytest.raises((FileNotFoundError, ValueError), match=r"missing\.gin"):
        read_gin([folder / "run.gin"], [])
