"""A model on disk: `model.safetensors` and `model.json`, both with checksums. No pickle."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from tidegate.blueprint import Blueprint
from tidegate.errors import ArtifactError
from tidegate.files import canonical_json, sha256, write_atomically
from tidegate.tasks.network import Network
from tidegate.version import __version__

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
_FORMAT = 1


def write_model(folder: Path, blueprint: Blueprint, network: Network, metrics: dict[str, float]) -> None:
    """Write weights and description into an existing folder, each atomically, the description last."""
    weights = save({name: value.contiguous() for name, value in network.state_dict().items()})
    body: dict[str, Any] = {
        "format": _FORMAT,
        "tidegate": __version__,
        "torch": torch.__version__,
        "blueprint": blueprint.model_dump(mode="json"),
        "metrics": metrics,
        "weights_sha256": sha256(weights),
    }
    body["checksum"] = sha256(canonical_json(body))
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / DESCRIPTION, json.dumps(body, indent=1, ensure_ascii=False).encode())


def save_model(path: Path, blueprint: Blueprint, network: Network, metrics: dict[str, float]) -> None:
    """Save to a new folder, or over an earlier model; anything else in the way is an `ArtifactError`."""
    if path.exists() and not (path.is_dir() and (path / DESCRIPTION).exists()):
        raise ArtifactError(
            f"saving the model to {path}",
            expected="a new path, or an earlier model to replace",
            got="something else that is there",
            hint="choose another name",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        write_model(path, blueprint, network, metrics)
        return
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        write_model(scratch, blueprint, network, metrics)
        scratch.chmod(0o755)
        scratch.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_model(path: Path) -> tuple[Blueprint, Network, dict[str, float]]:
    """Read a saved model or a run folder with its metrics; a missing, damaged or altered file is named."""
    doing = f"loading the model in {path}"
    if not path.is_dir():
        raise ArtifactError(
            doing,
            expected="a run folder or saved model",
            got="a file" if path.exists() else "nothing there",
            hint="check the path",
        )
    body = _read_description(path / DESCRIPTION, doing)
    weights = _read_bytes(path / WEIGHTS, doing)
    if sha256(weights) != body["weights_sha256"]:
        raise ArtifactError(
            doing,
            expected=f"{WEIGHTS} as it was written",
            got="other bytes: its checksum differs",
            hint="restore the file, or train again",
        )
    try:
        blueprint = Blueprint.model_validate(body["blueprint"])
    except ValidationError as error:
        raise ArtifactError(
            doing,
            expected=f"a description this version ({__version__}) understands",
            got=f"one written by {body.get('tidegate')}: {error.errors()[0]['msg']}",
            hint="load it with that version",
        ) from None
    network = blueprint.network()
    network.load_state_dict(load(weights))
    network.eval()
    return blueprint, network, dict(body["metrics"])


def _read_description(path: Path, doing: str) -> dict[str, Any]:
    raw = _read_bytes(path, doing)
    try:
        body = json.loads(raw)
        checksum = body.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(
            doing,
            expected=f"{path.name} as it was written",
            got=f"unreadable JSON ({error})",
            hint="restore the file, or train again",
        ) from None
    if sha256(canonical_json(body)) != checksum:
        raise ArtifactError(
            doing,
            expected=f"{path.name} as it was written",
            got="other content: its checksum differs",
            hint="restore the file, or train again",
        )
    return body


def _read_bytes(path: Path, doing: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            doing,
            expected=f"a readable {path.name}",
            got=error.strerror or str(error),
            hint="a run that has not finished has no model yet: tidegate train --resume RUN",
        ) from None
