"""The choice of a GPU, with GPUs that are not there: only their number is asked."""

import os
from contextlib import ExitStack

import pytest

from workflow.gpus import VISIBLE, own_gpu


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs there are, and which the process was given."""

    def set_to(number, visible=None):
        monkeypatch.setattr("torch.cuda.device_count", lambda: number)
        monkeypatch.delenv(VISIBLE, raising=False)
        if visible is not None:
            monkeypatch.setenv(VISIBLE, visible)

    return set_to


def taken(jobs, folder, device="cuda"):
    """What each of some jobs sees that run at the same time."""
    with ExitStack() as running:
        seen = []
        for _ in range(jobs):
            running.enter_context(own_gpu(device, folder))
            seen.append(os.environ.get(VISIBLE))
            os.environ.pop(VISIBLE, None)  # another process knows nothing of it
        return seen


def test_jobs_spread_over_the_gpus(gpus, tmp_path):
    gpus(3)
    assert taken(7, tmp_path) == ["0", "1", "2", "0", "1", "2", "0"]


def test_the_gpu_with_the_fewest_jobs_is_taken(gpus, tmp_path):
    gpus(2)
    with ExitStack() as running:
        first = [running.enter_context(ExitStack()) for _ in range(3)]
        for job in first:  # on 0, 1 and 0
            job.enter_context(own_gpu("cuda", tmp_path))
            os.environ.pop(VISIBLE, None)
        first[0].close()
        first[1].close()
        assert taken(2, tmp_path) == ["1", "0"]


def test_a_gpu_is_free_again_after_its_job(gpus, tmp_path):
    gpus(2)
    with own_gpu("cuda", tmp_path):
        pass
    assert VISIBLE not in os.environ and taken(1, tmp_path) == ["0"]


def test_only_what_the_process_was_given_is_chosen_from(gpus, tmp_path):
    gpus(2, "3, GPU-8932f937")
    with own_gpu("cuda", tmp_path):
        assert os.environ[VISIBLE] == "3"
        os.environ[VISIBLE] = "3, GPU-8932f937"
        with own_gpu("cuda", tmp_path):
            assert os.environ[VISIBLE] == "GPU-8932f937"
    assert os.environ[VISIBLE] == "3, GPU-8932f937"


@pytest.mark.parametrize("number, device", [(0, "cuda"), (1, "cuda"), (4, "cpu")])
def test_without_a_choice_nothing_is_touched(gpus, tmp_path, number, device):
    gpus(number)
    assert taken(2, tmp_path, device) == [None, None] and not list(tmp_path.iterdir())
