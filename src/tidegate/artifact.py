"""A model on disk: `model.safetensors` and `model.json`, both with checksums. No pickle."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from torch import nn

from tidegate.blueprint import AnyBlueprint, read_blueprint
from tidegate.cells import CELLS
from tidegate.errors import ArtifactError
from tidegate.files import flush_folder, read_bytes, read_sealed, sha256, write_atomically, write_sealed
from tidegate.version import __version__

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
_FORMAT = 1
_COMING = f".{WEIGHTS}.new"
_HINT = "restore the file, or train again"


def write_model(folder: Path, blueprint: AnyBlueprint, network: nn.Module, metrics: dict[str, float]) -> None:
    """Write weights and description into an existing folder; a kill leaves the earlier model whole, or the new one.

    The description names its weights by digest, and its writing is the moment of change: until then the new weights
    wait beside the old ones, from where `read_model` takes them if they were not moved into place.
    """
    # Tied weights are two names of one tensor, which the format does not hold.
    weights = save({name: value.contiguous().clone() for name, value in network.state_dict().items()})
    body: dict[str, Any] = {
        "format": _FORMAT,
        "tidegate": __version__,
        "torch": torch.__version__,
        "blueprint": blueprint.model_dump(mode="json"),
        "metrics": metrics,
        "weights_sha256": sha256(weights),
    }
    _settle(folder)
    write_atomically(folder / _COMING, weights)
    write_sealed(folder / DESCRIPTION, body)
    os.replace(folder / _COMING, folder / WEIGHTS)
    flush_folder(folder)


def _settle(folder: Path) -> None:
    """Finish what a killed `write_model` left: waiting weights that the description names move into place."""
    if (folder / _COMING).exists() and (folder / DESCRIPTION).exists():
        named = read_sealed(folder / DESCRIPTION, f"writing the model in {folder}", _HINT)["weights_sha256"]
        if sha256((folder / _COMING).read_bytes()) == named:
            os.replace(folder / _COMING, folder / WEIGHTS)


def save_model(path: Path, blueprint: AnyBlueprint, network: nn.Module, metrics: dict[str, float]) -> None:
    """Save to a new folder, or over an earlier model; anything else in the way is an `ArtifactError`."""
    doing = f"saving the model to {path}"
    try:
        if path.exists() and not (path / DESCRIPTION).exists():
            raise ArtifactError(
                doing,
                expected="a new path, or an earlier model to replace",
                got="something else that is there",
                hint="choose another name",
            )
        if path.exists():
            write_model(path, blueprint, network, metrics)
        else:
            _save_anew(path, blueprint, network, metrics)
    except OSError as error:
        raise ArtifactError(
            doing,
            expected="a folder that can be written",
            got=f"{error.strerror or error} ({error.filename})",
            hint="choose another place",
        ) from None


def _save_anew(path: Path, blueprint: AnyBlueprint, network: nn.Module, metrics: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        write_model(scratch, blueprint, network, metrics)
        scratch.chmod(0o755)
        scratch.rename(path)
        flush_folder(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_model(path: Path) -> tuple[AnyBlueprint, nn.Module, dict[str, float]]:
    """Read a saved model or a run folder with its metrics; a missing, damaged or altered file is named."""
    doing = f"loading the model in {path}"
    if not path.is_dir():
        raise ArtifactError(
            doing,
            expected="a run folder or saved model",
            got="a file" if path.exists() else "nothing there",
            hint="check the path",
        )
    unfinished = "a run that has not finished has no model yet: tidegate train --resume RUN"
    body = read_sealed(path / DESCRIPTION, doing, _HINT if (path / DESCRIPTION).exists() else unfinished)
    if body.get("format") != _FORMAT:
        raise ArtifactError(
            doing,
            expected=f"format {_FORMAT}, which this version ({__version__}) reads",
            got=f"format {body.get('format')}, written by version {body.get('tidegate')}",
            hint="load it with that version",
        )
    weights = _weights(path, body["weights_sha256"], doing)
    try:
        blueprint = read_blueprint(body["blueprint"])
        if (cell := blueprint.architecture.cell) not in CELLS:
            raise ArtifactError(
                doing,
                expected="a cell that is known here",
                got=repr(cell),
                hint=f"import the module that defines it, and call {cell}.registered() there",
            )
        # Fresh weights are drawn only to be replaced: the caller's random state is not spent on them.
        with torch.random.fork_rng(devices=[]):
            network = blueprint.network()
        network.load_state_dict(load(weights))
    except (ValidationError, RuntimeError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).splitlines()[-1].strip()
        raise ArtifactError(
            doing,
            expected=f"a model this version ({__version__}) understands",
            got=f"one written by {body['tidegate']}: {said}",
            hint="load it with that version",
        ) from None
    network.eval()
    return blueprint, network, dict(body["metrics"])


def _weights(folder: Path, digest: str, doing: str) -> bytes:
    if (folder / _COMING).exists() and sha256(waiting := (folder / _COMING).read_bytes()) == digest:
        return waiting
    weights = read_bytes(folder / WEIGHTS, doing, _HINT)
    if sha256(weights) != digest:
        raise ArtifactError(
            doing,
            expected=f"{WEIGHTS} as it was written",
            got="other bytes: its checksum differs",
            hint=_HINT,
        )
    return weights
