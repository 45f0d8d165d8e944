"""Downloads from a server on this machine that breaks, lies and dawdles."""

import hashlib
import io
import zipfile

import numpy as np
import pytest

BODY = np.random.default_rng(0).bytes(400_000)
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def fetch(load, monkeypatch):
    module = load("fetch")
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.4)
    return module


@pytest.fixture
def item(fetch, server):
    server.files["a.bin"] = BODY
    return fetch.Item(server.url("a.bin"), "a.bin", len(BODY), DIGEST)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_once(fetch, item, server, tmp_path, capsys):
    assert fetch.fetch(item, tmp_path / "new").read_bytes() == BODY
    assert names(tmp_path / "new") == ["a.bin"]
    fetch.fetch(item, tmp_path / "new")
    assert len(server.requests) == 1


def test_a_cut_transfer_continues_where_it_was(fetch, item, server, tmp_path):
    server.behaviours = ["cut", "cut", "whole"]
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY
    asked = [span for _, span in server.requests]
    assert asked == [None, "bytes=200000-", "bytes=300000-"]
    assert server.sent == len(BODY), "no byte was sent twice"
    assert names(tmp_path) == ["a.bin"]


def test_a_later_call_continues_too(fetch, item, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TRIES", 1)
    server.behaviours = ["cut"]
    with pytest.raises(SystemExit, match=r"cut after 200,000 of 400,000 bytes; 0\.2 MB are kept.*it continues"):
        fetch.fetch(item, tmp_path)
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.tag"]
    server.behaviours = ["whole"]
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY and server.sent == len(BODY)


def test_the_rest_of_another_file_is_not_appended(fetch, item, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TRIES", 1)
    server.behaviours = ["cut"]
    with pytest.raises(SystemExit):
        fetch.fetch(item._replace(digest=""), tmp_path)
    server.behaviours, server.etag = ["whole"], '"two"'
    server.files["a.bin"] = other = BODY[::-1]
    assert fetch.fetch(item._replace(digest=""), tmp_path).read_bytes() == other


def test_a_server_that_cannot_continue_begins_anew(fetch, item, server, tmp_path, capsys):
    server.behaviours, server.ranges = ["cut", "whole"], False
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY
    assert "begins anew" in capsys.readouterr().out


@pytest.mark.parametrize("states_length", [True, False])
def test_a_piece_that_is_too_long_is_dropped(fetch, item, server, tmp_path, states_length):
    server.states_length = states_length
    (tmp_path / "a.bin.part").write_bytes(BODY + b"more")
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY
    assert [span for _, span in server.requests] == ["bytes=400004-", None]


def test_a_stream_without_length_is_known_to_be_cut(fetch, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TRIES", 2)
    server.files["a.zip"], server.behaviours, server.ranges = BODY, ["chunked"], False
    with pytest.raises(SystemExit, match="IncompleteRead"):
        fetch.fetch(fetch.Item(server.url("a.zip"), "a.zip"), tmp_path)
    assert "a.zip" not in names(tmp_path)


@pytest.mark.parametrize("status", [404, 403, 401])
def test_a_refusal_is_said_at_once(fetch, item, server, tmp_path, status):
    server.behaviours = [status]
    with pytest.raises(SystemExit, match=f"answers {status} .*browser"):
        fetch.fetch(item, tmp_path)
    assert len(server.requests) == 1 and not names(tmp_path)


def test_a_busy_server_is_asked_again(fetch, item, server, tmp_path):
    server.behaviours = [503, 429, "whole"]
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY


def test_a_web_page_is_not_taken_for_the_file(fetch, item, server, tmp_path):
    server.files["a.bin"] = b"<html><head><title>Please log in</title></head></html>"
    server.types["a.bin"] = "text/html; charset=utf-8"
    with pytest.raises(SystemExit, match=r"web page \('Please log in'\), not a\.bin"):
        fetch.fetch(item._replace(size=None, digest=""), tmp_path)
    assert not names(tmp_path)


def test_a_web_page_in_disguise_is_removed(fetch, server, tmp_path):
    server.files["a.zip"] = b"<html>an error</html>"
    with pytest.raises(SystemExit, match="no complete zip.*It was removed"):
        fetch.fetch(fetch.Item(server.url("a.zip"), "a.zip"), tmp_path)
    assert not names(tmp_path)


def test_a_wrong_file_is_removed(fetch, item, server, tmp_path):
    server.files["a.bin"] = BODY[:-1] + b"?"
    with pytest.raises(SystemExit, match="its sha256 is [0-9a-f]{64}, not [0-9a-f]{64}. It was removed"):
        fetch.fetch(item, tmp_path)
    assert not names(tmp_path)


def test_a_file_of_another_size_is_not_even_loaded(fetch, item, server, tmp_path):
    server.files["a.bin"] = BODY[:1000]
    with pytest.raises(SystemExit, match="offers 1,000 bytes, but a.bin was published with 400,000"):
        fetch.fetch(item, tmp_path)
    assert not names(tmp_path)


def test_a_file_of_the_user_under_that_name_stays(fetch, item, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(SystemExit, match="it has 4 bytes, not 400,000; move it away"):
        fetch.fetch(item, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


@pytest.mark.parametrize(("behaviour", "why"), [("hang", "timed out"), ("slow", "fewer than 1000 bytes a second")])
def test_a_stream_that_dies_slowly_is_left(fetch, item, server, tmp_path, monkeypatch, behaviour, why):
    monkeypatch.setattr(fetch, "TRIES", 2)
    server.behaviours = [behaviour]
    with pytest.raises(SystemExit, match=f"{why}.*kept"):
        fetch.fetch(item, tmp_path)
    assert len(server.requests) == 2 and server.requests[1][1] != "bytes=0-"
    server.behaviours = ["whole"]
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY


def test_nobody_there(fetch, item, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TRIES", 2)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(SystemExit, match="refused"):
        fetch.fetch(item, tmp_path)


def test_a_disk_that_is_too_small_is_seen_before(fetch, item, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(SystemExit, match=r"has not the 0\.00 GB free that a\.bin takes"):
        fetch.fetch(item, tmp_path)
    assert server.sent == 0 or not names(tmp_path)


def test_a_folder_that_cannot_be_is_named(fetch, item, server, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit, match=r"^error: .*a\.bin\.part cannot be written or read: "):
            fetch.fetch(item, folder)
    assert not server.requests


def test_a_stop_by_hand_keeps_the_piece(fetch, item, server, tmp_path, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    server.behaviours = ["cut", "whole"]
    monkeypatch.setattr(fetch, "time", type("Time", (), {"sleep": stop, "monotonic": fetch.time.monotonic}))
    with pytest.raises(KeyboardInterrupt, match="Stopped.*it continues"):
        fetch.fetch(item, tmp_path)
    assert (tmp_path / "a.bin.part").stat().st_size == 200_000


def test_a_whole_piece_is_taken_where_no_size_was_published(fetch, item, server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY)
    assert fetch.fetch(item._replace(size=None), tmp_path).read_bytes() == BODY
    assert server.sent == 0 and [span for _, span in server.requests] == ["bytes=400000-"]


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_a_stop_during_the_check_keeps_all_that_arrived(fetch, item, server, tmp_path, monkeypatch, size):
    def stop(*_):
        raise KeyboardInterrupt

    item = item._replace(size=size)
    with monkeypatch.context() as patch:
        patch.setattr(fetch.hashlib, "file_digest", stop)
        with pytest.raises(KeyboardInterrupt, match="Stopped.*it continues"):
            fetch.fetch(item, tmp_path)
    assert (tmp_path / "a.bin.part").read_bytes() == BODY
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY and names(tmp_path) == ["a.bin"]
    assert server.sent == len(BODY), "no byte was sent twice"


def test_a_whole_piece_of_an_older_file_is_not_taken_for_the_new_one(fetch, item, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "difference", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    item = item._replace(size=None, digest="")
    with pytest.raises(KeyboardInterrupt, match="Stopped"):
        fetch.fetch(item, tmp_path)
    monkeypatch.undo()
    server.etag, server.files["a.bin"] = '"two"', BODY[::-1]
    assert fetch.fetch(item, tmp_path).read_bytes() == BODY[::-1]


def test_a_zip_without_a_published_sum_must_be_whole(fetch, server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "y")
    server.files["a.zip"] = buffer.getvalue()
    assert zipfile.is_zipfile(fetch.fetch(fetch.Item(server.url("a.zip"), "a.zip"), tmp_path))
