"""Zips that a stranger packed."""

import stat
import struct
import zipfile

import pytest


@pytest.fixture
def unpack(load):
    return load("unpack")


def zip_of(path, *members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name, target="/etc/passwd", kind=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info, target


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_zip_is_unpacked_beside_itself_and_kept(unpack, tmp_path, capsys):
    path = zip_of(tmp_path / "a.zip", ("one/x.txt", "1"), ("one/two/y.txt", "2"), ("empty/", ""))
    assert unpack.unpack(path) == tmp_path / "a"
    assert everything(tmp_path) == ["a", "a.zip", "a/empty", "a/one", "a/one/two", "a/one/two/y.txt", "a/one/x.txt"]
    (tmp_path / "a" / "mine").touch()
    unpack.unpack(path)
    assert (tmp_path / "a" / "mine").exists() and "there already" in capsys.readouterr().out
    assert unpack.unpack(tmp_path / "a") == tmp_path / "a"


@pytest.mark.parametrize(("member", "why"), [
    (("../out.txt", "x"), "a path outside its folder"),
    (("one/../../out.txt", "x"), "a path outside its folder"),
    (("/tmp-out.txt", "x"), "an absolute path"),
    (("C:/out.txt", "x"), "an absolute path or one of another system"),
    (("one\\..\\..\\out.txt", "x"), "an absolute path or one of another system"),
    (link("passwords"), "a link or a special file"),
    (link("one/up", ".."), "a link or a special file"),
    (link("pipe", "", stat.S_IFIFO), "a link or a special file"),
    (("A.TXT", "x"), "two files of one name"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_what_is_not_to_be_trusted_is_refused_before_anything_is_written(unpack, tmp_path, member, why):
    folder = tmp_path / "in"
    folder.mkdir()
    path = zip_of(folder / "a.zip", ("a.txt", "good"), member)
    with pytest.raises(SystemExit, match=f"error: .*{why}.*not unpacked"):
        unpack.unpack(path)
    assert everything(tmp_path) == ["in", "in/a.zip"]


def test_a_bomb_is_refused(unpack, tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", *((f"{n}.bin", bytes(10**6)) for n in range(30)))
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(unpack, "LARGEST", 20 * 10**6)
    with pytest.raises(SystemExit, match="would unpack to 30 files and 0.0 GB, more than"):
        unpack.unpack(path)
    monkeypatch.setattr(unpack, "LARGEST", 10**9)
    monkeypatch.setattr(unpack, "MOST_FILES", 29)
    with pytest.raises(SystemExit, match="would unpack to 30 files"):
        unpack.unpack(path)
    assert everything(tmp_path) == ["a.zip"]


def test_a_bomb_that_lies_about_its_size_stops_at_it(unpack, tmp_path):
    path = zip_of(tmp_path / "a.zip", ("x.bin", bytes(10**7)))
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + place
        data[at : at + 4] = struct.pack("<L", 100)
    path.write_bytes(data)
    with pytest.raises(SystemExit, match="cannot be unpacked.*nothing was left behind"):
        unpack.unpack(path)
    assert everything(tmp_path) == ["a.zip"]


def test_a_damaged_zip_leaves_nothing_behind(unpack, tmp_path):
    path = zip_of(tmp_path / "a.zip", ("x", b"x" * 999), ("y", b"y" * 999), compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"y" * 99) + 50] = 0
    path.write_bytes(data)
    with pytest.raises(SystemExit, match="cannot be unpacked .*Bad CRC"):
        unpack.unpack(path)
    assert everything(tmp_path) == ["a.zip"]


def test_a_full_disk_is_seen_before(unpack, tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", ("x", b"x" * 999))
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(SystemExit, match=r"unpacks to 0\.00 GB, but 0\.00 GB are free"):
        unpack.unpack(path)


def test_what_a_killed_run_left_is_cleared(unpack, tmp_path):
    path = zip_of(tmp_path / "a.zip", ("x", "new"))
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "old").touch()
    unpack.unpack(path)
    assert everything(tmp_path) == ["a", "a.zip", "a/x"]


@pytest.mark.parametrize(("name", "content", "why"), [
    ("a.zip", b"half a file", "no complete zip"), ("a", b"x", "neither a folder nor named .zip"),
])
def test_no_zip(unpack, tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=why):
        unpack.unpack(tmp_path / name)
    with pytest.raises(SystemExit, match="no folder or zip"):
        unpack.unpack(tmp_path / "none.zip")
