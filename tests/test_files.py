"""Files are written whole or not at all; one process at a time in a folder, and never over others' work."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys

import filelock
import pytest

from vcorr.errors import InputError, OutputError
from vcorr.files import (
    agree,
    differences,
    held,
    recorded,
    replacing,
    sha256,
    sha256_of_all,
    strangers,
    sweep,
    write_json,
)


def test_a_folder_is_made_and_held_until_the_end(tmp_path):
    folder = tmp_path / "deep" / "folder"
    with held(folder):
        assert folder.is_dir()
        with pytest.raises(OutputError, match="another process works in it"), held(folder):
            pass
    with held(folder), held(tmp_path / "other"):
        pass


def test_a_process_that_is_killed_lets_go(tmp_path):
    code = "import sys, time\nfrom pathlib import Path\nfrom vcorr.files import held\nwith held(Path(sys.argv[1])):\n"
    code += "    print('in', flush=True)\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    with pytest.raises(OutputError, match="another process"), held(tmp_path):
        pass
    process.kill()
    process.communicate()
    with held(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"), held(tmp_path / "file" / "folder"):
        pass


def test_who_works_in_a_folder_is_told_and_leaves_no_trace(tmp_path):
    with (
        held(tmp_path),
        pytest.raises(OutputError, match=rf"\(process {os.getpid()} on .*, since \d{{4}}-"),
        held(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_file_system_has_no_locks(tmp_path, monkeypatch):
    def acquire(self, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    said = []
    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with held(tmp_path, said.append):
        pass
    assert said == [f"{tmp_path}: its file system has no locks; start no second process in it"]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_the_old_file(tmp_path, raised):
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with pytest.raises(raised), replacing(path) as file:
        file.write(b"new")
        raise raised
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(OutputError, match="other: is full"), replacing(tmp_path / "w"):
        raise OutputError("other", "is full", "make room")


def test_differences_name_every_value_that_differs():
    old = {"a": 1, "b": {"c": [1], "d": None}, "e": {"f": 1}}
    new = {"a": 1, "b": {"c": [2], "d": 0}, "g": "x"}
    assert list(differences(old, new)) == [
        "b.c [1] -> [2]",
        "b.d None -> 0",
        "e {'f': 1} -> None",
        "g None -> x",
    ]
    assert list(differences(old, old)) == []


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "w", []

    def sync(descriptor):
        synced.append((path.exists(), stat.S_ISDIR(os.fstat(descriptor).st_mode)))

    monkeypatch.setattr(os, "fsync", sync)
    write_json(path, {"a": 1})
    assert synced == [(False, False), (True, True)]


def test_what_a_kill_left_half_written_is_no_stranger_and_is_swept(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "m.json"):
        left = next(tmp_path.iterdir())
        os.link(left, tmp_path / left.name.replace(str(os.getpid()), "1"))
        raise KeyboardInterrupt
    (left,) = tmp_path.iterdir()
    assert strangers(tmp_path) == []
    (tmp_path / ".mine.part").write_text("")
    sweep(tmp_path)
    assert strangers(tmp_path) == [".mine.part"]


def test_a_folder_is_taken_once_and_gone_on_with_by_the_same(tmp_path):
    out, how = tmp_path / "out", {"holds": "results", "advice": "give another"}
    assert recorded(out, "m.json", **how) is None
    out.mkdir()
    (out / ".DS_Store").write_text("")
    (out / "empty").mkdir()
    assert recorded(out, "m.json", **how) is None
    write_json(out / "m.json", {"size": 3, "of": {"a": 1}})
    found = recorded(out, "m.json", **how)
    agree(out, found, {"size": 3, "of": {"a": 1}}, what="holds others", advice="give another")
    with pytest.raises(OutputError, match=r"out: holds others \(of.a 1 -> 2\); give another"):
        agree(out, found, {"size": 3, "of": {"a": 2}}, what="holds others", advice="give another")
    (out / "m.json").unlink()
    (out / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="is not empty and holds no results; give another"):
        recorded(out, "m.json", **how)
    with pytest.raises(OutputError, match="is not empty and holds no results"):
        recorded(out / "thesis.txt", "m.json", **how)


@pytest.mark.parametrize("text", ["", "[1]", '{"a":', "\xff", "[" * 100_000])
def test_a_damaged_record_is_told(tmp_path, text):
    (tmp_path / "m.json").write_text(text, encoding="latin-1")
    with pytest.raises(OutputError, match=r"m\.json: is damaged"):
        recorded(tmp_path, "m.json", holds="results", advice="give another")


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    a, b = tmp_path / "a", tmp_path / "b"
    assert sha256(a) == hashlib.sha256(b"1").hexdigest()
    assert len({sha256_of_all(files) for files in ([a], [a, b], [b, a], [])}) == 4
    with pytest.raises(InputError, match="none: cannot be read"):
        sha256_of_all([a, tmp_path / "none"])
