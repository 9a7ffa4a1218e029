"""Names of devices."""

import pytest
import torch

from rqrec.core.device import device_of


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
        (2, "cpu", "cpu"),
    ],
)
def test_auto_is_a_gpu_if_there_is_one(
    gpus: int, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert device_of(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("gpus", "name", "there"),
    [
        (0, "cuda", "there is only cpu, and no GPU that CUDA can use"),
        (2, "cuda:2", "there are cpu, cuda:0, cuda:1"),
        (0, "gpu", "there is only cpu"),
        (0, "meta", "there is only cpu"),
        (0, "", "there is only cpu"),
    ],
)
def test_another_device_is_refused_with_those_that_there_are(
    gpus: int, name: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=f"device is '{name}', but .*{there}"):
        device_of(name)
