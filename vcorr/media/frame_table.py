"""Which frames a video file has and when each is shown, from its packets, or from decoding it once."""

from __future__ import annotations

import bisect
import itertools
from fractions import Fraction
from pathlib import Path

from vcorr.media.decoder import Decoder, FrameTable

# Formats whose packets do not say when a frame is shown, only when it is decoded: the same but for codecs that reorder.
ORDER_OF_DECODING = frozenset({"avi", "mxf", "asf"})
PROBED = 64  # pictures: enough to meet a reordered one in a stream that has them
DEFAULT_FPS = 25.0


def table_of_packets(decoder: Decoder) -> FrameTable | None:
    """The table from the packets' own times, or None where they do not tell the frames apart."""
    if decoder.container.format.name in ORDER_OF_DECODING and decoder.stream.codec_context.has_b_frames:
        return None
    hides_frames = decoder.stream.codec_context.name == "vp8"
    keys: list[int] = []
    places: dict[int, tuple[int | None, int]] = {}
    ascending, latest = True, None
    for packet in decoder.packets():
        # Edit lists cut frames off that are decoded all the same; a VP8 packet may be a reference that is never shown.
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
    """Whether the first pictures come out in the order of their times: not so where a muxer lost how they reorder."""
    decoder = Decoder(path, threads=1)
    stamps = [picture.pts for picture in itertools.islice(decoder.all_pictures(), PROBED)]
    decoder.close()
    return all(a is None or b is None or a < b for a, b in itertools.pairwise(stamps))


def table_of_pictures(path: Path) -> FrameTable:
    """The table from decoding everything, in the order of output. Times that do not ascend become a steady rate."""
    decoder = Decoder(path, threads=1)
    stamps = [picture.pts for picture in decoder.all_pictures()]
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or any(a >= b for a, b in itertools.pairwise(known)):
        # The guess knows what a stream without a container says of itself; the average is then the demuxer's default.
        rate = decoder.stream.guessed_rate or decoder.stream.average_rate or Fraction(DEFAULT_FPS)
        step = max(1, round(1 / (rate * (decoder.stream.time_base or 1 / rate))))
        known = [k * step for k in range(len(stamps))]
    decoder.close()
    return FrameTable(known, keys=[], places=None)


def missing_frames(path: Path, announced: int) -> int:
    """How many of the frames that the header announces are not in the file.

    Not missing: what an edit list cuts off, and the pauses that AVI counts as frames.
    """
    decoder = Decoder(path, threads=1, ignore_editlist="1")
    counts_pauses = decoder.container.format.name == "avi"
    count = 0
    for packet in decoder.packets():
        count += 1
        if counts_pauses and packet.dts is not None:
            count = max(count, packet.dts + 1)
    decoder.close()
    return announced - count
