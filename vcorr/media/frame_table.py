"""Finds the frames of a video file and their times, from its packets or by decoding it once."""

from __future__ import annotations

import bisect
import itertools
from fractions import Fraction
from pathlib import Path

from vcorr.media.decoder import Decoder, FrameTable

# Formats whose packets state decoding times only. These are display times, unless the codec reorders frames.
ORDER_OF_DECODING = frozenset({"avi", "mxf", "asf"})
PROBED = 64  # pictures: enough to find a reordered one, if there are any
DEFAULT_FPS = 25.0


def table_of_packets(decoder: Decoder) -> FrameTable | None:
    """The table by the time stamps of the packets; None if they are missing, occur twice, or are no display times."""
    if decoder.container.format.name in ORDER_OF_DECODING and decoder.stream.codec_context.has_b_frames:
        return None
    hides_frames = decoder.stream.codec_context.name == "vp8"
    keys: list[int] = []
    places: dict[int, tuple[int | None, int]] = {}
    ascending, latest = True, None
    for packet in decoder.packets():
        # Frames that an edit list cuts off are decoded, but not displayed. A VP8 packet may be a hidden reference.
        if packet.is_discard or (hides_frames and not memoryview(packet)[0] >> 4 & 1):
            continue
        if packet.pts is None or packet.pts in places:
            return None
        places[packet.pts] = (packet.pos, packet.size)
        ascending, latest = ascending and (latest is None or latest < packet.pts), packet.pts
        if packet.is_keyframe:
            keys.append(packet.pts)
    if ascending and decoder.stream.codec_context.has_b_frames and not _shown_as_stamped(decoder.path):
        return None
    stamps = sorted(places)
    return FrameTable(stamps, sorted(bisect.bisect_left(stamps, key) for key in keys), places) if stamps else None


def _shown_as_stamped(path: Path) -> bool:
    """Whether the first pictures come out in order of their times. They do not if a muxer lost the display times."""
    decoder = Decoder(path, threads=1)
    stamps = [picture.pts for picture in itertools.islice(decoder.all_pictures(), PROBED)]
    decoder.close()
    return all(a is None or b is None or a < b for a, b in itertools.pairwise(stamps))


def table_of_pictures(path: Path, *, edits: bool = True) -> FrameTable:
    """The table by decoding the whole file, in output order. A constant rate replaces times that do not ascend."""
    decoder = Decoder(path, threads=1, edits=edits)
    stamps = [picture.pts for picture in decoder.all_pictures()]
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or any(a >= b for a, b in itertools.pairwise(known)):
        # guessed_rate reads the stream itself; average_rate is the demuxer's default if there is no container.
        rate = decoder.stream.guessed_rate or decoder.stream.average_rate or Fraction(DEFAULT_FPS)
        step = max(1, round(1 / (rate * (decoder.stream.time_base or 1 / rate))))
        known = [k * step for k in range(len(stamps))]
    decoder.close()
    return FrameTable(known, keys=[], places=None)


def missing_frames(path: Path, announced: int) -> int:
    """The number of frames that the header announces and the file lacks.

    Frames that an edit list cuts off are not missing, nor are pauses, which AVI counts as frames.
    """
    decoder = Decoder(path, threads=1, edits=False)
    counts_pauses = decoder.container.format.name == "avi"
    count = 0
    for packet in decoder.packets():
        count += 1
        if counts_pauses and packet.dts is not None:
            count = max(count, packet.dts + 1)
    decoder.close()
    return announced - count
