"""What the page "Claims and evidence" has entries for, and with which recorded runs each is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from book.facts import (
    caught,
    collapse,
    cost_by_points,
    cost_of_mixing,
    failed_training,
    pathology,
    plain,
    pretrained_networks,
    reached,
)
from book.names import (
    AFTER_2500,
    ALWAYS,
    BEGUN,
    FASTER,
    LIGHT,
    LONG_PRETRAINING,
    LONGER,
    OTHERS,
    PRETRAINED,
    SCRATCH,
    STRONGER,
    SWIN,
    TAUGHT,
    UNET,
    WIDE,
)
from book.under_corruption import found_less, keypoints_under, told_by_monitor
from kaf.monitors import FLAT


@dataclass(frozen=True)
class Trial:
    """Labels against a reference in the recorded runs of a grid; ``hardest``: what corruption costs them."""

    grid: str
    labels: tuple[str, ...]
    reference: str
    hardest: bool = False


@dataclass(frozen=True)
class Entry:
    """One entry of the page."""

    key: str
    text: str
    trials: tuple[Trial, ...] = ()
    chapter: str = ""  # where it is shown, with its figure
    claim: str = ""  # "better" or "worse", where the comparisons of a claim say so if it holds; empty for a question
    by_group: bool = False  # once for each group of patients
    facts: Callable[[Path], str] | None = None  # further findings in words, of the folder of records; empty: none
    outcome: Callable[[Path], str] | None = None  # the verdict, where no comparison gives one
    grids: tuple[str, ...] = ()  # what facts and outcome are taken from, besides those of the trials
    command: str = ""  # that makes what is shown, where it is not recorded


def settings(method: str, *names: str) -> tuple[str, ...]:
    """Labels of a method under some settings."""
    return tuple(f"{method}: {name}" for name in names)


def both(grid: str, *names: str) -> tuple[Trial, ...]:
    """The same settings of KAF from scratch and pretrained, each against itself as it is."""
    return tuple(Trial(grid, settings(method, *names), method) for method in (SCRATCH, PRETRAINED))


POINTS = tuple(f"{count} points" for count in (12, 25, 50, 100, 200, 500))
CORRUPTIONS = ("blur", "noise", "contrast", "bias")
PARTS = {
    "Mechanisms": (
        Entry("M1", "The layer brings long-range dependence into a convolutional network: keypoints that do not see "
              "each other are worse", (Trial("claims", settings(SCRATCH, "no mixing"), SCRATCH),
                                      Trial("mixers", settings(PRETRAINED, "no mixing"), PRETRAINED)),
              "07_ablations", "worse", facts=lambda _: "With keypoints at other places: D4."),
        Entry("M2", "Global and local pretraining is a better start under few labels: others are worse",
              (Trial("fewshot", (SCRATCH, *OTHERS), PRETRAINED), Trial("fewshot_laptop", (SCRATCH,), PRETRAINED)),
              "06_fewshot", "worse", facts=pretrained_networks),
        Entry("M3", "The layer helps without pretraining too, most when labels are fewest; also beside a UNet of the "
              "same widths", (*(Trial(grid, (SCRATCH,), reference) for grid in ("fewshot", "fewshot_laptop")
                                for reference in (UNET, WIDE)),
                              Trial("fewshot_laptop", AFTER_2500[:1], AFTER_2500[1])),
              "06_fewshot", "better"),
    ),
    "First experiments": (
        Entry("E1", "One layer after the first encoder block is better than none, with two labelled patients",
              (Trial("claims", settings(SCRATCH, "level 1"), UNET),), "07_ablations", "better",
              facts=failed_training(2)),
        Entry("E2", "50, 100 or 200 keypoints",
              tuple(Trial(grid, settings(SCRATCH, "50 points", "100 points", "200 points"), SCRATCH)
                    for grid in ("points", "points_laptop")), "07_ablations", facts=cost_by_points),
        Entry("E3", "Global losses alone against global and local together",
              (Trial("ablation", settings(PRETRAINED, "L_pcl", "L_global"), PRETRAINED),
               Trial("claims", settings(PRETRAINED, "L_pcl + L_global"), PRETRAINED)), "07_ablations"),
    ),
    "Open questions": (
        Entry("Q1", "Dice against the number of keypoints: is there a best trade-off with cost?",
              (*both("points", *POINTS), Trial("points_laptop", settings(SCRATCH, *POINTS), SCRATCH)), "07_ablations",
              facts=lambda _: "What each number costs: E2 and chapter 7."),
        Entry("Q2", "KAF in three dimensions"),
        Entry("Q3", "How far may the matching window vary, on more than one data set?",
              (Trial("window", settings(PRETRAINED, "6 mm", "12 mm", "25 mm", "50 mm"), PRETRAINED),),
              "07_ablations"),
        Entry("Q4", "Are graph networks and other transformers better or worse than the mixing of KAF?",
              (*both("mixers", "graph", "paper's block"),
               *(Trial(grid, (SWIN,), SCRATCH) for grid in ("mixers", "fewshot"))),
              "09_alternatives", facts=cost_of_mixing),
    ),
    "Checks that were never made": (
        Entry("C1", "Paired significance tests of the improvements",
              (Trial("fewshot", (WIDE, SWIN, SCRATCH, *OTHERS, PRETRAINED), UNET),
               Trial("fewshot", (*OTHERS, PRETRAINED), LONGER)), "06_fewshot"),
        Entry("C2", "The contribution of the local loss by itself: without it pretraining is worse",
              (Trial("claims", settings(PRETRAINED, "L_pcl + L_global"), PRETRAINED),), "07_ablations", "worse"),
        Entry("C3", "Images corrupted by blur and noise: what happens to keypoints and to segmentation?",
              tuple(Trial("corruption", (SCRATCH, PRETRAINED), reference, hardest=True) for reference in (UNET, WIDE)),
              "08_robustness",
              facts=keypoints_under(("blur", "noise"), "repeatability", "Share of keypoints found again")),
    ),
    "Limitations": (
        Entry("L1", "Keypoint quality in low contrast and noise", (), "08_robustness", grids=("corruption",),
              facts=keypoints_under(("contrast", "noise", "bias"), "repeatability", "Share of keypoints found again"),
              outcome=found_less(("contrast", "noise", "bias"))),
        Entry("L2", "Similar anatomy within a position threshold may not hold for pathology",
              (Trial("fewshot", (PRETRAINED,), SCRATCH),), "08_robustness", by_group=True, facts=pathology),
        Entry("L3", "Several readings of gathering and scattering: do they differ?",
              (Trial("ablation", settings(SCRATCH, "nearest gather", "sum scatter", "overwrite scatter"), SCRATCH),),
              "07_ablations"),
    ),
    "Failure signatures": (
        Entry("F1", "Keypoints cluster on background", (), "08_robustness", grids=("corruption",),
              outcome=told_by_monitor(CORRUPTIONS, "on_background"),
              facts=keypoints_under(CORRUPTIONS, "on_background", "Share of keypoints on background, as the monitor "
                                    "says, which noise deceives (chapter 8)")),
        Entry("F2", "Attention goes flat", (), "08_robustness", grids=("corruption",),
              outcome=told_by_monitor(CORRUPTIONS, "entropy", FLAT),
              facts=keypoints_under(CORRUPTIONS, "entropy", "Entropy of the attention, where 1 is flat and above "
                                    f"{FLAT:g} is called so", 3)),
        Entry("F3", "Pretraining collapses", (), "05_pretrain", facts=collapse, outcome=caught,
              command="papermill chapters/05_pretrain.ipynb out05.ipynb -p scale smoke"),
    ),
    "Design": (
        Entry("D1", "Which levels need a layer?", (Trial("ablation", settings(
            SCRATCH, "level 1", "level 2", "level 3", "level 4", "levels 2, 3, 4", "levels 1, 3, 4", "levels 1, 2, 4",
            "levels 1, 2, 3"), SCRATCH),), "07_ablations"),
        Entry("D2", "How deep need the mixing be?",
              (Trial("ablation", settings(SCRATCH, "depth 3", "depth 6", "depth 16"), SCRATCH),), "07_ablations"),
        Entry("D3", "How much weight for the local loss?",
              (Trial("ablation", settings(PRETRAINED, "0.01 L_local", "1 L_local"), PRETRAINED),), "07_ablations"),
        Entry("D4", "The detector matters: keypoints other than those of SIFT are worse",
              both("detectors", "ORB", "grid", "random"), "07_ablations", "worse"),
        Entry("D5", "Should a layer begin by adding nothing?",
              (Trial("ablation", settings(SCRATCH, "zero start"), SCRATCH),), "07_ablations"),
        Entry("D6", "Pretraining needs more frames than the end-diastolic ones: with those alone it is worse",
              (Trial("ablation", settings(PRETRAINED, "ED only"), PRETRAINED),), "07_ablations", "worse"),
        Entry("D7", "Does self-training on slices without labels help?",
              tuple(Trial("selftrained", (f"{network} self-trained",), reference + words)
                    for network, reference in ((UNET, UNET), (WIDE, WIDE), ("KAF", PRETRAINED))
                    for words in ("", ": as many steps")), "09_alternatives"),
        Entry("D8", "Should only the largest piece of each predicted structure be kept?",
              (Trial("components", ("UNet: largest component",), UNET),), "09_alternatives"),
        Entry("D9", "How far does long self-training go, with larger images and more filters?",
              (*(Trial("strongest", (TAUGHT,), network + words) for network in (UNET, WIDE)
                 for words in ("", ": as many steps")),
               *(Trial("strongest", (f"{TAUGHT}: after 2500 steps",), reference)
                 for reference in (TAUGHT, f"{WIDE}: as many steps")),
               *(Trial("strongest", (f"{name}, three angles",), name)
                 for name in (f"{TAUGHT}: after 2500 steps", f"{WIDE}: as many steps")),
               Trial("strongest", (f"{TAUGHT}: after 2500 steps, three angles, {STRONGER}",),
                     f"{TAUGHT}: after 2500 steps, three angles"),
               *(Trial("strongest", (f"{TAUGHT}: after {steps} steps, three angles",), reference)
                 for steps, reference in ((2500, f"{WIDE}: 5000 steps, three angles"),
                                          (5000, f"{TAUGHT}: after 2500 steps, three angles"))),
               Trial("strongest", (f"{WIDE}: 5000 steps, three angles",), f"{WIDE}: as many steps, three angles")),
              "09_alternatives", facts=reached),
        Entry("D10", "How long networks are trained matters: a fifth of the steps is worse",
              tuple(Trial("length", (f"{method}: brief",), method) for method in (UNET, WIDE, SCRATCH, PRETRAINED)),
              "07_ablations", "worse"),
        Entry("D11", "Does it help to pretrain encoder and decoder, by restoring masked slices?",
              tuple(Trial("restoration", ("Restoration",), reference) for reference in (UNET, LONGER)),
              "09_alternatives"),
        Entry("D12", "Should slices be predicted turned as well, and the mean be taken?",
              (Trial("rotations", settings(WIDE, "10 degrees", "20 degrees"), WIDE),), "09_alternatives"),
        Entry("D13", "Where do methods stand after a fifth of the steps, and does long pretraining help then?",
              (Trial("length", (f"{WIDE}: brief", f"{SCRATCH}: brief", f"{PRETRAINED}: brief"), f"{UNET}: brief"),
               *(Trial("length", (LONG_PRETRAINING,), f"{method}: brief")
                 for method in (PRETRAINED, SCRATCH, UNET))), "07_ablations", facts=failed_training(2, 6)),
        Entry("D14", "What do patients set aside from training say of augmentation, loss, rate, norm, initialisation, "
              "fusion, a mean of weights and mirrored prediction?",
              (Trial("recipes", settings(UNET, "half the augmentation", STRONGER, "no augmentation",
                                         "cross-entropy", "mean of weights", "predicted mirrored too",
                                         "trained and predicted mirrored", BEGUN), UNET),
               Trial("recipes", settings(UNET, f"{STRONGER}, instance norm", FASTER, BEGUN,
                                         f"{BEGUN}, {STRONGER}", ALWAYS),
                     f"{UNET}: {STRONGER}"),
               Trial("recipes", settings(WIDE, BEGUN), WIDE),
               Trial("recipes", (LIGHT,), SCRATCH)), "09_alternatives"),
        Entry("D15", "What does twice the augmentation bring to the UNets and to KAF, and who is ahead then?",
              (*(Trial(grid, settings(UNET, STRONGER), UNET) for grid in ("baseline", "augmented")),
               Trial("baseline", settings(UNET, FASTER), f"{UNET}: {STRONGER}"),
               *(Trial("augmented", settings(method, STRONGER), method) for method in (WIDE, SCRATCH, PRETRAINED)),
               *(Trial("augmented", settings(SCRATCH, STRONGER), f"{method}: {STRONGER}") for method in (UNET, WIDE))),
              "09_alternatives", facts=plain),
        Entry("D16", "Does it matter what weights begin with, and who is ahead with smaller ones?",
              (*(Trial(grid, settings(UNET, BEGUN), UNET) for grid in ("baseline", "initialised")),
               Trial("baseline", settings(UNET, f"{BEGUN}, {STRONGER}"), f"{UNET}: {STRONGER}"),
               Trial("baseline", settings(UNET, ALWAYS), f"{UNET}: {FASTER}"),
               *(Trial("initialised", settings(method, BEGUN), method) for method in (WIDE, SCRATCH, PRETRAINED)),
               *(Trial("initialised", settings(method, BEGUN), f"{other}: {BEGUN}")
                 for method, other in ((WIDE, UNET), (SCRATCH, UNET), (SCRATCH, WIDE), (PRETRAINED, WIDE),
                                       (PRETRAINED, SCRATCH)))),
              "09_alternatives"),
        Entry("D17", "Does the light fusion, which patients set aside chose, help on those who are tested?",
              tuple(Trial("fused", (LIGHT,), reference) for reference in (SCRATCH, UNET, WIDE)), "09_alternatives"),
        Entry("D18", "Is KAF ahead of a UNet of the same widths with pretraining?",
              tuple(Trial(grid, (PRETRAINED,), WIDE) for grid in ("fewshot", "fewshot_laptop")), "09_alternatives"),
    ),
}
