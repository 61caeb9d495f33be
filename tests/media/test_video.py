"""Frame k is the k-th picture in time, whatever the format, the order of reading, or the damage."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.films import encode, number, numbered
from vcorr.errors import InputError, UsageError
from vcorr.media import frame_table
from vcorr.media.image import shrink
from vcorr.media.video import VideoWriter, open_video, shrunk_size

FORMATS = {
    "h264.mp4": {},
    "h264-open-gop.mp4": {"options": {"x264-params": "open-gop=1:bframes=3"}},
    "h264-intra-refresh.mp4": {"options": {"x264-params": "intra-refresh=1:bframes=0"}},
    "h264.avi": {},
    "h264.ts": {},
    "h264.flv": {},
    "hevc.mkv": {"codec": "libx265"},
    "hevc-10bit.mp4": {"codec": "libx265", "pixels": "yuv420p10le"},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "ffv1-odd.mkv": {"codec": "ffv1", "size": (97, 161)},
    "animation.gif": {"codec": "gif", "pixels": "rgb8", "rate": 10},
    "raw.h264": {"options": {"bf": "3"}},
    "raw.264": {"options": {"x264-params": "open-gop=1:bframes=3"}},
    "raw.hevc": {"codec": "libx265"},
    "raw.m2v": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "raw.y4m": {"codec": "wrapped_avframe"},
    "raw.mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p", "rate": 25},
    "raw.ivf": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "raw.nut": {},
}


@pytest.fixture(scope="module", params=FORMATS, ids=str)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / request.param
    return encode(path, **FORMATS[request.param])


def test_each_format_streams_every_frame_in_order(film: Path) -> None:
    with open_video(film) as video:
        frames = list(video.frames())
        assert (
            [k for k, _ in frames] == [number(rgb) for _, rgb in frames] == list(range(30)) == list(range(len(video)))
        )
        assert frames[0][1].shape == (video.height, video.width, 3) and frames[0][1].dtype == np.uint8
        assert (video.height, video.width) == FORMATS[film.name].get("size", (96, 160))
        assert video.fps == pytest.approx(FORMATS[film.name].get("rate", 30))
        assert video.seconds(29) == pytest.approx(29 / video.fps, abs=0.002)
        assert video.pts is not None and sorted(set(video.pts)) == video.pts and len(video.pts) == 30
        assert video.damaged == [] and video.notes == () and video.names is None


def test_any_frame_equals_the_streamed_one(film: Path) -> None:
    within = 2 if "refresh" in film.name else 0  # such streams may be entered where no picture is whole, nearly exact
    with open_video(film) as video:
        streamed = [rgb.astype(int) for _, rgb in video.frames()]
        for k in np.random.default_rng(0).permutation(len(video)):
            assert np.abs(video.frame(int(k)) - streamed[k]).max() <= within, f"frame {k}"
        for start in (1, 7, 8, 17, 29):
            for k, rgb in video.frames(start):
                assert np.abs(rgb - streamed[k]).max() <= within, f"frame {k} from {start}"


def test_camcorder_tape(tmp_path: Path) -> None:
    with open_video(encode(tmp_path / "tape.dv", "dvvideo", frames=5, size=(576, 720), rate=25)) as video:
        assert [number(rgb) for _, rgb in video.frames()] == [0, 1, 2, 3, 4] and number(video.frame(3)) == 3
        assert (video.height, video.width, video.fps) == (576, 768, pytest.approx(25))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_of_several_streams_the_largest_is_read(tmp_path: Path, suffix: str) -> None:
    """Cameras put a preview first."""
    path = tmp_path / f"a.{suffix}"
    sizes = [(48, 80), (96, 160), (96, 160)]
    with av.open(str(path), "w") as target:
        streams = [target.add_stream("libx264", rate=30) for _ in sizes]
        for stream, (stream.height, stream.width) in zip(streams, sizes, strict=True):
            stream.pix_fmt = "yuv420p"
        for k in range(8):
            for number_, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
                frame = av.VideoFrame.from_ndarray(numbered(k + 20 * number_, *size), format="rgb24")
                target.mux(stream.encode(frame))
        for stream in streams:
            target.mux(stream.encode(None))
    with open_video(path) as video:
        assert [number(rgb) for _, rgb in video.frames()] == list(range(20, 28)) and number(video.frame(5)) == 25
        assert video.notes == (f"{path}: holds 3 video streams: the largest is read, 160x96, the first of that size",)


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = np.cumsum([0, *np.random.default_rng(0).choice([7, 20, 33, 150, 400], 39)]).tolist()
    for name in ("phone.mp4", "screen.mkv"):
        with open_video(encode(tmp_path / name, frames=40, times=times)) as video:
            assert [number(rgb) for _, rgb in video.frames()] == list(range(40))
            assert [number(video.frame(k)) for k in (39, 3, 20, 21, 0)] == [39, 3, 20, 21, 0]
            assert [round(1000 * video.seconds(k)) for k in range(40)] == times
            assert video.fps == pytest.approx(39 / (times[-1] / 1000))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_phone_video_is_turned_upright(tmp_path: Path, degrees: int) -> None:
    still = open_video(encode(tmp_path / "flat.mp4", frames=2)).frame(0)
    with open_video(encode(tmp_path / "turned.mp4", frames=2, rotation=degrees)) as video:
        upright = np.rot90(still, degrees // 90)  # both count counterclockwise
        np.testing.assert_array_equal(video.frame(0), upright)
        assert (video.height, video.width) == upright.shape[:2]
        assert video.frame(0, short_side=48).shape[:2] == shrunk_size(*upright.shape[:2], 48)


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(4, 3), 213), (Fraction(10, 11), 145)])
def test_pixels_that_are_not_square_are_stretched(tmp_path: Path, aspect: Fraction, width: int) -> None:
    with open_video(encode(tmp_path / "dv.mp4", frames=2, aspect=aspect)) as video:
        assert (video.height, video.width) == (96, width)
        assert video.frame(1).shape == (96, width, 3) and number(video.frame(1)) == 1


def test_packets_without_times_are_counted(tmp_path: Path) -> None:
    """Two transport streams one after the other bear every time twice."""
    twice = tmp_path / "twice.ts"
    one = encode(tmp_path / "one.ts", frames=12)
    other = encode(tmp_path / "other.ts", frames=12, size=(48, 80))
    twice.write_bytes(one.read_bytes() + other.read_bytes())
    with open_video(twice) as video:
        frames = [rgb for _, rgb in video.frames()]
        assert len(video) == 24 and [number(rgb) for rgb in frames] == [*range(12), *range(12)]
        assert {rgb.shape for rgb in frames} == {(96, 160, 3)}  # the second half at the size of the first
        for k in (23, 5, 12):
            np.testing.assert_array_equal(video.frame(k), frames[k])
        assert video.pts is not None and sorted(set(video.pts)) == video.pts


def test_times_of_decoding_alone_are_not_taken_for_times_of_display(tmp_path: Path) -> None:
    """An mp4 that lost the table of how its frames reorder (ctts)."""
    path = encode(tmp_path / "a.mp4")
    content = path.read_bytes()
    assert content.count(b"ctts") == content.count(b"edts") == 1
    path.write_bytes(content.replace(b"ctts", b"free").replace(b"edts", b"free"))
    with open_video(path) as video:
        assert [number(rgb) for _, rgb in video.frames()] == list(range(30)) and video.damaged == []
        assert [number(video.frame(k)) for k in (17, 4, 29)] == [17, 4, 29]
        assert video.seconds(29) == pytest.approx(29 / 30)


@pytest.mark.parametrize(("first", "shown"), [(5, 25), (17, 13), (0, 12), (9, 7)])
def test_frames_cut_off_by_an_edit_list_are_not_counted(tmp_path: Path, first: int, shown: int) -> None:
    """A clip trimmed on the phone: players decode the frames before the cut and do not show them; none is missing."""
    path = encode(tmp_path / "a.mp4", options={"bf": "0"})
    content = bytearray(path.read_bytes())
    edit = content.index(b"elst") + 12  # past version and count: milliseconds shown, the time of the first frame shown
    assert struct.unpack_from(">II", content, edit) == (1000, 0)
    struct.pack_into(">II", content, edit, round(shown * 1000 / 30), first * 512)
    path.write_bytes(content)
    with open_video(path) as video:
        assert [(k, number(rgb)) for k, rgb in video.frames()] == [(k, k + first) for k in range(shown)]
        assert [number(video.frame(k)) for k in (shown - 1, 0, 5)] == [shown - 1 + first, first, 5 + first]
        assert video.damaged == [] and video.seconds(1) == pytest.approx(1 / 30)
        assert video.notes == ()


@pytest.mark.parametrize(("milliseconds", "first"), [(0, 0), (1000, 90)])
def test_an_edit_list_that_shows_nothing_is_passed_over(tmp_path: Path, milliseconds: int, first: int) -> None:
    """Recorders write a length of 0, or cut past the end."""
    path = encode(tmp_path / "a.mp4", frames=12)
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, content.index(b"elst") + 12, milliseconds, 1024 + first * 512)
    path.write_bytes(content)
    with open_video(path) as video:
        assert [number(rgb) for _, rgb in video.frames()] == list(range(12))
        assert number(video.frame(7)) == 7 and video.damaged == []
        assert video.notes == (f"{path}: its edit list shows no frame: all frames are read",)


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2"}])
@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(400, 0), (200, None), (600, 12)], [*range(12), *range(12, 30)]),
        ([(400, 0), (100, None), (100, None), (300, 9)], [*range(12), *range(9, 18)]),
        ([(200, None), (400, 6)], [*range(6, 18)]),
        ([(200, 6), (200, 0)], [*range(6, 12), *range(6)]),
    ],
)
def test_a_pause_in_an_edit_list_has_no_frames(
    tmp_path: Path, edits: list[tuple[int, int | None]], shown: list[int], options: dict[str, str]
) -> None:
    """FFmpeg shows the first frames again there. Edits: milliseconds, and the first frame."""
    path = encode(tmp_path / "a.mp4", options=options)
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") - 4
    (shift,) = struct.unpack_from(">i", content, at + 20)  # of frames that are decoded before they are shown
    times = [(ms, -1 if first is None else shift + first * 512) for ms, first in edits]
    body = b"elst" + struct.pack(">II", 0, len(edits)) + b"".join(struct.pack(">IiI", *edit, 65536) for edit in times)
    (size,) = struct.unpack_from(">I", content, at)
    for box in (b"edts", b"trak", b"moov"):  # which hold it, behind the pictures
        place = content.rindex(box, 0, at) - 4
        struct.pack_into(">I", content, place, struct.unpack_from(">I", content, place)[0] + len(body) + 4 - size)
    content[at : at + size] = struct.pack(">I", len(body) + 4) + body
    path.write_bytes(content)
    with open_video(path) as video:
        assert [(k, number(rgb)) for k, rgb in video.frames()] == list(enumerate(shown))
        assert [number(video.frame(k)) for k in (len(shown) - 1, 3)] == [shown[-1], shown[3]]
        assert video.damaged == [] and video.notes == ()


def test_what_an_edit_list_shows_may_be_missing(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", options={"bf": "0"}, mux={"movflags": "+faststart"})
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, content.index(b"elst") + 16, 5 * 512)
    path.write_bytes(content[: -len(content) // 8])
    with open_video(path) as video:
        assert number(video.frame(0)) == 5
        assert video.notes == (f"{path}: the file ends early: {25 - len(video)} of 30 frames are missing",)


def test_pauses_of_an_avi_are_no_frames(tmp_path: Path) -> None:
    """A camera that drops frames leaves empty places, which the header counts."""
    with open_video(encode(tmp_path / "a.avi", "mpeg4", frames=5, times=[0, 40, 200, 240, 400], tick=40)) as video:
        assert [number(rgb) for _, rgb in video.frames()] == [0, 1, 2, 3, 4] and video.notes == ()
        assert [number(video.frame(k)) for k in (4, 2, 0, 3)] == [4, 2, 0, 3]
        assert [video.seconds(k) for k in range(5)] == pytest.approx([0, 0.04, 0.2, 0.24, 0.4])


def test_avi_is_counted_however_late_its_frames_reorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_table, "PROBED", 1)
    with open_video(encode(tmp_path / "a.avi")) as video:
        assert [number(rgb) for _, rgb in video.frames()] == list(range(30))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff\xfe.mp4")
    try:
        (tmp_path / name).write_bytes(encode(tmp_path / "a.mp4", frames=3).read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    assert len(list(open_video(tmp_path / name).frames())) == 3


def test_shrinking_keeps_proportions_and_never_enlarges(tmp_path: Path) -> None:
    with open_video(encode(tmp_path / "a.mp4", frames=3, size=(96, 170))) as video:
        assert [rgb.shape for _, rgb in video.frames(short_side=48)] == [(48, 85, 3)] * 3
        assert video.frame(0, short_side=500).shape == (96, 170, 3)
        small, full = video.frame(2, short_side=48), video.frame(2)
        assert number(small) == 2
        assert np.abs(small.astype(int) - shrink(full, (48, 85))).mean() < 2


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((96, 160, 3), np.uint8)
    stripes[:, ::2] = 255
    with VideoWriter(tmp_path / "s.mp4", height=96, width=160, fps=25) as writer:
        writer.write(stripes)
    small = open_video(tmp_path / "s.mp4").frame(0, short_side=24)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 128).max() < 8


def test_ranges_and_frames_outside_are_refused(tmp_path: Path) -> None:
    with open_video(encode(tmp_path / "a.mp4", frames=5)) as video:
        assert list(video.frames(2, 2)) == [] and [k for k, _ in video.frames(3)] == [3, 4]
        for start, end in ((-1, 3), (3, 2), (0, 6)):
            with pytest.raises(UsageError, match="it has 5 frames"):
                video.frames(start, end)
        for k in (-1, 5):
            with pytest.raises(UsageError, match=f"no frame {k}: it has 5 frames; choose 0 to 4"):
                video.frame(k)
        with pytest.raises(UsageError):
            video.seconds(5)


def test_two_iterators_do_not_disturb_each_other(tmp_path: Path) -> None:
    with open_video(encode(tmp_path / "a.mp4", frames=20)) as video:
        pairs = [
            (number(a), number(video.frame(19 - k)), number(b))
            for (k, a), (_, b) in zip(video.frames(), video.frames(5), strict=False)
        ]
    assert pairs == [(k, 19 - k, k + 5) for k in range(15)]


def test_fingerprint_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", frames=3)
    assert open_video(path).fingerprint() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = encode(tmp_path / "long.mp4", "mpeg4", frames=200, size=(480, 854), options={"qscale": "5"})
    script = (
        "import resource, sys; from vcorr.media.video import open_video\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "video = open_video(sys.argv[1]); list(zip(range(30), video.frames())); early = peak()\n"
        "count = sum(1 for _ in video.frames(short_side=240)); print(count, peak() - early)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    count, growth = map(int, done.stdout.split())
    assert count == 200
    assert growth < 40, f"{growth} MiB more after 200 frames, of 1.2 MiB each"


class TestDamage:
    def test_frames_keep_their_index_past_a_hole(self, tmp_path: Path) -> None:
        """All-key-frame video with two packets destroyed: the frames before stand in, the others stay in place."""
        path = encode(tmp_path / "a.mkv", "ffv1", frames=20, group=1)
        bad = destroy(path, [7, 8, 13])
        with open_video(bad) as video:
            assert len(video) == 20
            shown = [number(rgb) for _, rgb in video.frames()]
            assert shown == [0, 1, 2, 3, 4, 5, 6, 6, 6, 9, 10, 11, 12, 12, *range(14, 20)]
            assert video.damaged == [7, 8, 13]
            assert [(k, number(rgb)) for k, rgb in video.frames(8, 10)] == [(8, 6), (9, 9)]
            with pytest.raises(InputError, match="frame 8 is damaged"):
                video.frame(8)
            assert number(video.frame(9)) == 9

    def test_the_next_picture_stands_in_at_the_start(self, tmp_path: Path) -> None:
        bad = destroy(encode(tmp_path / "a.mkv", "ffv1", frames=10, group=1), [0, 1])
        with open_video(bad) as video:
            assert [number(rgb) for _, rgb in video.frames()] == [2, 2, *range(2, 10)]
            assert [number(rgb) for _, rgb in video.frames(0, 1)] == [2] and video.damaged == [0, 1]

    def test_pictures_that_stand_in_are_copies(self, tmp_path: Path) -> None:
        bad = destroy(encode(tmp_path / "a.mkv", "ffv1", frames=6, group=1), [3])
        for _, rgb in open_video(bad).frames():
            assert number(rgb) < 6
            rgb[:] = 255

    @pytest.mark.parametrize("cut", [0.35, 0.7, 0.99])
    def test_a_file_cut_short_keeps_its_beginning_and_says_so(self, tmp_path: Path, cut: float) -> None:
        path = encode(tmp_path / "a.mp4", frames=60, mux={"movflags": "+faststart"})
        content = path.read_bytes()
        pictures = content.index(b"mdat")
        path.write_bytes(content[: pictures + int(cut * (len(content) - pictures))])
        with open_video(path) as video:
            assert 0 < len(video) < 60
            (note,) = video.notes
            assert f"{60 - len(video)} of 60 frames are missing" in note
            good = [(k, number(rgb)) for k, rgb in video.frames() if k not in video.damaged]
            assert good and all(k == shown for k, shown in good)

    def test_times_counted_by_the_reader_are_not_trusted_after_a_loss(self, tmp_path: Path) -> None:
        """AVI has no times: a lost packet moves all later ones when reading on, but not when seeking by the index."""
        path = encode(tmp_path / "a.avi", "mjpeg", frames=30, pixels="yuvj420p")
        content = bytearray(path.read_bytes())
        start = content.index(b"\xff\xd8", len(content) // 3)
        content[start - 8 : start + 400] = bytes(408)
        path.write_bytes(content)
        with open_video(path) as video:
            streamed = [rgb for _, rgb in video.frames()]
            for k in range(len(video)):
                np.testing.assert_array_equal(video.frame(k), streamed[k])


def destroy(path: Path, frames: list[int]) -> Path:
    """Overwrites the packets of the given frames, all of them key frames."""
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    content = path.read_bytes()
    for k in frames:
        assert content.count(packets[k]) == 1
        content = content.replace(packets[k], b"\xa5" * len(packets[k]))
    bad = path.with_name("bad" + path.suffix)
    bad.write_bytes(content)
    return bad


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "film.mp4"
    link.symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match="does not exist"):
        open_video(link)
