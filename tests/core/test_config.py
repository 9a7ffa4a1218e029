from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rqrec.core.config import (
    check_fields_of,
    configured,
    field_docs,
    settings_of,
    with_settings,
)
from rqrec.core.gin_files import find_config
from rqrec.core.values import Config, PositiveInt, Probability


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
            r"There is no setting 'nonsense'\. `rqrec settings` lists all of them\.",
        ),
        ("iteration", 1, r"'iteration'; did you mean iterations\?"),
        ("iterations", "64", "is '64', but must be a whole number: write 64 without quotes"),
        ("shuffle", "true", "must be True or False: write True without quotes"),
        ("names", 64, r"is 64, but must be a list of strings\."),
        ("iterations", 2**63, "must be a whole number"),
        ("max_minutes", float("nan"), "must be a number or None"),
        ("max_minutes", float("inf"), "must be a number or None"),
        ("max_minutes", -(10**400), "must be a number or None"),
        ("iterations", "x" * 9000, r"is 'x{10,40}\.\.\.x{10,40}', but"),
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


def test_a_setting_given_under_two_names_is_refused_unless_one_overrides_the_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="iterations is 3 and steps is 4, but both set iterations"):
        read([], ["train.iterations=3", "train.steps=4"])
    assert read([], ["train.iterations=3", "train.steps=3"]).loop.iterations == 3
    (tmp_path / "a.gin").write_text("train.steps=4")
    assert read([tmp_path / "a.gin"], ["train.iterations=5"]).loop.iterations == 5


def test_an_unknown_section_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ValueError, match=r"no section 'trian' for iterations; did you mean train\?"):
        read([], ["trian.iterations=1"])


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
        with pytest.raises(ValueError, match=r"a\.gin, line 1: .*(scope|statement)"):
            configured(StageConfig(), ["train"], [tmp_path / "a.gin"])
    with pytest.raises(ValueError, match="iterations has no section"):
        configured(StageConfig(), ["train"], [], ["iterations = 3"])
    (tmp_path / "a.gin").write_text("N = 3\nM = 4\ntrain.iterations = %N")
    assert configured(StageConfig(), ["train"], [tmp_path / "a.gin"]).loop.iterations == 3
    assert "M has no section" in capsys.readouterr().err
    assert configured(StageConfig(), ["train"], [tmp_path / "a.gin"], ["N = 5"]).loop.iterations == 5


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


@dataclass(frozen=True)
class SharingConfig:
    """A command that reads one setting of another one."""

    dataset_folder: Path = field(default=Path("own"), metadata={"section": "train"})
    """Where the data is."""


def test_a_setting_of_another_section_counts_unless_the_own_section_sets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.gin").write_text('train.dataset_folder="theirs"\ntrain.iterations=3')

    def folder(*bindings: str) -> Path:
        config = configured(SharingConfig(), ["generate_semantic_ids"], [tmp_path / "a.gin"], bindings)
        return config.dataset_folder

    assert folder() == Path("theirs")
    assert folder('train.dataset_folder="given"') == Path("given")
    assert folder('generate_semantic_ids.dataset_folder="mine"') == Path("mine")
    assert "no effect" not in capsys.readouterr().err


@dataclass(frozen=True)
class CheckedConfig(Config):
    """A config that checks its values."""

    size: PositiveInt | tuple[PositiveInt, ...] = 4
    """One size, or one per level."""
    dropout: Probability = 0.0
    """Share."""
    folder: Path = Path()
    """A path."""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": 0}, r"^size is 0, but must be at least 1\.$"),
        ({"size": -5}, "size is -5, but must be at least 1"),
        ({"size": [2, 0]}, "An element of size is 0, but must be at least 1"),
        (
            {"size": "4"},
            "size is '4', but must be a whole number, at least 1 or a list of whole numbers: write 4",
        ),
        ({"size": None}, "size is None, but must be"),
        ({"dropout": 2}, "dropout is 2, but must be at least 0 and below 1"),
        ({"dropout": float("nan")}, "dropout is nan, but must be a number"),
    ],
)
def test_a_config_checks_types_and_ranges_however_it_is_made(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        CheckedConfig(**values)
    with pytest.raises(ValueError, match=expected):
        with_settings(CheckedConfig(), values)


def test_a_config_made_from_json_has_the_types_of_its_fields() -> None:
    config = CheckedConfig(size=[3, 4], dropout=0, folder="x")  # type: ignore[arg-type]
    assert config == CheckedConfig((3, 4), 0.0, Path("x"))
    assert isinstance(config.dropout, float)


def test_packaged_files_are_found_by_bare_names_only(tmp_path: Path) -> None:
    assert find_config(Path("recipe.gin")).name == "recipe.gin"
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        find_config(tmp_path / "recipe.gin")
