"""The page "Claims and evidence": what it says follows from records, the committed one from the committed records."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from book import facts, findings, in_short
from book.evidence import evidence
from book.lines import comparison_table
from book.names import FASTER, LIGHT, LONG_PRETRAINING, OTHERS, PRETRAINED, SCRATCH, STRONGER, TAUGHT, UNET, WIDE
from kaf.cost import read_costs
from kaf.evaluate import pooled_dice
from kaf.finetune import METHODS
from kaf.noise import Noise, below_floor
from kaf.records import CORRUPTED, FOLDER, Record, write_record
from kaf.verdicts import Comparison, Place, comparisons, corrected
from tests.workflow.test_plan import record_of
from workflow.grids import expand, load_grids

ROOT = Path(__file__).parents[2]
PLACE = Place("acdc", "smoke", 2)
SPEC = importlib.util.spec_from_file_location("claims", ROOT / "book" / "claims.py")
claims = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(claims)
ENTRIES = {entry.key: entry for entries in claims.PARTS.values() for entry in entries}
ONE_GRID = replace(ENTRIES["M3"], trials=tuple(t for t in ENTRIES["M3"].trials if t.grid == "fewshot"))
ASKED = {f"{part}{n}" for part, count in (("M", 3), ("E", 3), ("Q", 4), ("C", 3), ("L", 3), ("F", 3))
         for n in range(1, count + 1)}


def patients(job, dice):
    """The record of a job, for sixteen patients."""
    one, rng = record_of(job), np.random.default_rng(list(METHODS).index(job.method))
    rows = pd.concat([one.rows.assign(patient=f"p{n}", group="AB"[n % 2], dice=dice + 0.005 * rng.standard_normal())
                      for n in range(16)], ignore_index=True)
    return Record(rows, one.runs)


def jobs(grid, *methods):
    return [job for job in expand(load_grids()[grid]) if job.method in methods and job.setting == ""
            and (job.m, job.fold, job.scale) == (2, 0, "smoke")]


def test_every_claim_that_was_listed_has_its_entry():
    assert set(ENTRIES) >= ASKED


def test_the_committed_page_is_that_of_the_committed_records():
    assert claims.PAGE.read_text() == claims.page(), "run python book/claims.py"


@pytest.mark.parametrize("kaf, verdict", [(0.8, "Supported, for these trained networks alone."), (0.7, "Not shown."),
                                         (0.6, "Contradicted, for these trained networks alone.")])
def test_the_verdict_of_a_claim_follows_from_the_records(kaf, verdict, tmp_path):
    for job in jobs("fewshot", "unet", "wide_unet", "kaf_scratch"):
        write_record(patients(job, kaf if job.method == "kaf_scratch" else 0.7), "any", tmp_path)
    text = "\n".join(claims.section(ENTRIES["M3"], tmp_path))
    assert f"**{verdict}**" in text and "hold over trainings" not in text
    assert text.count("| KAF from scratch against ") == 2


@pytest.mark.parametrize("gains, hold", [((0.05, 0.06, 0.05), 2), ((0.2, 0.001, 0.03), 0)])
def test_a_verdict_says_whether_trainings_agree(gains, hold, tmp_path):
    for fold, gain in enumerate(gains):
        for job in jobs("fewshot", "unet", "wide_unet", "kaf_scratch"):
            record = patients(replace(job, fold=fold), 0.7 + gain * (job.method == "kaf_scratch"))
            rows = record.rows.assign(patient=f"{fold}-" + record.rows["patient"])
            write_record(Record(rows, record.runs), "any", tmp_path)
    text = "\n".join(claims.section(ENTRIES["M3"], tmp_path))
    alone = "" if hold else ", for these trained networks alone"
    assert f"**Supported{alone}.** Of these differences {hold} of 2 hold over trainings, too. Not" in text
    line, = re.findall(r"^\| KAF from scratch against UNet, M = 2, 2000 steps .*$", text, re.MULTILINE)
    assert "On acdc, scale smoke:\n" in text and "| better" in line and line.endswith("| 48 | 3 |")


def test_what_is_planned_and_not_recorded_is_named(tmp_path):
    for job in jobs("fewshot", "unet", "kaf_scratch"):
        write_record(patients(job, 0.7), "any", tmp_path)
    text = "\n".join(claims.section(ONE_GRID, tmp_path))
    wanted = [job for job in expand(load_grids()["fewshot"]) if job.method in ("unet", "wide_unet", "kaf_scratch")
              and job.setting == ""]
    each = len(wanted) // 3
    assert (f"Not recorded yet, {3 * each - 2} of {3 * each} runs: wide UNet ({each}), UNet ({each - 1}), "
            f"KAF from scratch ({each - 1}).") in text


def test_trainings_of_several_folds_are_counted(tmp_path):
    for fold in (0, 1):
        for job in jobs("fewshot", "unet", "wide_unet", "kaf_scratch"):
            write_record(patients(replace(job, fold=fold), 0.7), "any", tmp_path)
    text = "\n".join(claims.section(ONE_GRID, tmp_path))
    assert text.count("| 16 | 2 |\n") == 2
    assert "Records: `fewshot` (80 px of 2.5 mm, 8 filters, 2000 steps of 8, in bf16). Commands: `snakemake" in text


def test_the_overview_has_every_entry_and_its_verdict(tmp_path):
    lines = {key: line for line in claims.overview(tmp_path) for key in re.findall(r"^\| \[(\w+)\]", line)}
    assert set(lines) == set(ENTRIES) and f"| {findings.OPEN} |  |  |" in lines["M3"]
    for job in jobs("fewshot", "unet", "wide_unet", "kaf_scratch"):
        write_record(patients(job, 0.8 if job.method == "kaf_scratch" else 0.7), "any", tmp_path)
    for made_once in (evidence, findings.measure, findings._corrected, findings._largest_p, findings.luck,
                      findings.planned):
        made_once.cache_clear()
    (line,) = (line for line in claims.overview(tmp_path) if line.startswith("| [M3](#entry-m3)"))
    assert line.endswith("| Supported, for these trained networks alone. Partly open. |  |  | 16 | 1 |")
    assert "(entry-m3)=" in claims.section(ENTRIES["M3"], tmp_path)


def test_what_most_readers_come_for_stands_first_from_the_side_that_is_asked_about(tmp_path):
    asked = {key: {(label, t.reference) for t in entry.trials for label in t.labels} for key, entry in ENTRIES.items()}
    for _, key, label, reference in in_short.MAIN:
        assert {(label, reference), (reference, label)} & asked[key], "its entry makes this comparison"
    for job in jobs("fewshot", "unet", "kaf_scratch", "kaf_pretrained"):
        write_record(patients(job, 0.8 if job.method == "kaf_pretrained" else 0.7), "any", tmp_path)
    lines = in_short.in_short(tmp_path)
    asked = [line for line in lines if line.startswith("- **")]
    gain, = (line for line in asked if "KAF pretrained against KAF from scratch" in line)
    plain, = (line for line in asked if "KAF from scratch against UNet" in line)
    assert gain.endswith("*better* (over trainings: one training, a hint) at scale smoke with M = 2 ([M2](#entry-m2))")
    assert "UNet: *no difference shown* at scale smoke with M = 2 (" in plain and len(asked) == 2
    rows = [line for line in lines[lines.index(":::{dropdown} The differences"):] if " against " in line]
    assert len(rows) == 2
    assert rows[1].startswith("| KAF pretrained against KAF from scratch, M = 2, 2000 steps | better")


def test_chapters_have_the_verdicts_of_the_page():
    entry = ENTRIES["M3"]
    trial = entry.trials[0]
    raw = comparisons(evidence(trial.grid, FOLDER).rows, trial.labels, trial.reference)
    page = {(c.label, c.reference, c.place): c for c in findings.measure(entry, FOLDER)}
    strange = replace(raw[0], label="another network", p=0.01)
    *told, other = findings.settled([*raw, strange])
    assert len(told) > 3 and all(c == page[c.label, c.reference, c.place] for c in told)
    assert other.p == corrected([*raw, strange])[-1].p > strange.p
    assert [c.p for c in told] != [c.p for c in corrected(raw)]


@pytest.mark.parametrize("verdicts, said", [
    (["better"] * 2, "Yes."), (["worse"], "No, it is worse."), (["no difference shown"], "Not shown."),
    (["better", "worse"], "It depends."), (["better", "no difference shown"], "In some cases."),
    (["worse", "no difference shown"], "No, in some cases it is worse.")])
def test_a_question_is_answered_first(verdicts, said):
    ends = {"better": (0.1, 0.2, 0.001), "worse": (-0.2, -0.1, 0.001), "no difference shown": (-0.1, 0.1, 0.5)}
    lines = [Comparison("a", "b", PLACE, 16, 1, sum(ends[v][:2]) / 2, *ends[v]) for v in verdicts]
    assert in_short.answer(lines) == said


def test_a_column_that_says_nothing_is_left_out():
    line = Comparison("a", "b", PLACE, 16, 1, 0.1, 0.05, 0.2, 0.001)
    assert "noise floor" not in "\n".join(comparison_table([line], {}))
    head, _, row = comparison_table([replace(line, runs=2, over_runs=(0.05, 0.3))], {})[3:]
    assert "95 % over trainings" in head and "+0.050 to +0.300" in row and head.count("|") == row.count("|")


def test_one_comparison_has_one_verdict_in_all_entries():
    verdicts = {}
    for entry in ENTRIES.values():
        for c in findings.measure(entry, FOLDER):
            side = c if (c.label, c.reference) == tuple(sorted((c.label, c.reference))) else c.flipped
            same = side.label, side.reference, side.place, round(side.difference, 9)
            verdicts.setdefault(same, set()).add((side.verdict, side.p))
    assert len(verdicts) > 100 and all(len(said) == 1 for said in verdicts.values())
    several = [c for key in ("M2", "M3") for c in findings.measure(ENTRIES[key], FOLDER) if c.reference != WIDE]
    assert {(frozenset((c.label, c.reference)), c.place) for c in several} & {
        (frozenset((c.label, c.reference)), c.place) for c in findings.measure(ENTRIES["C1"], FOLDER)}


def test_likeness_of_anatomy_is_told_by_group(tmp_path):
    assert facts.likeness_by_group(tmp_path) == ""
    rows = [{"patient": f"p{n}", "group": "AB"[n % 2], "others": "all groups", "low": low, "high": low + 0.3,
             "dice": dice + 0.01 * n + 0.4 * (low > 0 and n == 7), "pairs": 5}
            for n in range(8) for low, dice in ((0.0, 0.5), (0.35, 0.2))]
    pd.DataFrame(rows).to_csv(tmp_path / "anatomy.csv", index=False)
    (tmp_path / "anatomy.json").write_text('{"threshold": 0.35}')
    said = facts.likeness_by_group(tmp_path)
    assert "A 0.53 and 0.23, B 0.54 and 0.34. The closer ones are more alike in 7 of 8 patients" in said
    assert facts.likeness_by_group(FOLDER) in (ROOT / "book" / "appendix" / "claims.md").read_text()


def test_the_plain_unet_is_told_by_its_means(tmp_path):
    assert facts.plain(tmp_path / "none") == ""
    for job in (job for job in expand(load_grids()["baseline"]) if job.fold < 2 and job.setting != STRONGER):
        write_record(patients(job, 0.7 if job.setting else 0.6), "any", tmp_path)
    said = facts.plain(tmp_path)
    rows = [re.split(r" *\| *", line)[1:-1] for line in said.split("\n") if line.startswith("|")]
    assert ["UNet", "0.599 (2 folds)", "0.599 (2 folds)"] in rows
    assert [f"UNet: {FASTER}", "0.699 (2 folds)", "0.699 (2 folds)"] in rows
    assert f"UNet: {STRONGER}" not in {row[0] for row in rows}


def test_without_runs_of_todays_configuration_an_entry_is_open(tmp_path):
    job, = jobs("fewshot", "kaf_scratch")
    other = replace(job, changes=(("width", 99),))
    write_record(patients(other, 0.9), "any", tmp_path)
    assert f"**{findings.OPEN}**" in "\n".join(claims.section(ENTRIES["M3"], tmp_path))


def test_pathology_is_looked_at_group_by_group(tmp_path):
    for job in jobs("fewshot", "kaf_scratch", "kaf_pretrained"):
        write_record(patients(job, 0.8 if job.method == "kaf_pretrained" else 0.7), "any", tmp_path)
    found = findings.measure(ENTRIES["L2"], tmp_path)
    assert [c.place.about for c in found] == ["A", "B"] and {c.patients for c in found} == {8}


def test_corruption_is_told_by_what_is_lost_and_by_its_keypoints(tmp_path):
    levels = load_grids()["corruption"]["levels"]
    rng = np.random.default_rng(0)
    for job in (job for job in expand(load_grids()["corruption"]) if job.method in ("unet", "kaf_scratch")):
        clean = patients(job, 0.8)
        lost = (0.1 if job.method == "unet" else 0.3) + 0.01 * rng.standard_normal(16)
        good = {"points": 99.0, "repeatability": 1.0, "on_background": 0.1, "entropy": 0.9}
        bad = {**good, "repeatability": 0.4, "on_background": 0.5, "dice": clean.rows["dice"] - lost}
        none = {"bias": {"on_background": np.nan}}
        tables = [clean.rows.assign(corruption=kind, level=float(level), **(bad | none.get(kind, {}) if kind else good))
                  for kind, values in {"": [0.0], **levels}.items() for level in values]
        write_record(Record(pd.concat(tables, ignore_index=True)[CORRUPTED], clean.runs), "corruption", tmp_path)
        write_record(clean, "others", tmp_path)  # of frames and structures, which corrupted images have none of
    text = "\n".join(claims.section(ENTRIES["C3"], tmp_path))
    facts = ("acdc, 16 patients, KAF from scratch, 1 training. Share of keypoints found again: as it is 1.00, blur "
             "3 (px): 0.40, noise 0.3 (of the range): 0.40.")
    said = ("**Worse, for these trained networks alone.** Not recorded yet, 2 of 4 runs: wide UNet (1), KAF pretrained "
            "(1).")
    assert f"{said} {facts}" in text
    assert text.count("| worse |") == len(levels)
    text = "\n".join(claims.section(ENTRIES["F1"], tmp_path))
    assert "as it is 0.10, blur 3 (px): 0.50" in text and "bias 1 (exponent): no keypoints." in text
    told = "Most patients lie above every clean image under"
    none = "Under bias there are no keypoints."
    assert f"**{told} blur, noise and contrast. {none}** " in text
    text = "\n".join(claims.section(ENTRIES["F2"], tmp_path))
    assert f"**Above 0.98 in the mean under none of these. {told} none of these.** " in text
    text = "\n".join(claims.section(ENTRIES["L1"], tmp_path))
    assert "**Fewer than half are found again under contrast, noise and bias.** " in text


def test_an_entry_has_its_verdict_its_records_and_its_command_or_is_open():
    for entry in (one for one in ENTRIES.values() if one.key != "Q2"):
        text = "\n".join(claims.section(entry, FOLDER))
        assert re.search(r"^\*\*[^*]+\.\*\*", text, re.M) and findings.OPEN not in text
        assert re.search("^(Records: .* Commands|Command): `", text, re.M) and "Figure and discussion: " in text
    assert findings.OPEN in "\n".join(claims.section(ENTRIES["Q2"], FOLDER))


def test_a_collapse_is_caught_where_the_monitor_tells_it_from_a_training_that_goes_well(monkeypatch):
    for large, small, said in ((0.02, 0.3, "Happens, and is caught."), (0.02, 0.03, "Happens at both rates."),
                               (0.3, 0.3, "Not shown to happen.")):
        monkeypatch.setattr(facts, "read_numbers", lambda _, large=large, small=small: {
            "spread_at_large_rate": large, "spread_at_small_rate": small})
        assert ENTRIES["F3"].outcome(FOLDER) == said


def test_costs_are_those_of_the_benchmarks(tmp_path):
    assert ENTRIES["E2"].facts(tmp_path) == ENTRIES["Q4"].facts(tmp_path) == ""
    costs = read_costs()
    for count in (64, 512):
        rows = costs["growth, points"].rows.query("points == @count").set_index("unit")["value"]
        assert f"K = {count} {rows['s']:.2f} s and {rows['MiB']:.0f} MiB" in ENTRIES["E2"].facts(FOLDER)
    rows = costs["training step, alternatives"].rows.query("network == 'KAF graph'").set_index("quantity")["ratio"]
    assert f"graph {rows['training step']:.2f} and {rows['peak memory']:.2f}" in ENTRIES["Q4"].facts(FOLDER)


def test_one_verdict_in_words():
    entry = replace(ENTRIES["M3"], claim="worse")
    line = Comparison("a", "b", PLACE, 16, 5, -0.1, -0.2, -0.05, 0.001, over_runs=(-0.2, -0.01))
    nothing = replace(line, p=1.0)
    assert findings.verdict_of(entry, [line], {}) == "Supported."
    assert findings.verdict_of(entry, [line, nothing], {}) == "Supported in some comparisons, not shown in others."
    assert findings.verdict_of(replace(entry, claim=""), [line, nothing], {}) == "Worse in some."
    fair = replace(nothing, reference="b: as many steps")
    assert findings.verdict_of(entry, [line, fair], {}) == "Worse; beside as many steps in all: no difference shown."
    assert findings.verdict_of(entry, [line, replace(fair, related=True)], {}).startswith("Supported in some")
    assert findings.verdict_of(entry, [replace(line, reference="b: as many steps")], {}) == "Supported."


def test_what_luck_can_make_is_no_support():
    entry = replace(ENTRIES["M3"], claim="worse")
    line = Comparison("a", "b", PLACE, 16, 5, -0.1, -0.2, -0.05, 0.001, 400, over_runs=(-0.2, 0.1))
    said = "Not shown beyond the luck of trainings; supported over these patients."
    wide, narrow = ({(PLACE, 400, "a"): Noise(variance, 3)} for variance in (0.1, 1e-6))
    assert findings.verdict_of(entry, [line], wide) == said
    assert findings.verdict_of(entry, [line], narrow) == "Supported, for these trained networks alone."
    assert findings.verdict_of(entry, [replace(line, over_runs=(-0.2, -0.01))], wide) == "Supported."


@pytest.mark.parametrize("runs, over, ends", [(1, (float("nan"),) * 2, ", for these trained networks alone."),
                                              (5, (-0.2, 0.1), ", for these trained networks alone."),
                                              (5, (-0.2, -0.01), "in some.")])
def test_a_verdict_is_limited_where_nothing_that_is_shown_holds_over_trainings(runs, over, ends):
    line = Comparison("a", "b", PLACE, 16, runs, -0.1, -0.2, -0.05, 0.001, over_runs=over)
    said = findings.verdict_of(replace(ENTRIES["M3"], claim=""), [line, replace(line, p=1.0)], {})
    assert said.startswith("Worse in some") and said.endswith(ends)
    assert findings.verdict_of(ENTRIES["M3"], [replace(line, p=1.0)], {}) == "Not shown."


def test_each_half_of_a_verdict_is_limited_by_itself():
    line = Comparison("a", "b", PLACE, 16, 5, -0.1, -0.2, -0.05, 0.001, over_runs=(-0.2, -0.01))
    fair = replace(line, reference="b: as many steps", over_runs=(-0.2, 0.1))
    said = findings.verdict_of(ENTRIES["M3"], [line, fair], {})
    assert said == "Worse; beside as many steps in all: worse, for these trained networks alone."
    said = findings.verdict_of(ENTRIES["M3"], [replace(line, runs=1), replace(fair, p=1.0)], {})
    assert said == "Worse, for these trained networks alone; beside as many steps in all: no difference shown."


def test_networks_are_described_whose_settings_are_compared(tmp_path):
    job = next(job for job in expand(load_grids()["ablation"]) if job.method == "kaf_pretrained" and job.setting == "")
    write_record(patients(job, 0.7), "any", tmp_path)
    (said,) = findings.as_it_is(ENTRIES["E3"], "ablation", tmp_path)
    e = job.experiment
    assert said == (f"KAF pretrained as it is, in `ablation` on acdc: {e.data.points} keypoints of SIFT a slice at "
                    f"most, layers behind levels 1, 2, 3, 4, {e.kaf.depth} blocks deep, weights 1, 1, 0.1 of L_pcl, "
                    f"L_global and L_local, a matching window of {e.pretrain.match_px * e.data.spacing_mm:g} mm, "
                    f"{e.finetune.optim.steps} steps of fine-tuning.")
    assert findings.as_it_is(ENTRIES["M3"], "fewshot", tmp_path) == []


def test_what_the_first_pages_say_of_the_outcome_is_so():
    told = ("No network with them, pretrained or not, is shown ahead of the {term}`wide UNet`, a plain UNet with the "
            "widths that the paper's layers bring. Three comparisons with the narrower UNet come out ahead. With "
            "twenty labelled patients and no pretraining a network with them leads it, but the wide UNet leads it by "
            "more. With six, after long pretraining and brief fine-tuning, or with layers that leave the widths as "
            "they are, the lead is no more than luck in training can make.")
    gained = ("With two labelled patients it puts a wide UNet ahead of as many steps on the labels, too; with six no "
              "such lead is shown. And, with two, images that are varied more strongly in training, for both UNets. "
              "Networks with KAF layers gain by both over patients; that other trainings of them would is not shown.")
    found = [c for entry in ENTRIES.values() if not entry.trials or not entry.trials[0].hardest
             for line in findings.measure(entry, FOLDER) for c in (line, line.flipped)]
    ours = [c for c in found if c.label.startswith("KAF") and "self-trained" not in c.label]
    beside = {name: [c for c in ours if c.reference.split(":")[0] == name] for name in (WIDE, UNET)}
    assert {SCRATCH, PRETRAINED} <= {c.label for c in beside[WIDE]}
    assert not any(c.verdict == "better" for c in beside[WIDE])
    ahead = [c for c in beside[UNET] if c.verdict == "better"]
    assert len(beside[UNET]) > 10
    leads = {(c.label, c.place.m): c for c in ahead}
    assert leads.keys() == {(LONG_PRETRAINING, 6), (LIGHT, 6), (SCRATCH, 20)}
    chance = [key for key, c in leads.items() if below_floor(c, findings.luck(FOLDER)) or not c.trainings_agree]
    assert {*chance} == {(LONG_PRETRAINING, 6), (LIGHT, 6)}
    (wide,) = {c for c in found if (c.label, c.reference, c.place) == (WIDE, UNET, leads[SCRATCH, 20].place)}
    assert wide.verdict == "better" and wide.difference > leads[SCRATCH, 20].difference
    taught = [c for c in findings.measure(ENTRIES["D7"], FOLDER) if c.place.m == 2 and c.related]
    assert {c.reference for c in taught} == {UNET, WIDE, PRETRAINED}
    assert all(c.verdict == "better" for c in taught)
    fair = {c.place.m: c.verdict for c in findings.measure(ENTRIES["D9"], FOLDER)
            if (c.label, c.reference) == (TAUGHT, f"{WIDE}: as many steps")}
    assert fair == {2: "better", 6: "no difference shown"}
    first_page = " ".join((claims.BOOK / "index.md").read_text().split())
    assert told in first_page and gained in first_page
    augmented = [c for c in findings.measure(ENTRIES["D15"], FOLDER) if c.place.m == 2]
    (stronger,) = (c for c in augmented if c.place.scale == "laptop")
    itself = [c for c in augmented if c.label == f"{c.reference}: {STRONGER}"]
    assert {c.reference for c in itself} == {UNET, WIDE, SCRATCH} and all(c.verdict == "better" for c in itself)
    assert {c.reference for c in itself if c.trainings_agree} == {UNET, WIDE}
    assert {c.runs for c in taught if c.reference == PRETRAINED} == {1}
    pretrained = [c.difference for key in ("M2", "C1", "D11", "D13") for line in findings.measure(ENTRIES[key], FOLDER)
                  for c in (line, line.flipped) if c.place.m == 2 and c.reference.split(":")[0] in
                  (UNET, SCRATCH) and c.label.split(":")[0] in (*OTHERS, PRETRAINED, "Restoration")]
    assert stronger.trainings_agree and stronger.difference > max(pretrained) and len(pretrained) > 8
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "did not beat a UNet of the same widths beyond luck in training" in readme


def test_what_chapter_6_says_of_the_patients_with_the_same_images_is_so():
    lines = claims.twins(FOLDER).splitlines()
    assert "- KAF from scratch against UNet (acdc, scale smoke, M = 2): no difference shown, then worse" in lines
    chapter = json.loads((claims.BOOK / "chapters" / "06_fewshot.ipynb").read_text())
    text = " ".join(" ".join("".join(cell["source"]) for cell in chapter["cells"]).split())
    assert "Without the two patients that hold the same images it does, and the layer is *worse*" in text


def test_differences_are_counted_that_hold_over_trainings_and_that_are_below_the_floor():
    line = Comparison("a", "b", PLACE, 16, 1, -0.1, -0.2, -0.05, 0.001, 400)
    several = replace(line, runs=5, over_runs=(-0.2, -0.01))
    lines = [line, several, replace(several, over_runs=(-0.2, 0.1)), replace(line, p=1.0)]
    assert claims.luck_of(lines, {}) == ("1 of 2", "") and claims.luck_of(lines[-1:], {}) == ("", "")
    assert claims.luck_of(lines, {(PLACE, 400, "a"): Noise(0.002, 3)}) == ("1 of 2", "1 of 3")


def test_how_far_it_got_is_said_beside_the_paper(tmp_path):
    assert ENTRIES["D9"].facts(tmp_path) == ""
    for job in expand(load_grids()["strongest"]):
        write_record(patients(job, 0.8 if job.method == "wide_unet_selftrained" else 0.7), "any", tmp_path)
    evidence.cache_clear()
    said = ENTRIES["D9"].facts(tmp_path)
    rows = evidence("strongest", tmp_path).rows.query(
        "m == 2 and method == 'wide UNet self-trained' and setting == ''")
    mean, pooled = rows["dice"].mean(), pooled_dice(rows, ["fold", "structure"]).mean()
    lines = said.split("\n")
    assert f"| {TAUGHT} | 2 | {mean:.3f} | {pooled:.3f} | 5 folds |" in lines
    assert lines[0].endswith("may be a little kind.") and "three angles | 6 | 0." in said
    assert {f"| the paper's best | {m} |  | {dice} | 5 folds |" for m, dice in ((2, 0.741), (6, 0.873))} <= {*lines}


@pytest.mark.parametrize("tested, labels, pool, said", [
    (["p1", "patient074"], ["p2"], ["p2", "patient076"], "in 1 of 1 runs pretraining"),
    (["p1", "patient074"], ["patient076"], ["p2", "patient076"], "and in 1 a training had labels"),
    (["p1", "patient074"], ["p2"], ["p2"], "in 0 of 1 runs pretraining"),
    (["p1"], ["patient074"], ["p2", "patient076"], "in 0 of 1 runs pretraining")])
def test_runs_that_saw_a_test_patient_under_another_name_are_counted(tested, labels, pool, said, tmp_path):
    (job,) = jobs("fewshot", "kaf_pretrained")
    one = record_of(job)
    (facts,) = one.runs.values()
    facts["config"]["patients"], facts["pretraining"]["config"]["patients"] = labels, pool
    rows = pd.concat([one.rows.assign(patient=patient) for patient in tested], ignore_index=True)
    write_record(Record(rows, one.runs), "any", tmp_path)
    text = " ".join(claims.twins(tmp_path).split())
    assert said in text
