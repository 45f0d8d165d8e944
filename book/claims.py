"""Write the page "Claims and evidence" from the records: ``python book/claims.py``.

Every entry is a claim or a question with the comparisons that bear on it. They take the recorded runs of a grid under
the configuration that the library resolves today: without such runs an entry is open. Verdicts follow from the numbers.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, for book/ and workflow/

from book.dress import BOOK, CHAPTERS
from book.entries import PARTS, Entry
from book.evidence import evidence
from book.findings import ENTRIES, as_it_is, luck, luck_of, measure, sizes_of, still_open, verdict_of
from book.in_short import in_short
from book.lines import anchor, comparison_table, table_lines
from kaf.files import replacing
from kaf.records import FOLDER, lineage
from kaf.verdicts import Comparison
from workflow.plan import read_recorded

PAGE = BOOK / "appendix" / "claims.md"
TWINS = frozenset({"patient074", "patient076"})  # of ACDC, who hold the same images
PARTLY = "Partly open."
OPEN_LINES = 6  # a table with more of them is folded


def overview(records: Path) -> list[str]:
    """All entries and their verdicts, a line each."""
    head, rows = ["entry", "", "verdict over patients", "hold over trainings", "below the noise floor", "patients",
                  "trainings"], []
    for entry in ENTRIES:
        found = measure(entry, records)
        verdict = told(entry, found, records)
        counts = [" to ".join(map(str, sorted({min(values), max(values)}))) if found else ""
                  for values in ([c.patients for c in found], [c.runs for c in found])]
        partly = PARTLY if found and still_open(entry, records) else ""
        rows.append([f"[{entry.key}](#{anchor(entry.key)})", entry.text, " ".join(filter(None, (verdict, partly))),
                     *luck_of(found, luck(records)), *counts])
    return ["## At a glance", "", *table_lines(head, rows), ""]


def told(entry: Entry, found: list[Comparison], records: Path) -> str:
    """The verdict of an entry, by its comparisons or, where it has none, by its records themselves."""
    said = entry.outcome(records) if entry.outcome else ""
    return said or verdict_of(entry, found, luck(records))


def section(entry: Entry, records: Path) -> list[str]:
    """The lines of an entry, verdict first."""
    found = measure(entry, records)
    facts = entry.facts(records) if entry.facts else ""
    verdict = f"**{told(entry, found, records)}**"
    hold, small = luck_of(found, luck(records))
    words = " ".join(filter(None, (verdict, f"Of these differences {hold} hold over trainings, too." if hold else "",
                                   f"Below the noise floor: {small}." if small else "",
                                   still_open(entry, records) if found else "", facts)))
    lines = [f"({anchor(entry.key)})=", f"### {entry.key}. {entry.text}", "", words]
    rows = comparison_table(found, luck(records))
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
