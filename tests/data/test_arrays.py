import numpy as np
import pytest

from kaf.data.arrays import ArrayFile, open_array


@pytest.mark.parametrize("array", [np.arange(60, dtype=np.uint8).reshape(5, 4, 3),
                                   np.array([(i, i / 2) for i in range(5)], [("a", "i4"), ("b", "f4")])])
def test_rows_are_those_of_the_array(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    file = ArrayFile(tmp_path / "a.npy")
    for first, last in ((0, 5), (2, 4), (3, 3)):
        assert np.array_equal(file.rows(first, last), array[first:last])


def test_a_file_cut_short_is_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 100)))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-8])
    file = ArrayFile(tmp_path / "a.npy")
    assert file.rows(0, 4).shape == (4, 100)
    with pytest.raises(ValueError, match="is shorter than it says"):
        file.rows(4, 5)


def test_other_orders_and_missing_files_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(np.zeros((5, 4))))
    with pytest.raises(ValueError, match="column by column"):
        ArrayFile(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError):
        ArrayFile(tmp_path / "b.npy")


def test_a_remade_file_is_opened_anew(tmp_path):
    for checksum, value in (("one", 1), ("two", 2)):
        (tmp_path / "a.npy").unlink(missing_ok=True)
        np.save(tmp_path / "a.npy", np.full(3, value))
        assert open_array(str(tmp_path / "a.npy"), checksum).rows(0, 3).tolist() == [value] * 3
    assert open_array(str(tmp_path / "a.npy"), "two") is open_array(str(tmp_path / "a.npy"), "two")
