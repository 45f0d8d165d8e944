import papermill
import pytest
import yaml

from kaf.records import write_record
from tests.workflow.test_plan import corrupted, record_of
from workflow import job
from workflow.grids import expand

GRID = {"runs": [{"methods": ["unet_selftrained"], "m": [1]}]}


@pytest.fixture
def source():
    """The job that the only one of the grid goes on from."""
    return expand(GRID)[0].source


@pytest.fixture
def given(tmp_path, monkeypatch, source):
    """Runs the source as a job of the grid; what its notebook would be given."""
    (tmp_path / "grids.yaml").write_text(yaml.safe_dump({"chains": GRID}))
    seen = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda page, out, values, **kwargs: seen.append(values))

    def run(*words):
        job.main(["few_shot", "chains", source.key, "--file", str(tmp_path / "grids.yaml"),
                  "--notebook", str(tmp_path / "job.ipynb"), "--records", str(tmp_path / "records"), *words])
        return seen[-1]

    return run


def test_a_run_is_added_to_the_record_of_its_grid(given, tmp_path):
    assert given()["record"] == "chains" and given()["records_folder"] == str(tmp_path / "records")


def test_a_run_that_another_grid_recorded_is_not_recorded_twice(given, tmp_path, source):
    write_record(record_of(source), "other", tmp_path / "records")
    assert "record" not in given()


def test_a_record_of_corrupted_images_is_no_record_of_the_run(given, tmp_path, source):
    write_record(corrupted(source, {"blur": [1.0]}), "corruption", tmp_path / "records")
    assert given()["record"] == "chains"


@pytest.mark.parametrize("there, words, workers", [(False, [], 0), (True, [], 5), (True, ["--device", "cpu"], 0),
                                                  (True, ["--workers", "1"], 1)])
def test_a_gpu_is_read_ahead_for(given, monkeypatch, there, words, workers):
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    monkeypatch.setattr("kaf.data.pairs.count_cores", lambda: 6)
    assert given(*words)["workers"] == workers


def test_an_unknown_grid_is_named_with_those_there_are(tmp_path, capsys):
    (tmp_path / "grids.yaml").write_text(yaml.safe_dump({"chains": GRID}))
    with pytest.raises(SystemExit):
        job.main(["few_shot", "chain", "key", "--file", str(tmp_path / "grids.yaml"), "--notebook", "job.ipynb"])
    assert "unknown grid 'chain'; choose one of chains" in capsys.readouterr().err


def test_a_wrong_folder_of_data_is_one_line(tmp_path, capsys):
    grid = {"runs": [{"methods": ["unet"], "m": [1], "dataset": "acdc"}]}
    (tmp_path / "grids.yaml").write_text(yaml.safe_dump({"some": grid}))
    with pytest.raises(SystemExit, match="2"):
        job.main(["store", "some", expand(grid)[0].store_key, "--file", str(tmp_path / "grids.yaml"),
                  "--output", str(tmp_path), "--data-root", str(tmp_path / "nowhere")])
    assert "nowhere" in capsys.readouterr().err.split("error: ")[1]


def test_a_record_that_cannot_be_written_is_told_before_the_work(given, tmp_path, capsys):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "chains.json").write_text("[]")
    with pytest.raises(SystemExit, match="2"):
        given()
    assert "chains.json in " in capsys.readouterr().err.split("error: ")[1]


@pytest.mark.parametrize("stop, said", [
    (KeyboardInterrupt, "stopped; the same command again goes on from what was saved\n"),
    (KeyboardInterrupt("stopped with 2 of 4 volumes prepared"), "stopped with 2 of 4 volumes prepared\n")])
def test_who_stops_a_job_reads_how_it_goes_on(stop, said, given, monkeypatch, capsys):
    def stopped(*args, **kwargs):
        raise stop

    monkeypatch.setattr(papermill, "execute_notebook", stopped)
    with pytest.raises(SystemExit) as end:
        given()
    assert end.value.code == 130 and capsys.readouterr().err == said


def test_relative_folders_are_those_of_who_asks(tmp_path, monkeypatch, source):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    seen = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda page, out, values, **kwargs: seen.append(values))
    (tmp_path / "grids.yaml").write_text(yaml.safe_dump({"chains": GRID}))
    job.main(["few_shot", "chains", source.key, "--file", str(tmp_path / "grids.yaml"), "--notebook", "pages/job.ipynb",
              "--records", "records", "--output", "home", "--data-root", "data"])
    asked = [seen[0][name] for name in ("records_folder", "output", "data_root")]
    assert asked == [str(tmp_path / "here" / name) for name in ("records", "home", "data")]
