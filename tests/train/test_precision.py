"""B7: shorter products, weights and losses in float32; what overflows in fp16 is left out and counted."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import KilledError, Linear, Pair, Pairs
from torch import Tensor

from tidegate.errors import ConfigError, TidegateError
from tidegate.train.events import EpochEnd, Event, Step
from tidegate.train.finder import find_rate
from tidegate.train.loop import TrainResult, fit
from tidegate.train.parallel import in_float32
from tidegate.train.precision import Precision
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings


class Seen(Linear):
    """Notes what it computes with; `factors` multiply predictions or losses at steps of training, by their number."""

    def __init__(self, **factors: dict[int, float]) -> None:
        super().__init__()
        self.factors, self.steps = factors, 0
        self.dtypes: set[tuple[bool, str, torch.dtype]] = set()

    def forward(self, batch: Pair) -> Tensor:
        self.steps += self.training
        prediction = super().forward(batch)
        self.dtypes.add((self.training, "prediction", prediction.dtype))
        return prediction * self.factor("prediction")

    def loss(self, batch: Pair, prediction: Tensor) -> tuple[Tensor, Tensor]:
        self.dtypes.add((self.training, "read", prediction.dtype))
        assert not torch.is_autocast_enabled("cpu")
        total, count = super().loss(batch, prediction)
        return total * self.factor("loss"), count

    def factor(self, name: str) -> float:
        return self.factors.get(name, {}).get(self.steps, 1.0) if self.training else 1.0


def run(model: Linear, observer: Any = None, run_dir: Path | None = None, *, resume: bool = False) -> TrainResult:
    chosen = TrainSettings(epochs=2, lr=0.02, device="cpu", precision="fp16", checkpoint_every_seconds=1e-9)
    observers = [observer] if observer else []
    return fit(model, Pairs(), Pairs(16), chosen, observers=observers, run_dir=run_dir, resume=resume)


@pytest.mark.parametrize(("name", "short"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_short_and_all_else_is_full(name: str, short: torch.dtype) -> None:
    losses = {}
    for precision in (name, "float32"):
        seed_everything(0)
        model = Seen()
        losses[precision] = fit(
            model, Pairs(), Pairs(16), TrainSettings(epochs=8, lr=0.02, device="cpu", precision=precision)
        ).history[-1]["valid_loss"]
        full, training = torch.float32, short if precision == name else torch.float32
        assert model.dtypes == {(True, "prediction", training), (True, "read", full)} | {
            (False, kind, full) for kind in ("prediction", "read")
        }
        assert all(p.dtype == p.grad.dtype == full for p in model.parameters())
    assert losses[name] != losses["float32"]
    assert losses[name] == pytest.approx(losses["float32"], rel=0.05)


def test_a_step_that_overflows_is_left_out_and_counted() -> None:
    seed_everything(0)
    model = Seen(loss={4: 1e36, 5: 1e36})
    weights = [model.first.detach().clone()]

    def observer(event: Event) -> None:
        if isinstance(event, Step):
            weights.append(model.first.detach().clone())

    result = run(model, observer)
    stood = [torch.equal(a, b) for a, b in itertools.pairwise(weights)]
    # The scale that training begins with may be too large for some step by itself.
    assert stood[3:5] == [True, True]
    assert not any(stood[5:])
    assert result.history[-1]["skipped_steps"] == sum(stood) == 2 + unprovoked()


def unprovoked() -> int:
    seed_everything(0)
    return int(run(Seen()).history[-1]["skipped_steps"])


def test_a_loss_that_overflows_is_not_counted_among_the_losses() -> None:
    for factor in (math.inf, math.nan):
        seed_everything(0)
        result = run(Seen(prediction={5: factor}))
        assert result.history[-1]["skipped_steps"] == 1 + unprovoked()
        assert all(math.isfinite(row["train_loss"]) for row in result.history)


class Carrying(Seen):
    """Hands on what it predicted, which one batch makes infinite; what follows reads it."""

    carries = True

    def forward(self, batch: Pair, state: tuple[Tensor, ...] | None = None) -> Any:
        prediction = super().forward(batch)
        before = torch.zeros(()) if state is None else state[0]
        prediction = prediction + 0 * before
        return prediction, (prediction.sum(),)


def test_what_a_step_that_overflows_hands_on_is_dropped() -> None:
    class Windows(Pairs):
        def batches(self, epoch: int, start: int = 0) -> Any:
            for number, batch in enumerate(super().batches(epoch, start)):
                object.__setattr__(batch, "begins", start + number == 0)
                yield batch

    skipped = []
    for factors in ({}, {6: math.inf}):
        seed_everything(0)
        settings = TrainSettings(epochs=2, lr=0.02, device="cpu", precision="fp16")
        result = fit(Carrying(prediction=factors), Windows(), None, settings)
        assert math.isfinite(result.history[-1]["train_loss"])
        skipped.append(result.history[-1]["skipped_steps"])
    assert skipped[1] == skipped[0] + 1


def test_where_no_scale_helps_it_says_so() -> None:
    class Always(dict):  # type: ignore[type-arg]
        def get(self, *_: Any) -> float:
            return math.inf

    with pytest.raises(TidegateError, match=r"training epoch 1.*finite loss; got none in fp16"):
        run(Seen(prediction=Always()))

    class Long(Pairs):
        steps = 40

        def batches(self, epoch: int = 0, start: int = 0) -> Any:
            for number in range(start, self.steps):
                yield next(super().batches(number))

    with pytest.raises(TidegateError, match=r"finite gradients at some scale of the loss.*try: precision='bf16'"):
        fit(Seen(prediction=Always()), Long(), None, TrainSettings(epochs=1, device="cpu", precision="fp16"))


def test_a_killed_run_goes_on_with_the_scale_it_had(tmp_path: Path) -> None:
    def training(**named: Any) -> tuple[TrainResult, Seen]:
        seed_everything(0)
        model = Seen(loss={2: 1e36})
        return run(model, **named), model

    ends: list[EpochEnd] = []
    whole, model = training(observer=lambda e: ends.append(e) if isinstance(e, EpochEnd) else None)
    seen = 0

    def dying(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Step)
        if seen == 4:
            raise KilledError

    with pytest.raises(KilledError):
        training(observer=dying, run_dir=tmp_path)
    seed_everything(9)
    resumed = Seen()
    result = run(resumed, run_dir=tmp_path, resume=True)
    assert result.history == whole.history
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in model.state_dict().items())
    assert len(ends) == 2


def test_looking_for_a_rate_computes_as_training_does() -> None:
    model = Seen()
    find_rate(model, Pairs(), TrainSettings(device="cpu", precision="bf16"), steps=3)
    assert model.dtypes == {(True, "prediction", torch.bfloat16), (True, "read", torch.float32)}


def test_predictions_may_be_nested() -> None:
    short, whole = torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.int64)
    scores, more = in_float32((short, {"a": short, "b": whole}))
    assert (scores.dtype, more["a"].dtype, more["b"].dtype) == (torch.float32, torch.float32, torch.int64)


def test_a_device_without_bf16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match="one that the device has; got 'bf16'; try: precision='fp16'"):
        Precision("bf16", torch.device("cuda"))
