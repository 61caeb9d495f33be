"""Files from anyone: each is read, or refused by an InputError of one line. No other exception, no hang, no noise."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.films import encode
from vcorr.errors import InputError
from vcorr.media.video import open_video

KINDS = {
    "a.mp4": {},
    "front.mp4": {"mux": {"movflags": "+faststart"}},
    "a.mkv": {"codec": "libx265"},
    "a.webm": {"codec": "libvpx"},
    "a.avi": {"codec": "mpeg4"},
    "a.ts": {},
    "a.mpg": {"codec": "mpeg2video"},
    "a.gif": {"codec": "gif", "pixels": "rgb8"},
    "a.flv": {},
}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("films") / request.param, frames=12, **KINDS[request.param])


def read_or_refuse(path: Path) -> bool:
    """Reads all of a video; True if it was read."""
    try:
        with open_video(path) as video:
            assert [k for k, _ in video.frames(0, min(len(video), 50))] == list(range(min(len(video), 50)))
            for k in (0, len(video) // 2, len(video) - 1):
                try:
                    assert video.frame(k).shape == (video.height, video.width, 3)
                except InputError:
                    assert k in video.damaged
            video.fingerprint()
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return False
    return True


@pytest.mark.timeout(60)
def test_cut_anywhere(film: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = film.read_bytes()
    path = tmp_path / film.name
    for length in sorted({0, 1, 4, 8, 100, *range(0, len(content), max(1, len(content) // 25))}):
        path.write_bytes(content[:length])
        read_or_refuse(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_bytes_changed_anywhere(film: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    path = tmp_path / film.name
    for _ in range(40):
        content = bytearray(film.read_bytes())
        for _ in range(rng.choice([1, 4, 30])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        start = rng.randrange(len(content))
        if rng.random() < 0.3:
            del content[start : start + rng.randrange(500)]
        elif rng.random() < 0.3:
            content[start:start] = rng.randbytes(50)
        path.write_bytes(content)
        read_or_refuse(path)
    assert capfd.readouterr() == ("", "")


NO_VIDEOS = {
    "zeros.mp4": bytes(5000),
    "noise.mp4": random.Random(1).randbytes(50_000),
    "noise.mkv": random.Random(2).randbytes(50_000),
    "noise.ts": b"".join(b"\x47" + random.Random(k).randbytes(187) for k in range(300)),
    "text.mp4": b"this is a text, not a video\n" * 100,
    "page.mp4": b"<!doctype html><title>404 Not Found</title>",
    "header.mp4": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom",
    "huge-box.mp4": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"\x7f\xff\xff\xffmoov" + bytes(100),
    "pickle.avi": b"\x80\x04\x95\x1a\x00\x00\x00",
    "sound.wav": b"RIFF"
    + struct.pack("<I4s4sIHHIIHH4sI", 2084, b"WAVE", b"fmt ", 16, 1, 1, 44100, 88200, 2, 16, b"data", 2048)
    + bytes(2048),
}


@pytest.mark.parametrize("name", NO_VIDEOS)
def test_what_is_no_video_is_refused(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    path.write_bytes(NO_VIDEOS[name])
    assert not read_or_refuse(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["list.ffconcat", "list.mp4", "list.m3u8", "list.mpd", "list.sdp", "%d.mp4"])
def test_no_other_file_is_opened(name: str, tmp_path: Path) -> None:
    """Playlists name other files; a video must not be a way to read them."""
    secret = encode(tmp_path / "secret.ts", frames=5)
    path = tmp_path / name
    if name.endswith(("ffconcat", "mp4")):
        path.write_text(f"ffconcat version 1.0\nfile '{secret.name}'\n")
    elif name.endswith("m3u8"):
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{secret.name}\n#EXT-X-ENDLIST\n")
    elif name.endswith("mpd"):
        path.write_text(f"<?xml version='1.0'?><MPD><Period><BaseURL>{secret}</BaseURL></Period></MPD>")
    else:
        path.write_text("v=0\nm=video 5004 RTP/AVP 96\n")
    assert not read_or_refuse(path)


def test_protocols_are_not_spoken(tmp_path: Path) -> None:
    for name in (
        "http://127.0.0.1:9/a.mp4",
        "concat:a.ts|b.ts",
        "pipe:0",
        "file:/etc/passwd",
        "data:video/mp4;base64,AAAA",
    ):
        with pytest.raises(InputError, match="does not exist"):
            open_video(name)


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "a.mp4", frames=3).rename(tmp_path / "cut 12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(open_video("cut 12:30.mp4")) == 3


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="holds no video stream"):
        open_video(path)


def test_a_frame_above_the_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg", frames=2, pixels="yuvj420p")
    content = bytearray(path.read_bytes())
    small, huge = struct.pack("<ii", 160, 96), struct.pack("<ii", 60_000, 60_000)
    assert small in content
    path.write_bytes(bytes(content).replace(small, huge))
    read_or_refuse(path)
    with pytest.raises(InputError):
        grown = encode(tmp_path / "b.mkv", "ffv1", frames=1).read_bytes()
        # Matroska: PixelWidth (B0) and PixelHeight (BA), one byte each here
        grown = grown.replace(b"\xb0\x81\xa0", b"\xb0\x81\xff").replace(b"\xba\x81\x60", b"\xba\x82\xff\xff")
        (tmp_path / "b.mkv").write_bytes(grown)
        list(open_video(tmp_path / "b.mkv").frames())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(InputError, match="neither a file nor a folder"):
            open_video(path)
