"""One study: a data set, a split and the runs on it; what the notebooks of chapters 5 and 6 drive.

Everything is found again by its content: calling the same thing twice resumes it or returns at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kaf.choices import check_choice
from kaf.config import Experiment, used_by, workspace
from kaf.data.cases import find_cases
from kaf.data.phantom import write_phantom
from kaf.data.prepare import prepare
from kaf.data.splits import Split
from kaf.data.store import Store, StoreSettings
from kaf.evaluate import COLUMNS
from kaf.files import exclusive, make_writable, write_csv
from kaf.finetune import finetune, get_method, load_network
from kaf.loop import make_fabric
from kaf.predict import evaluate
from kaf.pretrain import KINDS, fingerprint, pretrain
from kaf.protocols import FOLDS, PROTOCOLS, check_fold, draw_labelled, split_by, split_store
from kaf.records import TESTED, read_rows
from kaf.runs import Run
from kaf.selftrain import selftrain

PHANTOM_PATIENTS = {"smoke": 20, "laptop": 80, "full": 80}
ROW = [*COLUMNS, "group"]


@dataclass(frozen=True)
class Study:
    """An experiment on one fold of one store; ``runs`` is the folder of its run folders."""

    experiment: Experiment
    store: Store
    split: Split
    fold: int
    runs: Path
    device: str = "auto"
    devices: int = 1  # on each machine, where several train together
    num_nodes: int = 1
    protocol: str = "patient"  # a name in kaf.protocols.PROTOCOLS
    workers: int = 0  # processes that read ahead; 0: the one that trains reads
    test_store: Store | None = None  # of those who test, where they came in a folder of their own

    def pretrain(self, network: str = "kaf_unet", kind: str = "kaf") -> Run:
        """Pretrain ``network`` on the training patients, without labels; only the paper's protocol adds the test fold.

        ``kind`` is a name in :data:`kaf.pretrain.KINDS`. Raises ``ValueError`` for another.
        """
        check_choice("kind of pretraining", kind, KINDS)
        experiment = self.experiment.changed(**KINDS[kind])
        patients = self.split.train + (self.split.test if self.protocol == "paper" else ())
        return pretrain(experiment, self.store, patients, self.runs, network, self.device,
                        workers=self.workers, devices=self.devices, num_nodes=self.num_nodes)

    def labelled(self, m: int, draw: int = 0) -> tuple[str, ...]:
        """The ``m`` labelled patients of a draw; see :func:`kaf.protocols.draw_labelled`."""
        return draw_labelled(self.protocol, self.split, self.store, m, draw)

    def train(self, method: str, m: int, draw: int = 0) -> Run:
        """Train ``method`` on ``m`` labelled patients, what comes before included; returns the finished run."""
        chosen, patients = get_method(method), self.labelled(m, draw)
        if chosen.selftrained:
            if self.devices * self.num_nodes > 1:
                raise ValueError(f"self-training runs on one device: train {chosen.selftrained} on several first, then "
                                 f"{method} with devices=1")
            source = self.train(chosen.selftrained, m, draw)
            return selftrain(self.experiment, self.store, patients, self.split.train, self.runs, source, method,
                             self.device, self.workers)
        source = None if chosen.pretraining == "none" else self.pretrain(chosen.network, chosen.pretraining)
        return finetune(self.experiment, self.store, patients, self.runs, method, source, self.device,
                        workers=self.workers, devices=self.devices, num_nodes=self.num_nodes)

    def few_shot(self, method: str, m: int, draw: int = 0) -> tuple[Run, pd.DataFrame]:
        """Train ``method`` on ``m`` labelled patients and score it on the test fold; the run and its rows.

        The rows are kept in the run folder as ``scores.csv``. Columns: :data:`kaf.evaluate.COLUMNS` and ``group``.
        Where two folds or draws label the same patients, one run is scored for each; where images or truth of the
        test patients have changed since, it is scored again.
        """
        run = self.train(method, m, draw)
        file = run.folder / "scores.csv"
        with make_fabric(self.device, self.devices, self.num_nodes).rank_zero_first():  # one process scores
            if self._asked(_scores(file), draw).empty:
                own = self._score(run, method, m, draw)
                with exclusive(run.folder):
                    known = _scores(file)  # read again: another fold may have been added meanwhile
                    others = known[~self._mine(known, draw)]
                    write_csv(file, pd.concat([others, own]) if len(others) else own)
        return run, self._asked(_scores(file), draw)[ROW].reset_index(drop=True)

    def _mine(self, rows: pd.DataFrame, draw: int) -> pd.Series:
        """Which rows of a run are of this fold, the protocol and ``draw``."""
        return (rows["fold"] == self.fold) & (rows["protocol"] == PROTOCOLS[self.protocol]) & (rows["draw"] == draw)

    def _asked(self, rows: pd.DataFrame, draw: int) -> pd.DataFrame:
        """Those of all test patients as they are now; none where some of them were not scored yet."""
        own = rows[self._mine(rows, draw) & rows["patient"].isin(self.split.test) & (rows[TESTED] == self._tested)]
        return own if set(own["patient"]) == set(self.split.test) else own[:0]

    def _score(self, run: Run, method: str, m: int, draw: int) -> pd.DataFrame:
        chosen, experiment = get_method(method), self.experiment
        network = load_network(run, experiment, self.store, method)
        device = make_fabric(self.device).device
        rows = evaluate(network, self._tests, self.split.test, experiment, device)
        facts = {"dataset": experiment.data.dataset, "protocol": PROTOCOLS[self.protocol],
                 "method": chosen.name, "pretraining": chosen.pretraining, "m": m, "draw": draw, "fold": self.fold,
                 "scale": experiment.scale, "seed": experiment.seed, "device": device.type, "run": run.folder.name,
                 TESTED: self._tested}
        return rows.assign(**facts)[[*ROW, TESTED]]

    @property
    def _tests(self) -> Store:
        """Where the test patients are."""
        return self.store if self.test_store is None else self.test_store

    @property
    def _tested(self) -> str:
        """A fingerprint of all that scores depend on besides the network: images and truth of the test patients."""
        return fingerprint(self._tests, self._tests.select(patients=self.split.test, labelled=True))


def _scores(file: Path) -> pd.DataFrame:
    """What a run was scored, with any test patients."""
    rows = read_rows(file) if file.is_file() else pd.DataFrame(columns=ROW)
    return rows.reindex(columns=[*ROW, TESTED])


def configurations(experiment: Experiment, method: str) -> list[dict[str, Any]]:
    """What decides the runs of a method, its last one first: what each run folder keeps as its ``experiment``."""
    chosen = get_method(method)
    if chosen.selftrained:
        return [used_by("selftrain", experiment), *configurations(experiment, chosen.selftrained)]
    own = [used_by("finetune", experiment)]
    if chosen.pretraining != "none":
        own.append(used_by("pretrain", experiment.changed(**KINDS[chosen.pretraining])))
    return own


def open_study(experiment: Experiment, data_root: str | Path = "", output: str | Path = "", fold: int = 0,
               folds: int = FOLDS, device: str = "auto", devices: int = 1, num_nodes: int = 1,
               protocol: str = "patient", workers: int = 0, test_root: str | Path = "") -> Study:
    """Prepare the data set, or open its store, and choose a fold.

    ``data_root`` is the folder of ACDC or CHD as downloaded; the phantoms are made and need none.
    ``output`` takes the phantom, the store and the runs: by default ``runs/`` and ``stores/`` in the
    checkout. ``protocol`` is a name in :data:`kaf.protocols.PROTOCOLS`, whose folds :func:`kaf.protocols.split_store`
    makes; for ``external``, ``test_root`` is the folder of those who test, as the 50 test patients of ACDC have one.
    ``workers`` processes read ahead of a training. Raises ``ValueError`` for a fold out of range, an unknown protocol,
    a missing ``data_root`` or ``test_root``, where a patient is in both folders, or one of ``test_root`` has no labels.
    """
    data_root, output, test_root = ("" if given is None else str(given)  # papermill makes a number of a folder 2023
                                    for given in (data_root, output, test_root))
    home = Path(output).expanduser() if output else workspace()
    dataset = experiment.data.dataset
    check_choice("protocol", protocol, PROTOCOLS)
    external = protocol == "external"
    if external != bool(test_root):
        raise ValueError(f"protocol external and test_root, the folder of those who test, come together; got protocol "
                         f"{protocol!r} and test_root {test_root!r}")
    folds = 1 if external else folds
    check_fold(fold, folds)
    phantom = dataset.startswith("phantom")
    if not (phantom or data_root):
        raise ValueError(f"dataset {dataset!r} needs data_root, the folder you downloaded it to")
    if phantom and data_root:
        raise ValueError(f"dataset {dataset!r} is made here and takes no data_root, got {data_root!r}; name the "
                         "data set that lies there, such as acdc")
    make_writable(home)
    root = _phantom(home, experiment) if phantom else Path(data_root).expanduser()
    patients = {case.patient: case.group for case in find_cases(dataset, root) if case.label}
    test_root = Path(test_root).expanduser()
    if external:  # either way what cannot be split is found before the work
        Split(tuple(patients), tuple({case.patient for case in find_cases(dataset, test_root)}))
    else:
        split_by(protocol, patients, folds)
    settings = StoreSettings(dataset, experiment.data.spacing_mm, detector=experiment.data.detector)
    name = f"{dataset}-{store_name(experiment)}"
    store, test_store = prepare(dataset, root, home / "stores" / name, settings), None
    if external:
        test_store = prepare(dataset, test_root, home / "stores" / f"{name}-test", settings)
        if silent := sorted(set(test_store.patients) - test_store.labelled_patients):
            raise ValueError(f"{test_root} has no labels of {', '.join(silent)}: nobody can be tested without; add "
                             "them, or take these patients out of the folder")
    split = split_store(protocol, store, fold, folds, test_store)
    return Study(experiment, store, split, fold, home / "runs", device, devices, num_nodes, protocol, workers,
                 test_store)


def store_name(experiment: Experiment) -> str:
    """Name of the store's folder: what its settings and, for a phantom, its size decide."""
    data = experiment.data
    spacing = "native" if data.spacing_mm is None else f"{data.spacing_mm:g}mm"
    patients = f"-{PHANTOM_PATIENTS[experiment.scale]}p" if data.dataset.startswith("phantom") else ""
    return f"{spacing}-{data.detector}{patients}"


def _phantom(home: Path, experiment: Experiment) -> Path:
    kind = "ct" if experiment.data.dataset == "phantom-ct" else "mr"
    patients = PHANTOM_PATIENTS[experiment.scale]
    return write_phantom(home / "stores" / f"{experiment.data.dataset}-{patients}p", patients, kind=kind)
