"""A network that was trained already is not trained again to be used in another way.

Two run folders may differ only in what is done with the predictions of their network, in fields that
``kaf.fields.AFTER`` marks. The later one takes over what the earlier one has trained.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kaf.config import digest, training_part
from kaf.files import exclusive, make_writable, read_json, replacing, write_json
from kaf.processes import rank, world
from kaf.runs import Run

TURNS = ".turns"  # folder beside the run folders, with one for each training


@contextlib.contextmanager
def my_turn(run: Run) -> Iterator[None]:
    """Let one process at a time train what ``run`` needs: others that need the same wait, and then :func:`take_over`.

    A finished run waits for nobody, nor do processes that train together: the others would not wait for the first.
    Raises ``BlockingIOError`` where another process trains in the folder of ``run`` itself.
    """
    if world() > 1 or _finished(run):
        yield
        return
    with run.alone():  # only to see that it is free
        pass
    folder = run.folder.parent / TURNS / digest(_training(run.folder))
    make_writable(folder)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(folder, "held"))
        except BlockingIOError:
            print(f"{run.folder.name} waits: another process trains what it needs", file=sys.stderr)
            held.enter_context(exclusive(folder))
        yield


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
        if run.checkpoint.is_file():  # another process was faster
            return
        facts = {**read_json(other / "provenance.json"), "weights_of": other.name}
        write_json(run.folder / "provenance.json", facts)
        for name in ("log.csv", "checkpoint.pt"):  # the last one makes it a finished run
            with replacing(run.folder / name) as draft:
                shutil.copyfile(other / name, draft)


def _trained_alike(folder: Path) -> Path | None:
    """A finished run beside ``folder`` that differs from it only after training."""
    mine, kind = _training(folder), folder.name.rpartition("-")[0]
    beside = (file.parent for file in sorted(folder.parent.glob(f"{kind}-*/config.json")))
    return next((other for other in beside if other != folder and _sound(other, mine)), None)


def _sound(folder: Path, training: dict[str, Any]) -> bool:
    """Whether a folder holds a finished run of a training, with all that another one would take over.

    What is damaged or strange is not: the new run then trains by itself.
    """
    try:
        if _training(folder) != training or "seconds" not in read_json(folder / "provenance.json"):
            return False
        run = Run(folder, read_json(folder / "config.json"))
    except (OSError, ValueError, KeyError):
        return False
    return _finished(run) and (folder / "log.csv").is_file()


def _finished(run: Run) -> bool:
    try:
        return bool(run.weights())
    except (OSError, ValueError):
        return False


def _training(folder: Path) -> dict[str, Any]:
    """What decided the weights of a run: its configuration, and in place of a name that of the run it went on from."""
    config = read_json(folder / "config.json")
    source = config.get("source")
    if source and (folder.parent / source / "config.json").is_file():
        config["source"] = _training(folder.parent / source)
    return {**config, "experiment": training_part(config["experiment"])}
