"""The entry points refuse what they do not know, from whatever folder they are started."""

from pathlib import Path

import papermill
import pytest

CHAPTERS = Path(__file__).parents[2] / "book" / "chapters"


@pytest.mark.parametrize("chapter", ["05_pretrain", "06_fewshot"])
@pytest.mark.parametrize(("parameters", "message"), [
    ({"scael": "smoke"}, "unknown parameter 'scael'; did you mean 'scale'"),
    ({"scale": "tiny"}, "unknown scale 'tiny'; choose one of smoke, laptop, full"),
    ({"dataset": "acdc"}, "needs data_root"),
])
def test_wrong_parameters_stop_the_run(chapter, parameters, message, tmp_path, monkeypatch):
    monkeypatch.setenv("KAF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        papermill.execute_notebook(CHAPTERS / f"{chapter}.ipynb", tmp_path / "out.ipynb", parameters,
                                   progress_bar=False)


@pytest.mark.parametrize("chapter", sorted(path.stem for path in CHAPTERS.glob("*.ipynb")))
def test_every_chapter_refuses_a_mistyped_parameter(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("KAF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter 'sede'; did you mean 'seed'"):
        papermill.execute_notebook(CHAPTERS / f"{chapter}.ipynb", tmp_path / "out.ipynb", {"sede": 1},
                                   progress_bar=False)
