"""Checkpoints: everything that decides what comes next, as safetensors and JSON, written atomically."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from tidegate.errors import ArtifactError
from tidegate.files import read_bytes, read_sealed, sha256, write_atomically, write_sealed
from tidegate.train.seeds import capture_random_state, restore_random_state

METRICS, FOLDER = "metrics.jsonl", "checkpoint"
_HINT = "delete the checkpoint folder to train from the start"


@dataclass
class Progress:
    """Where training stands. `step` batches of `epoch` are done; `loss_sum` and `count` are theirs.

    `values` holds what was monitored, one figure an epoch, lower is better; `norms`, those of the gradients of steps
    that clipping by quantile remembers; `scaling`, that of the loss in fp16; `share`, what the last batch's was.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    count: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    reason: str | None = None
    values: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    scaling: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0
    history: list[dict[str, Any]] = field(default_factory=list)


Restored = tuple[Progress, dict[str, Tensor] | None, tuple[Tensor, ...] | None]
"""Where training stands, the best weights so far, and what the last batch handed on."""


class Checkpointer:
    """Keeps the newest state in `<run>/checkpoint`; an older one goes only when its successor is whole."""

    def __init__(self, run_dir: Path, settings_digest: str) -> None:
        self.run_dir, self.folder, self.digest = run_dir, run_dir / FOLDER, settings_digest
        self.generation = 0

    def clear(self) -> None:
        """Forget an earlier run: a kill before the first save must not leave its state to resume from."""
        self.sweep()
        for old in (self.run_dir / METRICS, self.folder / "latest.json", *self.folder.glob("state-*")):
            old.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a kill in the middle of a write left."""
        for folder, name in ((self.run_dir, METRICS), (self.folder, "latest.json"), (self.folder, "state-")):
            for stale in folder.glob(f".{name}*"):
                stale.unlink()

    def save(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        progress: Progress,
        best: dict[str, Tensor] | None,
        carried: tuple[Tensor, ...] | None = None,
    ) -> None:
        """Write tensors, JSON and the epochs' lines, then the pointer that makes them the newest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        flat, rest = _flatten(optimizer.state_dict())
        tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in (best or {}).items()} | {f"optimizer/{k}": v for k, v in flat.items()}
        tensors |= {f"carried/{k}": v for k, v in enumerate(carried or ())}
        tensors |= {f"random/{k}": v for k, v in capture_random_state().items()}
        blob = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
        body = {"progress": vars(progress), "optimizer": rest, "tensors_sha256": sha256(blob), "settings": self.digest}
        self.generation += 1
        name = f"state-{self.generation}"
        write_atomically(self.folder / f"{name}.safetensors", blob)
        write_sealed(self.folder / f"{name}.json", body)
        self.write_history(progress)
        write_sealed(self.folder / "latest.json", {"generation": self.generation})
        self._drop_all_but(name)

    def _drop_all_but(self, name: str) -> None:
        for old in self.folder.glob("state-*"):
            if not old.name.startswith(f"{name}."):
                old.unlink()

    def write_history(self, progress: Progress) -> None:
        """Write one JSON line per epoch to `metrics.jsonl`, null where a figure is not a finite number."""
        rows = [{k: v if math.isfinite(v) else None for k, v in row.items()} for row in progress.history]
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        write_atomically(self.run_dir / METRICS, lines.encode())

    def restore(self, model: nn.Module, optimizer: Optimizer) -> Restored | None:
        """Put the newest state back and return where training stands; None if there is no checkpoint yet."""
        self.sweep()
        if not (self.folder / "latest.json").exists():
            return None
        doing = f"reading the checkpoint in {self.folder}"
        self.generation = int(read_sealed(self.folder / "latest.json", doing, _HINT)["generation"])
        name = f"state-{self.generation}"
        body = read_sealed(self.folder / f"{name}.json", doing, _HINT)
        blob = read_bytes(self.folder / f"{name}.safetensors", doing, _HINT)
        if sha256(blob) != body["tensors_sha256"]:
            raise ArtifactError(
                doing,
                expected=f"{name}.safetensors as it was written",
                got="other bytes: its checksum differs",
                hint=_HINT,
            )
        if body["settings"] != self.digest:
            raise ArtifactError(
                f"resuming the run in {self.run_dir}",
                expected="the settings it was started with",
                got="others",
                hint="restore config.json, or start a new run",
            )
        tensors = load(blob)
        try:
            model.load_state_dict(_under(tensors, "model/"))
            optimizer.load_state_dict(_unflatten(_under(tensors, "optimizer/"), body["optimizer"]))
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(
                f"resuming the run in {self.run_dir}",
                expected="the model it was started with",
                got=str(error).strip().splitlines()[-1].strip(),
                hint="build the model as before, or start a new run",
            ) from error
        restore_random_state(_under(tensors, "random/"))
        self._drop_all_but(name)
        carried = _under(tensors, "carried/")
        return (
            Progress(**body["progress"]),
            _under(tensors, "best/") or None,
            tuple(carried[str(k)] for k in range(len(carried))) or None,
        )


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors `<parameter>/<name>` and the rest, which is JSON."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else scalars)[f"{index}/{name}"] = value
    return tensors, {"groups": state["param_groups"], "scalars": scalars}


def _unflatten(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["scalars"]}.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": rest["groups"]}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's state on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
