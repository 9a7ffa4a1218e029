from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rqrec.core.config import check_fields_of, configured, field_docs, find_config, settings_of, with_settings


@dataclass(frozen=True)
class LoopConfig:
    """How to train."""

    iterations: int = 10
    """Optimizer steps."""
    max_minutes: float | None = None
    """Time budget
    in minutes."""


@dataclass(frozen=True)
class SizeConfig:
    """Sizes of a model."""

    input_dim: int
    """Set by the data."""
    width: int = 8
    """Width."""
    layers: int = 2
    """Depth."""

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"layers is {self.layers}.")


@dataclass(frozen=True)
class StageConfig:
    """A stage."""

    ALIASES: ClassVar = {"steps": "iterations"}
    IGNORED: ClassVar = {"sep_token": "there is no separator."}

    loop: LoopConfig = LoopConfig(iterations=100)
    folder: Path = Path("out")
    names: tuple[str, ...] = ()
    shuffle: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)
    model: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={
            "fields_of": SizeConfig,
            "prefix": "vae_",
            "without": ("input_dim",),
            "names": {"layers": "vae_n_layers"},
        },
    )


def test_nested_settings_have_flat_names_and_descriptions() -> None:
    settings = settings_of(StageConfig())
    names = ["iterations", "max_minutes", "folder", "names", "shuffle", "counts", "vae_width", "vae_n_layers"]
    assert list(settings) == names
    assert settings["iterations"].value == 100
    assert settings["max_minutes"].help == "Time budget in minutes."
    assert field_docs(LoopConfig)["iterations"] == "Optimizer steps."
    assert settings["vae_n_layers"].help == "Depth."


def test_settings_reach_the_nested_config_with_the_right_types() -> None:
    given = {
        "iterations": 5,
        "max_minutes": 3,
        "folder": "elsewhere",
        "names": ["a"],
        "vae_n_layers": 4,
        "shuffle": False,
    }
    config = with_settings(StageConfig(), given)
    assert config.loop == LoopConfig(5, 3.0)
    assert (config.folder, config.names, config.shuffle) == (Path("elsewhere"), ("a",), False)
    assert config.model == {"layers": 4}
    assert with_settings(config, {"vae_width": 3}).model == {"layers": 4, "width": 3}
    assert StageConfig().loop.iterations == 100


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("iterations", "many", "iterations is 'many', but must be a whole number"),
        ("iterations", 1.5, "must be a whole number"),
        ("iterations", True, "must be a whole number"),
        ("max_minutes", "x", "must be a number or None"),
        ("names", "a", "must be a list"),
        ("names", ["a", 1], "An element of names is 1, but must be a string"),
        ("counts", ["a"], "must be a dictionary"),
        ("counts", {"a": 1.5}, r"counts\['a'\] is 1.5, but must be a whole number"),
        ("shuffle", 1, "must be True or False"),
        (
            "nonsense",
            1,
            "Unknown setting 'nonsense'; allowed are iterations, max_minutes.*vae_n_layers, steps",
        ),
    ],
)
def test_a_wrong_value_or_name_is_refused_with_what_is_allowed(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        with_settings(StageConfig(), {name: value})


def test_aliases_stand_for_a_setting_and_ignored_names_are_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = with_settings(StageConfig(), {"steps": 7, "sep_token": True})
    assert config.loop.iterations == 7
    assert "sep_token has no effect here: there is no separator." in capsys.readouterr().err


def read(files: list[Path], bindings: list[str]) -> StageConfig:
    return configured(StageConfig(), ("train", "train_decoder"), files, bindings)


def test_files_and_bindings_set_values_and_the_last_wins(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text('train.iterations=2\ntrain.folder="amazon"\n')
    (tmp_path / "b.gin").write_text("train.iterations=3\nevaluate.beam_width=7\n")
    config = read([tmp_path / "a.gin", tmp_path / "b.gin"], ["train.names=['x']"])
    assert (config.loop.iterations, config.folder, config.names) == (3, Path("amazon"), ("x",))
    both = read([], ["train_decoder.iterations=9", "train.iterations=4"])
    assert both.loop.iterations == 9  # the section of the command itself wins


def test_files_of_the_reference_implementation_keep_their_meaning(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text(
        "import data.processed\nimport modules.quantize\n"
        "train.folder=%data.processed.RecDataset.ML_32M\n"
        "train.names=[%modules.quantize.QuantizeForwardMode.STE]\n"
    )
    config = read([tmp_path / "a.gin"], [])
    assert (config.folder, config.names) == (Path("ml-32m"), ("STE",))


def test_each_call_starts_from_the_defaults() -> None:
    assert read([], ["train.iterations=9"]).loop.iterations == 9
    assert read([], []).loop.iterations == 100


@pytest.mark.parametrize("line", ["train.nonsense=1", "other.iterations=1", "train.iterations=", "%%%"])
def test_invalid_gin_input_is_refused_with_the_known_names(line: str) -> None:
    with pytest.raises(ValueError, match="iterations, max_minutes, folder"):
        read([], [line])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no configuration file nowhere.gin.*configs/"):
        read([Path("nowhere.gin")], [])


def test_a_binding_takes_precedence_over_every_section_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text("train_decoder.iterations = 3\ntrain.shuffle = False\n")
    sections = ("train", "train_decoder")
    config = configured(StageConfig(), sections, [tmp_path / "a.gin"], ["train.iterations = 4"])
    assert (config.loop.iterations, config.shuffle) == (4, False)
    both = ["train_decoder.iterations = 6", "train.iterations = 5"]
    assert configured(StageConfig(), sections, [], both).loop.iterations == 6


def test_names_without_effect_are_refused_or_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("one/train.iterations = 3", "train/iterations = 3"):
        (tmp_path / "a.gin").write_text(text)
        with pytest.raises(ValueError, match="has a scope"):
            configured(StageConfig(), ["train"], [tmp_path / "a.gin"])
    with pytest.raises(ValueError, match="iterations has no section"):
        configured(StageConfig(), ["train"], [], ["iterations = 3"])
    (tmp_path / "a.gin").write_text("N = 3\nM = 4\ntrain.iterations = %N")
    assert configured(StageConfig(), ["train"], [tmp_path / "a.gin"]).loop.iterations == 3
    assert "M has no section" in capsys.readouterr().err
    assert configured(StageConfig(), ["train"], [tmp_path / "a.gin"], ["N = 5"]).loop.iterations == 5


def test_gin_mistakes_are_explained_without_its_implementation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="%NOPE is not defined"):
        configured(StageConfig(), ["train"], [], ["train.iterations = %NOPE"])
    with pytest.raises(ValueError, match="strings need quotes"):
        configured(StageConfig(), ["train"], [], ["train.folder = out/a"])
    (tmp_path / "a.gin").write_bytes(b"train.iterations = 3 # \xff")
    with pytest.raises(ValueError, match=r"a\.gin is not a text file"):
        configured(StageConfig(), ["train"], [tmp_path / "a.gin"])


def test_fields_of_another_config_are_checked_early_under_their_setting_names() -> None:
    check_fields_of(StageConfig(), "model", SizeConfig, input_dim=1)
    config = with_settings(StageConfig(), {"vae_n_layers": 0})
    with pytest.raises(ValueError, match=r"^vae_n_layers is 0\.$"):
        check_fields_of(config, "model", SizeConfig, input_dim=1)


def test_options_join_the_settings_of_files_before_the_config_checks_them() -> None:
    @dataclass(frozen=True)
    class PairConfig:
        """Two values that must agree."""

        a: int = 0
        """One."""
        b: int = 0
        """Another."""

        def __post_init__(self) -> None:
            if self.a != self.b:
                raise ValueError("a and b differ.")

    assert configured(PairConfig(), ["train"], [], ["train.a = 2"], {"b": 2}) == PairConfig(2, 2)
    with pytest.raises(ValueError, match="The settings of train are a, b"):
        configured(PairConfig(), ["train"], [], ["train.a = [2,"])


def test_packaged_files_are_found_by_bare_names_only(tmp_path: Path) -> None:
    assert find_config(Path("recipe.gin")).name == "recipe.gin"
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        find_config(tmp_path / "recipe.gin")
