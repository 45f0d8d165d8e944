"""A network that was trained already is not trained again to be used in another way.

Two run folders may differ only in what is done with the predictions of their network, in fields that
:data:`kaf.fields.AFTER` marks. The later one takes over what the earlier one has trained.
"""

import shutil
from pathlib import Path
from typing import Any

from kaf.config import training_part
from kaf.files import read_json, replacing
from kaf.processes import rank
from kaf.runs import Run


def take_over(run: Run) -> None:
    """Give ``run``, where it has no checkpoint, that of a finished run beside it which was trained alike.

    Log and provenance come along; ``weights_of`` in the provenance names the folder they are from. Raises
    ``BlockingIOError`` where another process trains in the folder of ``run``.
    """
    if rank() > 0 or run.checkpoint.is_file():
        return
    other = _trained_alike(run.folder)
    if other is None:
        return
    with run.alone():
        for name in ("log.csv", "provenance.json", "checkpoint.pt"):  # the last one makes it a finished run
            with replacing(run.folder / name) as draft:
                shutil.copyfile(other / name, draft)
        run.add_provenance(weights_of=other.name)


def _trained_alike(folder: Path) -> Path | None:
    """A finished run beside ``folder`` that differs from it only after training."""
    mine, kind = _training(folder), folder.name.rpartition("-")[0]
    beside = (file.parent for file in sorted(folder.parent.glob(f"{kind}-*/config.json")))
    return next((other for other in beside if other != folder and _training(other) == mine and _finished(other)), None)


def _training(folder: Path) -> dict[str, Any]:
    """What decided the weights of a run: its configuration, and in place of a name that of the run it went on from."""
    config = read_json(folder / "config.json")
    source = config.get("source")
    if source and (folder.parent / source / "config.json").is_file():
        config["source"] = _training(folder.parent / source)
    return {**config, "experiment": training_part(config["experiment"])}


def _finished(folder: Path) -> bool:
    """Whether a run has all that another one would take over."""
    provenance = folder / "provenance.json"
    return (folder / "checkpoint.pt").is_file() and provenance.is_file() and "seconds" in read_json(provenance)
