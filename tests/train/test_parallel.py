"""The device is the one asked for, whatever was trained before and whatever the environment says."""

from __future__ import annotations

import pytest
import torch
from test_loop import train

from tidegate.errors import ConfigError
from tidegate.train.parallel import make_accelerator, training_device


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


@pytest.mark.usefixtures("cuda")
def test_every_choice_is_free_of_the_one_before() -> None:
    chosen = [training_device(name).type for name in ("cpu", "auto", "cpu", "cuda", "auto")]
    assert chosen == ["cpu", "cuda", "cpu", "cuda", "cuda"]


@pytest.mark.usefixtures("cpu_only")
def test_a_device_that_is_not_there_is_refused_and_auto_takes_what_is() -> None:
    assert training_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="expected a cuda device; got only cpu"):
        training_device("cuda")
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or mps; got 'gpu'"):
        training_device("gpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER"),
    ],
)
def test_the_environment_of_a_launcher_changes_nothing(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train(None, epochs=1)
    monkeypatch.setenv(name, value)
    model = train(None, epochs=1)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in plain.state_dict().items())
    assert "forward" not in vars(model), "the model must be left as it was given"


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="expected one process; got 2 processes"):
        training_device("cpu")


def test_a_choice_made_elsewhere_does_not_bind_the_next_training() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(cpu=True, mixed_precision="bf16")
    accelerator = make_accelerator("cpu")
    assert accelerator.mixed_precision == "no"
    assert accelerator.device.type == "cpu"
    AcceleratorState._shared_state["_mixed_precision"] = "no"
    accelerator.state.device = torch.device("meta")
    assert make_accelerator("cpu").device.type == "cpu"
