"""Where to look first: the stretches of a video whose labels are least sure, and the page that shows them.

The page holds a timeline for each object, pictures of the worst stretches, and the commands that label the worst frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from vcorr.pages.document import document, jpeg
from vcorr.pages.timeline import timeline
from vcorr.phrases import frame_list

Confidence = NDArray[np.floating]
Drawn = Callable[[int], NDArray[np.uint8]]
"""Index of a frame -> its picture [h w 3] with its label drawn on it."""

SURE = 0.75  # confidence from which on a label needs no look
ALIKE = 0.1  # confidence by which the frames of a stretch differ at most from its worst
LOST = 0.02  # confidence below which there is hardly any mask
SMOOTH = 5  # frames that are averaged, so that a single one makes no stretch
APART = 0.03  # of the frames, between two stretches
STRETCHES, PICTURES = 8, 3  # on the page; of each
TIMELINES = 12  # on the page
SIDE = 420  # pixels of a picture, at most
TINT = 0.2  # opacity of the objects' colours over it
_STYLE = """
.next{border:1px solid #8886;border-left:5px solid #d2601a;border-radius:8px;padding:10px 16px;margin:14px 0 22px}
.next h2{margin:0;font-size:1.15rem}.next.sure{border-left-color:#2d8a4e}
pre{overflow-x:auto;background:#8882;border-radius:6px;padding:10px 12px;margin:8px 0;
font:13px/1.6 ui-monospace,monospace}
code{font:13px ui-monospace,monospace}.strip{grid-template-columns:repeat(3,1fr)}h1{font-size:1.5rem;margin:0}
h1,h3,p{overflow-wrap:anywhere}h2{font-size:1.2rem;margin:1.4em 0 .3em}
svg{width:100%;height:auto;display:block}path{fill:none}.line{stroke:#1f6fd6;stroke-width:1.8;stroke-linejoin:round}
.grid{stroke:#8884}.band{fill:#d2601a;opacity:.22}.cut{stroke:#c02a5b;stroke-width:1.6;stroke-dasharray:4 3}
.given{fill:#2d8a4e}.name{font-weight:600}
.dot{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:6px;
box-shadow:0 0 0 1px #8888}.legend{display:flex;flex-wrap:wrap;gap:2px 18px}
.legend svg{width:22px;height:14px;display:inline-block;vertical-align:middle;margin-right:5px}
@media(prefers-color-scheme:dark){.line{stroke:#6aa9ff}.cut{stroke:#ff7aa5}.given{fill:#6fcf8f}
.band{fill:#ff9d5c}}
"""
_KEYS = (  # name of a mark in the timelines, and how it is drawn
    ("confidence", '<path class="line" d="M1 11L9 4L15 8L21 2"/>'),
    ("labelled frame", '<path class="given" d="M11 12l-5 -9h10z"/>'),
    ("scene cut", '<path class="cut" d="M11 0V14"/>'),
    ("stretch shown below", '<path class="band" d="M1 0V14H21V0Z"/>'),
)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring frames that are about as unsure as the worst of them.

    Attributes:
        first, last: frames. worst: the frame to label. object: which is least sure there, counted from 0.
        confidence: of that object in that frame.
    """

    first: int
    last: int
    worst: int
    object: int
    confidence: float


@dataclass(frozen=True)
class Look:
    """What a page shows beside its pictures.

    Attributes:
        title: of the video. objects: names. colours: of them [n 3], as they are drawn.
        confidence: [frames objects], of frames from ``first`` on. labelled, cuts: frames.
        commands: that give frame N another label.
    """

    title: str
    objects: Sequence[str]
    colours: NDArray[np.uint8]
    confidence: Confidence
    first: int
    labelled: Sequence[int]
    cuts: Sequence[int]
    commands: Callable[[int], Sequence[str]]


def stretches(
    confidence: Confidence, first: int, labelled: Sequence[int] = (), cuts: Sequence[int] = ()
) -> list[Stretch]:
    """Finds the worst stretches of frames from ``first`` on, the worst first.

    Args:
        confidence: [frames objects] in [0, 1].
        labelled: frames that are in no stretch. cuts: first frames of scenes; a stretch lies within one.
    """
    if not confidence.size:
        return []
    lowest = confidence.min(1).astype(np.float64)
    fixed = np.isin(np.arange(len(lowest)) + first, labelled)
    smooth = _smoothed(lowest, fixed)
    apart, free = max(1, round(APART * len(lowest))), ~fixed
    found: list[Stretch] = []
    while free.any() and len(found) < STRETCHES:
        k = int(np.argmin(np.where(free, smooth, np.inf)))
        if smooth[k] >= SURE:
            break
        inside = free & (smooth <= smooth[k] + ALIKE)
        begin, end = k, k
        while begin > 0 and inside[begin - 1] and first + begin not in cuts:
            begin -= 1
        while end + 1 < len(lowest) and inside[end + 1] and first + end + 1 not in cuts:
            end += 1
        worst = begin + int(np.argmin(lowest[begin : end + 1] + 1e-6 * np.abs(np.arange(begin, end + 1) - k)))
        which = int(confidence[worst].argmin())
        found.append(Stretch(first + begin, first + end, first + worst, which, float(confidence[worst, which])))
        free[max(0, begin - apart) : end + 1 + apart] = False
    return found


def _smoothed(values: NDArray[np.float64], fixed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Means over SMOOTH frames, of those that are not fixed."""
    kernel = np.ones(SMOOTH)
    reach = SMOOTH // 2
    sums, counts = (
        np.convolve(np.pad(v, reach), kernel, "valid") for v in (np.where(fixed, 0, values), (~fixed).astype(float))
    )
    return np.asarray(sums / np.maximum(counts, 1))


def told(worst: Sequence[Stretch], objects: Sequence[str], cuts: Sequence[int]) -> str:
    """Says where to look first, in a line."""
    if not worst:
        said = f"no frame stands out: all have a confidence of {SURE} or more"
    else:
        one = worst[0]
        frames = f"frame {one.first}" if one.first == one.last else f"frames {one.first} to {one.last}"
        who = f"{objects[one.object]}, " if len(objects) > 1 else ""
        said = f"look first at {frames} ({who}confidence {one.confidence:.2f}): label frame {one.worst} next"
    return said + (f"; scene cuts at {frame_list(cuts)}" if cuts else "")


def page(look: Look, drawn: Drawn) -> str:
    """Draws the page."""
    worst = stretches(look.confidence, look.first, look.labelled, look.cuts)
    title = f"Where to look: {look.title}"
    return document(title, _parts(title, look, worst, drawn), _STYLE)


def _parts(title: str, look: Look, worst: Sequence[Stretch], drawn: Drawn) -> Iterator[str]:
    count = len(look.confidence)
    facts = [
        f"{count} frames ({look.first} to {look.first + count - 1})",
        f"labelled: {frame_list(look.labelled)}",
        f"scene cuts: {frame_list(look.cuts) or 'none found'}",
        f"mean confidence {look.confidence.mean():.2f}" if look.confidence.size else "no object",
    ]
    yield f'<h1>{escape(title)}</h1><p class="dim">{" · ".join(map(escape, facts))}</p>'
    yield _next(look, worst)
    keys = "".join(f'<span><svg viewBox="0 0 22 14">{mark}</svg>{name}</span>' for name, mark in _KEYS)
    yield f'<h2>Confidence</h2><p class="legend dim">{keys}</p>'
    order = sorted(range(len(look.objects)), key=lambda i: look.confidence[:, i].mean())
    shown = sorted(order[:TIMELINES])
    for i in shown:
        bands = [(s.first, s.last, str(n)) for n, s in enumerate(worst, start=1) if s.object == i]
        line = look.confidence[:, i]
        dot = f'<span class="dot" style="background:rgb{tuple(look.colours[i].tolist())}"></span>'
        yield f'<h3>{dot}{escape(look.objects[i])} <span class="dim">mean {line.mean():.2f}</span></h3>'
        name = f"confidence of {look.objects[i]}"
        yield timeline(line, look.first, labelled=look.labelled, cuts=look.cuts, bands=bands, title=name)
    if others := order[TIMELINES:]:
        least = look.confidence[:, others].mean(0).min()
        yield f'<p class="dim">{len(others)} more objects have a mean confidence of at least {least:.2f}.</p>'
    if worst:
        yield "<h2>The least sure stretches</h2>"
    for n, stretch in enumerate(worst, start=1):
        yield _strip(n, stretch, look, drawn)


def _next(look: Look, worst: Sequence[Stretch]) -> str:
    if not worst:
        return f'<div class="next sure"><h2>No frame stands out</h2>All have a confidence of {SURE} or more.</div>'
    one = worst[0]
    who = f" of {look.objects[one.object]}" if len(look.objects) > 1 else ""
    said = (
        f"The confidence{who} is {one.confidence:.2f} there. Save the frame, paint its mask, and label again from it:"
    )
    commands = "\n".join(map(escape, look.commands(one.worst)))
    return f'<div class="next"><h2>Label frame {one.worst} next</h2>{escape(said)}<pre>{commands}</pre></div>'


def _strip(n: int, stretch: Stretch, look: Look, drawn: Drawn) -> str:
    figures = "".join(
        f'<figure><img alt="frame {k}" src="{jpeg(drawn(k), SIDE)}"><figcaption>frame {k}'
        f"{', the least sure' if k == stretch.worst else ''}: "
        f"{look.confidence[k - look.first, stretch.object]:.2f}</figcaption></figure>"
        for k in sorted({stretch.first, stretch.worst, stretch.last})
    )
    frames = f"Frame {stretch.first}" if stretch.first == stretch.last else f"Frames {stretch.first} to {stretch.last}"
    behind = [cut for cut in look.cuts if cut <= stretch.last]
    scene = max(behind, default=look.first)
    alone = bool(look.cuts) and not any(
        scene <= k < min((c for c in look.cuts if c > scene), default=look.first + len(look.confidence))
        for k in look.labelled
    )
    more = " This scene has no labelled frame." if alone else ""
    if stretch.confidence < LOST:
        more += " There is hardly anything of it: nothing is wrong if it has left the picture."
    return (
        f"<h3>{n} · {frames}, {escape(look.objects[stretch.object])}</h3>"
        f'<p class="dim">Label frame {stretch.worst}.{more}</p><div class="strip">{figures}</div>'
    )
