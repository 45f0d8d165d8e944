import pytest

from kaf.progress import progress_bar


@pytest.mark.parametrize(("variable", "quiet", "shown"), [
    (None, False, True), (None, True, False), ("1", False, False), ("0", False, True), ("", False, True),
])
def test_silent_when_asked_or_told_by_the_environment(variable, quiet, shown, monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if variable is not None:
        monkeypatch.setenv("TQDM_DISABLE", variable)
    assert list(progress_bar([1, 2], quiet, desc="work")) == [1, 2]
    assert ("work" in capsys.readouterr().err) is shown


def test_the_notebook_variant_is_silent_too(monkeypatch):
    from tqdm.notebook import tqdm

    monkeypatch.setattr("kaf.progress.tqdm", tqdm)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert progress_bar([1]).disable
