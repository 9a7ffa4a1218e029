from collections.abc import Sequence
from pathlib import Path

import pytest

from rqrec.core.config import configured


def train(iterations: int = 1, dataset: str = "", modes: Sequence[str] = ()) -> tuple[int, str, list[str]]:
    return iterations, dataset, list(modes)


def another(iterations: int = 5) -> int:
    return iterations


def test_files_and_bindings_set_arguments_and_the_last_wins(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text('train.iterations=2\ntrain.dataset="amazon"\n')
    (tmp_path / "b.gin").write_text("train.iterations=3\n")
    bound = configured({"train": train}, [tmp_path / "a.gin", tmp_path / "b.gin"], ["train.modes=['x']"])
    assert bound["train"]() == (3, "amazon", ["x"])


def test_files_of_the_reference_implementation_keep_their_meaning(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text(
        "import data.processed\nimport modules.quantize\n"
        "train.dataset=%data.processed.RecDataset.ML_32M\n"
        "train.modes=[%modules.quantize.QuantizeForwardMode.STE]\n"
    )
    assert configured({"train": train}, [tmp_path / "a.gin"])["train"]() == (1, "ml-32m", ["STE"])


def test_each_command_has_its_own_train_and_forgets_the_last_ones_settings() -> None:
    assert configured({"train": train}, [], ["train.iterations=9"])["train"]()[0] == 9
    assert configured({"train": another}, [])["train"]() == 5


@pytest.mark.parametrize("line", ["train.nonsense=1", "other.iterations=1", "train.iterations=", "%%%"])
def test_what_gin_cannot_use_is_told_with_the_names_that_exist(line: str) -> None:
    with pytest.raises(ValueError, match="iterations, dataset, modes"):
        configured({"train": train}, [], [line])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no configuration file nowhere.gin.*configs/"):
        configured({"train": train}, [Path("nowhere.gin")])


CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.gin"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_in_the_repository_is_understood(path: Path) -> None:
    from rqrec.experiments.compare import stage as compare
    from rqrec.stages import run_rqvae, train_decoder, train_rqvae, train_sasrec

    scripts = {"decoder": train_decoder, "hierarchical": train_decoder, "sasrec": train_sasrec}
    train = scripts.get(path.stem.split("_")[0], train_rqvae).train
    functions = {"train": train, "generate_semantic_ids": run_rqvae.generate_semantic_ids}
    configured({"compare": compare.compare} if path.name.startswith("compare") else functions, [path])
