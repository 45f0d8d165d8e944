"""All problems of a data set at once, and what of it would be used (chapter 0).

Command: ``python -m kaf.data.check DATASET ROOT [--quick]``. It exits with 1 where there are errors.

Errors keep :func:`kaf.data.prepare.prepare` from starting or stop it; warnings are worth a look. The rules are
those of :func:`kaf.data.cases.find_cases` and :func:`kaf.data.volumes.read_volume`, which raise the first error. To
them come warnings about the folder as a whole, as in the integrity check of nnU-Net.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from kaf.data.cases import LAYOUTS, Case, Layout, Volume, check_headers, find_cases, get_layout, read_volume
from kaf.data.nifti import Header, why_no_access
from kaf.data.problems import Problem
from kaf.files import file_digest
from kaf.progress import progress_bar


@dataclass
class Findings:
    """What a folder holds and what is wrong with it; ``str`` of it is the report."""

    dataset: str
    root: Path
    cases: list[Case] = field(default_factory=list)  # what would be used
    headers: dict[str, Header] = field(default_factory=dict)  # of their images, by id
    labels: Counter[int] = field(default_factory=Counter)  # in how many volumes a label value lies
    problems: list[Problem] = field(default_factory=list)
    voxels: bool = True  # whether the files were read to their end

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if not problem.warning]

    def report(self, problem: Problem) -> None:
        """Remember a problem; the frames of a cine file share theirs."""
        if problem not in self.problems:
            self.problems.append(problem)

    def __str__(self) -> str:
        warnings = [problem for problem in self.problems if problem.warning]
        lines = [f"{self.dataset} in {self.root}", *(f"  {name:<12}{text}" for name, text in _facts(self))]
        where = "" if self.voxels else " in names and headers"
        for name, some in (("error", self.errors), ("warning", warnings)):
            lines += [f"{len(some)} {name}{'' if len(some) == 1 else 's'}{where}",
                      *(f"  {name}: {one}" for one in some)]
        return "\n".join(lines)


def check_dataset(dataset: str, root: str | Path, voxels: bool = True, progress: bool = True) -> Findings:
    """Look for everything that is wrong in a folder; without ``voxels`` only headers are read.

    Raises ``ValueError`` for an unknown data set.
    """
    layout, findings = get_layout(dataset), Findings(dataset, Path(root), voxels=voxels)
    cases = find_cases(dataset, root, findings.report)
    for case in progress_bar(cases, desc="check", unit="volume", quiet=not progress):
        header, _ = check_headers(case, findings.report)
        volume = read_volume(case, findings.report) if voxels else None
        if header and {case.image, case.label}.isdisjoint(problem.file for problem in findings.errors):
            findings.cases.append(case)
            findings.headers[case.id] = header
            findings.labels.update(_values(volume))
    for problem in _doubts(findings, layout, cases):
        findings.report(problem)
    return findings


def _values(volume: Volume | None) -> list[int]:
    return [] if volume is None or volume.label is None else np.unique(volume.label).tolist()


def _doubts(findings: Findings, layout: Layout, found: list[Case]) -> Iterator[Problem]:
    """Warnings about the folder as a whole."""
    root = findings.root
    used = {file for case in found for file in (case.image, case.label)}
    files = [] if why_no_access(root) else sorted(root.rglob("*.nii*"))
    known = (".*", *layout.unused)
    spare = [file for file in files if file not in used and not any(fnmatch(file.name, name) for name in known)]
    if spare:
        names = ", ".join(file.relative_to(root).as_posix() for file in spare[:3])
        what = f"holds {len(spare)} NIfTI files that the layout has no use for: {names}{', ...' * (len(spare) > 3)}"
        yield Problem(root, what, "check their names", warning=True)
    if found and not any(case.label for case in found):
        yield Problem(root, "has labels of nobody", "pretraining needs none, fine-tuning and tests do", warning=True)
    elif silent := sorted({case.patient for case in found} - {case.patient for case in found if case.label}):
        what = f"has no labels of {', '.join(silent[:5])}{f', ... ({len(silent)} patients)' * (len(silent) > 5)}"
        yield Problem(root, what, "they can be pretrained with, and are neither drawn nor tested", warning=True)
    yield from _twins(found)
    ways = Counter(header.orientation for header in findings.headers.values())
    if len(ways) > 1:
        what = f"mixes the orientations {', '.join(f'{way} ({count})' for way, count in ways.most_common())}"
        yield Problem(root, what, "images are read as stored: turn them all one way", warning=True)
    missing = [f"{value} {name}" for value, name in layout.structures.items() if value not in findings.labels]
    if findings.labels and missing:
        yield Problem(root, f"has no voxel of {', '.join(missing)}", "check the label values", warning=True)


def _twins(cases: list[Case]) -> Iterator[Problem]:
    """The same scan under the names of two patients: one may be tested on what the other was trained on."""
    owners: dict[int, dict[Path, str]] = {}  # size -> file -> patient
    for case in cases:
        with suppress(OSError):  # what cannot be opened is reported where it is read
            owners.setdefault(case.image.stat().st_size, {})[case.image] = case.patient
    for files in owners.values():
        first: dict[str, Path] = {}
        for image, patient in files.items() if len(set(files.values())) > 1 else ():  # few have the same size
            twin = first.setdefault(file_digest(image), image)
            if files[twin] != patient:
                what = f"is the same scan as {twin}, under the name of another patient"
                yield Problem(image, what, "leave one out, or keep both on one side of the split", warning=True)


def _facts(findings: Findings) -> Iterator[tuple[str, str]]:
    """What would be used, line by line."""
    cases, headers = findings.cases, findings.headers.values()
    groups = Counter({case.patient: case.group for case in cases}.values())
    listed = [f"{name or 'unknown'} {count}" for name, count in sorted(groups.items())] if set(groups) != {""} else []
    yield "patients", ", ".join([str(sum(groups.values())), *listed])
    frames = Counter("cine" if case.frame_index is not None else case.frame for case in cases)
    listed = [f"{name} {count}" for name, count in sorted(frames.items()) if name]
    labelled = sum(case.label is not None for case in cases)
    yield "volumes", ", ".join([str(len(cases)), *listed, f"labelled {labelled}"])
    if not cases:
        return
    i, j, k = zip(*(header.shape[:3] for header in headers))
    yield "shape", f"{_range(k)} slices of {_range(j)} x {_range(i)} voxels"
    i, j, k = zip(*(header.spacing_mm for header in headers))
    yield "spacing", f"{_range(k)} mm between slices, {_range(j)} x {_range(i)} mm in plane"
    yield "orientation", ", ".join(f"{way} {n}" for way, n in Counter(h.orientation for h in headers).most_common())
    if findings.labels:
        names = {0: "background", **get_layout(findings.dataset).structures}
        listed = (f"{value} {names.get(value, '')} in {count}" for value, count in sorted(findings.labels.items()))
        yield "labels", ", ".join(listed) + " volumes"


def _range(values: tuple[float, ...]) -> str:
    low, high = (f"{value:.4g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m kaf.data.check", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=sorted(LAYOUTS))
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument("--quick", action="store_true", help="read headers only, no voxels")
    a = parser.parse_args(arguments)
    try:
        findings = check_dataset(a.dataset, a.root, voxels=not a.quick)
    except ValueError as error:  # KAF_ALLOW names a rule that there is not
        parser.error(str(error))
    print(findings)
    raise SystemExit(1 if findings.errors else 0)


if __name__ == "__main__":
    main()
