"""One process at a time in a folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vcorr.errors import OutputError
from vcorr.files import held


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
