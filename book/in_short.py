"""What most readers come for: the main questions, each with its answer, at the top of the page of claims."""

from pathlib import Path

from book.evidence import evidence
from book.findings import ENTRIES, OPEN, luck, measure
from book.lines import anchor, comparison_table
from book.names import (
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
)
from kaf.noise import NoiseByPlace, luck_in_words
from kaf.verdicts import Comparison

ANSWERS = {
    frozenset({"better"}): "Yes.", frozenset({"better", "no difference shown"}): "In some cases.",
    frozenset({"worse"}): "No, it is worse.",
    frozenset({"worse", "no difference shown"}): "No, in some cases it is worse.",
    frozenset({"no difference shown"}): "Not shown.",
}  # fmt: skip
#: A question, and the comparison of an entry that answers it.
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
    ("And the UNet, whose widths it has then?", "D17", LIGHT, UNET),
    ("Does self-training help more than as many steps on the labels?", "D9", TAUGHT, f"{WIDE}: as many steps"),
)


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
                         f"{by_verdict(found, luck(records))} ([{key}](#{anchor(key)}))")
        rows += found
    head = [f"- {open_}" for open_ in [OPEN] if not rows]
    return [*lines, *head, "", meaning(records), "",
            "How far the best of them goes, beside the paper: [D9](#entry-d9).", "",
            ":::{dropdown} The differences", *comparison_table(rows, luck(records)), ":::", ""]


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
                     "corrected test or both leave it open. Each fold was trained once, with one draw of labelled "
                     "patients."])
