"""Write the page "Claims and evidence" from the records: ``python book/claims.py``.

Every entry is a claim or a question with the comparisons that bear on it. They take the recorded runs of a grid under
the configuration that the library resolves today: without such runs an entry is open. Verdicts follow from the numbers.
"""

import sys
from itertools import groupby
from math import isnan
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, for book/ and workflow/

from book.dress import BOOK, CHAPTERS
from book.entries import PARTS, Entry
from book.facts import (
    AFTER_2500,
    BEGUN,
    LIGHT,
    LONG_PRETRAINING,
    LONGER,
    PRETRAINED,
    SCRATCH,
    STRONGER,
    TAUGHT,
    UNET,
    WIDE,
    evidence,
    table_lines,
)
from book.findings import ENTRIES, OPEN, as_it_is, luck, luck_of, measure, sizes_of, still_open, verdict_of
from kaf.files import replacing
from kaf.noise import NoiseByPlace, in_words, luck_in_words, noise_floor
from kaf.records import FOLDER, lineage
from kaf.report import p_value, signed
from kaf.verdicts import Comparison
from workflow.plan import read_recorded

PAGE = BOOK / "appendix" / "claims.md"
TWINS = frozenset({"patient074", "patient076"})  # of ACDC, who hold the same images
PARTLY = "Partly open."
OPEN_LINES = 6  # a table with more of them is folded
ANSWERS = {
    frozenset({"better"}): "Yes.", frozenset({"better", "no difference shown"}): "In some cases.",
    frozenset({"worse"}): "No, it is worse.",
    frozenset({"worse", "no difference shown"}): "No, in some cases it is worse.",
    frozenset({"no difference shown"}): "Not shown.",
}  # fmt: skip
#: What most readers come for: a question, and the comparison of an entry that answers it.
MAIN = (
    ("Do more filters help a UNet?", "C1", WIDE, UNET),
    ("Do KAF layers help a UNet?", "M3", SCRATCH, UNET),
    ("More than the same widths without layers do?", "M3", SCRATCH, WIDE),
    ("With pretraining?", "D18", PRETRAINED, WIDE),
    ("And after five times as many steps?", "M3", *AFTER_2500),
    ("Does pretraining help a network with KAF layers?", "M2", PRETRAINED, SCRATCH),
    ("And long pretraining, where fine-tuning is brief?", "D13", LONG_PRETRAINING, f"{SCRATCH}: brief"),
    ("More than a UNet gains by as many steps on its labels?", "C1", PRETRAINED, LONGER),
    ("Does the pretraining of PCL gain more than that?", "C1", "PCL", LONGER),
    ("Does a stronger augmentation help a UNet?", "D15", f"{UNET}: {STRONGER}", UNET),
    ("Does KAF lead the wide UNet with it?", "D15", f"{SCRATCH}: {STRONGER}", f"{WIDE}: {STRONGER}"),
    ("Does it help a wide UNet to begin with smaller weights?", "D16", f"{WIDE}: {BEGUN}", WIDE),
    ("And a network with KAF layers?", "D16", f"{SCRATCH}: {BEGUN}", SCRATCH),
    ("Does KAF lead the wide UNet then?", "D16", f"{SCRATCH}: {BEGUN}", f"{WIDE}: {BEGUN}"),
    ("Does KAF lead the wide UNet with the light fusion?", "D17", LIGHT, WIDE),
    ("Does self-training help more than as many steps on the labels?", "D9", TAUGHT, f"{WIDE}: as many steps"),
)


def anchor(entry: Entry) -> str:
    """The name by which the overview links to an entry."""
    return f"entry-{entry.key.lower()}"


def in_short(records: Path) -> list[str]:
    """The main questions, each with what its comparisons say, and these as a table that is folded."""
    lines, rows = ["## In short", ""], []
    entries = {entry.key: entry for entry in ENTRIES}
    for question, key, label, reference in MAIN:
        pair = {label, reference}
        found = [c if c.label == label else c.flipped for c in measure(entries[key], records)
                 if {c.label, c.reference} == pair]
        if found:
            lines.append(f"- **{question}** {answer(found)} {label} against {reference}: "
                         f"{by_verdict(found, luck(records))} ([{key}](#{anchor(entries[key])}))")
        rows += found
    head = [f"- {open_}" for open_ in [OPEN] if not rows]
    return [*lines, *head, "", meaning(records), "",
            "How far the best of them goes, beside the paper: [D9](#entry-d9).", "",
            ":::{dropdown} The differences", *table(rows, luck(records)), ":::", ""]


def answer(found: list[Comparison]) -> str:
    """What comparisons of one pair answer to whether the one helps, or leads."""
    return ANSWERS.get(frozenset(c.verdict for c in found), "It depends.")


def by_verdict(found: list[Comparison], noise: NoiseByPlace) -> str:
    """Where comparisons of one pair say what, such as ``*better* at scale smoke with M = 6, 20; *worse* at ...``."""
    said: dict[str, dict[str, list[str]]] = {}
    for c in found:
        over = luck_in_words(c, noise)
        verdict = f"*{c.verdict}*" + (f" (over trainings: {over})" if over else "")
        said.setdefault(verdict, {}).setdefault(c.place.scale, []).append(str(c.place.m))
    return "; ".join(f"{verdict} " + " and ".join(f"at scale {scale} with M = {', '.join(ms)}"
                                                  for scale, ms in at.items())
                     for verdict, at in said.items())


def meaning(records: Path) -> str:
    """The words of the first table."""
    scales = []
    for grid in ("fewshot", "fewshot_laptop"):
        for facts in list(evidence(grid, records).runs.values())[:1]:
            e = facts["config"]["experiment"]
            scales.append(f"*{e['scale']}*: images of {e['data']['size']} px of {e['data']['spacing_mm']} mm, "
                          f"{e['width']} filters in the first block")
    return " ".join(["M is the number of labelled patients.", *([f"Scale {'; '.join(scales)}."] if scales else []),
                     "The {term}`wide UNet` has the widths that KAF layers give a network, without the layers. PCL "
                     "pretrains a UNet by the positions of its slices. *As many steps*: on its labels alone, for as "
                     "many steps as both trainings of the other side. *No difference shown*: the interval, the "
                     "corrected test or both leave it open."])


def overview(records: Path) -> list[str]:
    """All entries and their verdicts, a line each."""
    lines = ["## At a glance", "", "| entry | | verdict over patients | hold over trainings | below the noise floor | "
             "patients | trainings |", "|---|---|---|---|---|---|---|"]
    for entry in ENTRIES:
        found = measure(entry, records)
        verdict = told(entry, found, records)
        counts = [" to ".join(map(str, sorted({min(values), max(values)}))) if found else ""
                  for values in ([c.patients for c in found], [c.runs for c in found])]
        partly = PARTLY if found and still_open(entry, records) else ""
        cells = (" ".join(filter(None, (verdict, partly))), *luck_of(found, luck(records)), *counts)
        lines.append(f"| [{entry.key}](#{anchor(entry)}) | {entry.text} | {' | '.join(cells)} |")
    return [*lines, ""]


def told(entry: Entry, found: list[Comparison], records: Path) -> str:
    """The verdict of an entry, by its comparisons or, where it has none, by its records themselves."""
    said = entry.outcome(records) if entry.outcome else ""
    return said or verdict_of(entry, found, luck(records))


def table(found: list[Comparison], noise: NoiseByPlace) -> list[str]:
    """Comparisons as lines, a table for each data set and scale, beside the noise floor where ``noise`` has one."""
    lines = []
    head = ["", "verdict", "difference in Dice (95 % over patients)", "p (Holm)", "95 % over trainings", "noise floor",
            "patients", "trainings"]
    known = list(dict.fromkeys(c.place.setup for c in found))
    for at, some in groupby(sorted(found, key=lambda c: known.index(c.place.setup)), key=lambda c: c.place.setup):
        rows = [head]
        for c in some:
            floor, (low, high) = noise_floor(c, noise), c.over_runs
            told = in_words(c, noise) if c.testable else "too few patients to show any"
            here = ", ".join([f"M = {c.place.m}", *c.place.details]
                             + [f"{c.steps} steps"] * bool(c.steps and " steps" not in c.reference))
            p = p_value(c.p).replace("-", "\u2011")  # a hyphen at which no line breaks
            rows.append([f"{c.label} against {c.reference}, {here}", told,
                         f"{signed(c.difference)} ({signed(c.low)} to {signed(c.high)})", p,
                         "" if isnan(low) else f"{signed(low)} to {signed(high)}",
                         "related" if c.related else "" if isnan(floor) else f"{floor:.3f}", str(c.patients),
                         str(c.runs)])
        said = [cells for cells in zip(*rows, strict=True) if any(cells[1:])]  # columns that say something
        first, *others = zip(*said, strict=True)
        lines += ["", f"On {at}:", "", *table_lines(first, others)]
    return lines


def section(entry: Entry, records: Path) -> list[str]:
    """The lines of an entry, verdict first."""
    found = measure(entry, records)
    facts = entry.facts(records) if entry.facts else ""
    verdict = f"**{told(entry, found, records)}**"
    hold, small = luck_of(found, luck(records))
    words = " ".join(filter(None, (verdict, f"Of these differences {hold} hold over trainings, too." if hold else "",
                                   f"Below the noise floor: {small}." if small else "",
                                   still_open(entry, records) if found else "", facts)))
    lines = [f"({anchor(entry)})=", f"### {entry.key}. {entry.text}", "", words]
    rows = table(found, luck(records))
    lines += rows if len(found) <= OPEN_LINES else ["", f":::{{dropdown}} All {len(found)} comparisons", *rows, ":::"]
    grids = list(dict.fromkeys([*(trial.grid for trial in entry.trials), *entry.grids]))
    if entry.command:
        lines += ["", f"Command: `{entry.command}`, in `book`."]
    if grids:
        sizes = {grid: " and ".join(sizes_of(entry, grid, records)) for grid in grids}
        named = "; ".join(f"`{grid}`" + f" ({size or 'not recorded yet'})" for grid, size in sizes.items())
        commands = ", ".join(f"`snakemake --config grid={grid} acdc=DIR`" for grid in grids)
        lines += ["", f"Records: {named}. Commands: {commands}."]
        lines += [line for grid in grids for said in as_it_is(entry, grid, records) for line in ("", said)]
    if (CHAPTERS / f"{entry.chapter}.ipynb").is_file():
        lines += ["", f"Figure and discussion: [chapter {int(entry.chapter[:2])}](../chapters/{entry.chapter}.ipynb)."]
    return [*lines, ""]


INTRODUCTION = """# Claims and evidence

What the method is said to do, what was left open, and what was never checked, each with what the recorded runs of this
book say about it. The page is written by `python book/claims.py` from `book/records/`; no verdict is typed. [How it is
found](#how-a-verdict-is-found) stands below the overview. All networks here are small and their images coarse, as two
processor cores can train them; about larger ones the page says nothing yet.
"""
READING = """(how-a-verdict-is-found)=
## How a verdict is found

### Over patients

Every comparison is paired over patients. *Better* and *worse* mean that the mean difference in Dice has a 95 %
bootstrap interval without 0 and a Wilcoxon test below .05 after Holm's correction for all comparisons of the entry;
anything else is *no difference shown*, which is not the same as no difference. A few patients cannot show any, and are
left out of the correction. One comparison may stand in several entries: all of them have the largest of its p values,
so that it has one verdict, in the chapters, too. Holm's correction is for one entry; over a page with so many of them,
a few verdicts will be false. In the names of settings levels count from 1: *level 1* is the layer behind the first
block, whose {term}`level` is 0 in formulas.

Of corrupted images the differences are in the Dice that is lost, and *better* is to lose less.

### Over trainings

The test takes a trained network as it is: it says what would happen with other patients, not with other trainings. How
many trainings each side has, from other folds, draws or seeds, is said beside it; a difference between single trainings
is a hint. Two numbers speak of trainings.

The interval over trainings takes the mean of each pair of runs, of one fold for instance, as one value, and is wide
with five of them. A difference *holds over trainings* where that interval leaves out 0.

The {term}`noise floor` is what luck alone makes of the difference of so many trainings, at most, in 95 of 100 cases; it
is measured where the grid `seeds` has trained one of the methods for as many steps, on one fold with several seeds. A
difference *below* it may be luck, by what few seeds on one fold say. Where it holds over trainings all the same, the
two disagree, and the tables say both. Where one side goes on from the trained network of the other, or only treats its
predictions in another way, both share their luck, and the floor does not apply (*related*).

Of an entry in which no difference that is shown holds over trainings, the verdict says *for these trained networks
alone*; where all of them are below the noise floor as well, a claim is *not shown beyond the luck of trainings*, and
what it looks like over patients comes after that.

### For which networks

A verdict holds for the size of its runs, which stands with its records: the images, the filters of the first block and
the steps of training. Small networks say nothing certain about large ones that train for days, and where training was
brief a setting may only change how fast a network learns ([D10](#entry-d10)). Runs of another configuration than
today's are no evidence, and an entry without runs is open. How to run a grid is said in `workflow/README.md`. What is
recorded counts as done: to repeat it, add `records=NEW output=OTHER`, two folders of your own, to a command.

### Of which patients
"""


def twins(records: Path) -> str:
    """How many recorded runs saw the scan of a test patient under another name, and what that could matter."""
    runs, seen, labelled_too = 0, 0, 0
    for record, _ in read_recorded(records):
        for name, rows in record.rows[record.rows["dataset"] == "acdc"].groupby("run"):
            tested = TWINS & set(rows["patient"])
            others = TWINS - tested if tested else set()
            chain = [facts["config"] for facts in lineage(record.runs[name])]
            labels = {p for config in chain if "method" in config for p in config["patients"]}
            runs += 1
            seen += bool(others & labels.union(*(config.get("unlabelled", config["patients"]) for config in chain)))
            labelled_too += bool(others & labels)
    pairs = [pair for entry in ENTRIES if entry.trials
             for pair in zip(measure(entry, records), measure(entry, records, TWINS), strict=True)]
    few, many = (max((abs(a.difference - b.difference) for a, b in pairs if (a.patients > 16) == more), default=0.0)
                 for more in (False, True))
    changed = "\n".join(dict.fromkeys(f"- {a.label} against {a.reference} ({a.place}): {a.verdict}, then {b.verdict}"
                                      for a, b in pairs if a.verdict != b.verdict))
    return f"""Two patients of ACDC, 074 and 076, hold the same images with other labels, as
`python -m kaf.data.check acdc DIR` says, and lie in different folds. Where one is tested, no training takes the other
({{func}}`~kaf.data.splits.without_twins`). The rule is younger than some records: in {seen} of {runs} runs pretraining
or self-training saw the images of a test patient under the other name, and in {labelled_too} a training had labels for
them. With both patients left out of all tests, no difference over more than sixteen patients moves by more than
{many:.3f}, and none over sixteen or fewer by more than {few:.3f}. Of {len(pairs)} verdicts of single comparisons these
change:

{changed or "- none"}
"""


def at_hand(records: Path) -> str:
    """Which patients of ACDC the records are of; with others the folds are others."""
    rows = evidence("fewshot", records).rows
    here = {int(patient.removeprefix("patient")) for patient in rows.loc[rows["dataset"] == "acdc", "patient"]}
    missing = ", ".join(f"{number:03d}" for number in range(1, 101) if number not in here)
    return f"""The records are of {len(here)} of the 100 training patients of ACDC. To have the same folds and draws,
leave the others out of `DIR`: {missing}.
"""


def page(records: str | Path = FOLDER) -> str:
    """The whole page."""
    records = Path(records)
    lines = [INTRODUCTION, *in_short(records), *overview(records), READING, at_hand(records), twins(records)]
    for part, entries in PARTS.items():
        lines += [f"## {part}", "", *(line for entry in entries for line in section(entry, records))]
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    with replacing(PAGE) as draft:
        draft.write_text(page())
    print(PAGE.relative_to(Path(__file__).parents[1]))


if __name__ == "__main__":
    main()
