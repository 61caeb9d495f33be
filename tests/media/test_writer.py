"""What is written plays, has the size and colours asked for, and appears whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.films import number, numbered
from vcorr.errors import OutputError
from vcorr.media.video import VideoWriter, open_video


def write(path: Path, frames: int = 5, size: tuple[int, int] = (96, 160), fps: float = 25) -> Path:
    with VideoWriter(path, height=size[0], width=size[1], fps=fps) as writer:
        for k in range(frames):
            writer.write(numbered(k, *size))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".MP4"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    with open_video(write(tmp_path / f"a{suffix}", frames=20, fps=29.97)) as video:
        assert [number(rgb) for _, rgb in video.frames()] == list(range(20))
        assert video.fps == pytest.approx(29.97, rel=1e-3)
        assert np.abs(video.frame(3).astype(int) - numbered(3)).mean() < 2
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_it_plays_everywhere(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("size", [(97, 161), (96, 161), (97, 160), (1, 1), (3, 2)])
def test_odd_sizes_repeat_the_last_row_and_column(tmp_path: Path, size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 60, np.uint8)
    rgb[-1:, :] = rgb[:, -1:] = 180
    with VideoWriter(tmp_path / "a.mp4", height=size[0], width=size[1], fps=10) as writer:
        writer.write(rgb)
    back = open_video(tmp_path / "a.mp4").frame(0)
    assert back.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(back[size[0] - 1 :, size[1] - 1 :].astype(int) - 180).max() < 12


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 0), (255, 255, 255), (30, 200, 120)]
)
@pytest.mark.parametrize("size", [(96, 160), (720, 1280)])
def test_colours_come_back(tmp_path: Path, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    with VideoWriter(tmp_path / "a.mp4", height=size[0], width=size[1], fps=10) as writer:
        writer.write(np.full((*size, 3), colour, np.uint8))
    assert np.abs(open_video(tmp_path / "a.mp4").frame(0).astype(int) - colour).max() <= 3


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=2)
    with pytest.raises(KeyError), VideoWriter(path, height=96, width=160, fps=25) as writer:
        writer.write(numbered(0))
        raise KeyError("the caller failed")
    assert len(open_video(path)) == 2 and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", height=96, width=160, fps=25) as writer:
        for rgb in (
            np.zeros((96, 161, 3), np.uint8),
            np.zeros((96, 160, 3), np.float32),
            np.zeros((96, 160), np.uint8),
        ):
            with pytest.raises(ValueError, match=r"frame must be uint8 \(96, 160, 3\)"):
                writer.write(rgb)
        writer.write(numbered(0))
    with pytest.raises(ValueError, match="must be positive"):
        VideoWriter(tmp_path / "b.mp4", height=0, width=160, fps=25)


@pytest.mark.parametrize(("asked", "written"), [(10_000, 1000), (1e9, 1000), (1e-9, 1e-4)])
def test_a_rate_that_no_format_holds_is_taken_to_the_nearest(tmp_path: Path, asked: float, written: float) -> None:
    with VideoWriter(tmp_path / "a.mp4", height=96, width=160, fps=asked) as writer:
        for k in range(3):
            writer.write(numbered(k))
    with open_video(tmp_path / "a.mp4") as video:
        assert len(video) == 3 and video.fps == pytest.approx(written)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("missing/a.mp4", "folder.mp4", "file/a.mp4", "a.txt", "a"):
        with pytest.raises(OutputError):
            write(tmp_path / name)
    with pytest.raises(OutputError, match="no frame was written"):
        write(tmp_path / "none.mp4", frames=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file size")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from vcorr.media.video import VideoWriter; from vcorr.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)\n"
        "try:\n"
        "    with VideoWriter(sys.argv[1], height=240, width=320, fps=25) as writer:\n"
        "        for k in range(60): writer.write(np.roll(noise, 7 * k, axis=0))\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.mp4")], capture_output=True, text=True)
    assert done.returncode == 0 and "cannot be written" in done.stdout and done.stderr == ""
    assert list(tmp_path.iterdir()) == []
