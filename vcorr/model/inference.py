"""Inference settings: how labels are read with trained weights. They are saved with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from vcorr.config import from_json
from vcorr.matching.settings import Matching
from vcorr.model import color

Same = Literal["same"]


@dataclass(frozen=True)
class References:
    """The frames that a query reads.

    Attributes:
        long: positions counted from the labelled frame. short: numbers of frames before the query.
        whole: read all of the long ones, not through a window.
        repeat: short ones from before the labelled frame are that frame, so often (the contrastive random walk, which
            pads the video with copies of its first frame).
    """

    long: tuple[int, ...] = (0, 5)
    short: tuple[int, ...] = (1, 3, 5)
    whole: bool = False
    repeat: bool = False

    def __post_init__(self) -> None:
        if min(self.long, default=0) < 0 or min(self.short, default=1) < 1:
            raise ValueError(f"long must be >= 0 and short >= 1, got {self.long} and {self.short}")


@dataclass(frozen=True)
class Inference:
    """How labels are read. ``Matching`` says how frames are compared.

    Attributes:
        references: the frames that a query reads.
        radius, scale: of the window and the logits; "same" takes those of training.
        shape: of the windows: all cells up to the radius (square), or those closer than the radius (disk).
        feedback: what later frames read: the scores of the cells (soft), or the argmax of every pixel, downsampled to
            cells again (hard).
        least: shares of an object below this count as background in later frames. Background cells need no reading.
        screen: cells whose neighbourhood holds a smaller share of objects by a reading at half the resolution are
            background, and are not read (``matching.coarse``); None reads all that a label can reach.
        top_k: the softmax covers only this many largest logits of all references jointly; None covers all.
        compactness: where a reference is matched surely, read from the so many best cells of it (``compactness.read``);
            0 reads from all.
        roi_search: in references more than so many frames away, look for the region to read from first (``region``;
            MAST: 15); 0 looks nowhere.
        follow: windows of long references go with what moves (``matching.carry``): where the best match at the carried
            place is better by so much than at the cell's own, as cosines; None leaves them in place.
        origin: how strongly what is said to be an object is doubted where it does not come from that object in the
            labelled frame (``matching.origin``), by the places that ``follow`` carries along; 0 is not at all.
        pieces: where the labelled frame shows an object in one piece, pieces apart from its body that weigh less than
            this share of it are background (``matching.pieces``); 0 keeps them all.
        focus: encode only the part of a frame that lies within so many cells of an object of a recent frame
            (``propagation.focus``): its objects must be there, so take at least the radius; None encodes all of it.
        zoom: enlarge frames whose objects are thin, so that a cell is fewer pixels (``propagation.zoom``), up to a
            short side of so many times 480; 0 enlarges none.
        appearance: strength of a model of what the classes look like (``matching.appearance``), which corrects what was
            read of a frame, but not what later frames read of it; 0 is none.
        upsampling: of the scores of classes to pixels: bilinear, or guided by the colours of the frame (``guided``),
            which needs the alignment cell.
        slow: encode references with the slow encoder, where the weights hold one (MAST-momentum).
    """

    references: References = References()
    radius: int | Same | None = "same"
    scale: float | Same | None = "same"
    shape: Literal["square", "disk"] = "square"
    feedback: Literal["soft", "hard"] = "soft"
    least: float = 0.0
    screen: float | None = None
    top_k: int | None = None
    compactness: int = 0
    roi_search: int = 0
    follow: float | None = None
    origin: float = 0.0
    pieces: float = 0.0
    focus: int | None = None
    zoom: float = 0.0
    appearance: float = 0.0
    upsampling: Literal["bilinear", "guided"] = "bilinear"
    slow: bool = False

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None, got {self.top_k}")
        if not 0 <= self.least < 0.5:
            raise ValueError(f"least must lie in [0, 0.5), got {self.least}")
        if self.screen is not None and (self.compactness or not 0 <= self.screen < 0.5):
            got = f"{self.screen} with compactness {self.compactness}"
            raise ValueError(f"screen must lie in [0, 0.5), or None, which it must be with compactness, got {got}")
        if self.compactness < 0 or (self.compactness and self.top_k):
            got = f"{self.compactness} with top_k {self.top_k}"
            raise ValueError(f"compactness must be >= 0, and 0 where there is a top_k, got {got}")
        if self.roi_search < 0 or (self.roi_search and (self.top_k or self.compactness)):
            got = f"{self.roi_search} with top_k {self.top_k}, compactness {self.compactness}"
            raise ValueError(f"roi_search must be >= 0, and 0 where there is a top_k or compactness, got {got}")
        if not 0 <= self.appearance < 100 or (self.appearance and self.feedback == "hard"):
            got = f"{self.appearance} with feedback {self.feedback}"
            raise ValueError(f"appearance must lie in [0, 100), and be 0 where feedback is hard, got {got}")
        if self.follow is not None and (self.compactness or self.roi_search):
            got = f"{self.follow} with compactness {self.compactness}, roi_search {self.roi_search}"
            raise ValueError(f"follow must be None where there is compactness or a roi_search, got {got}")
        if self.follow is not None and not (self.references.short and 0 <= self.follow <= 2):
            got = f"{self.follow} with short references {self.references.short}"
            raise ValueError(f"follow must lie in [0, 2], and needs a short reference, got {got}")
        if not 0 <= self.origin < 100 or (self.origin and (self.follow is None or 0 not in self.references.long)):
            got = f"{self.origin} with follow {self.follow}, long references {self.references.long}"
            raise ValueError(f"origin must lie in [0, 100), and be 0 where nothing follows in reference 0, got {got}")
        plain = self.shape == "square" and not self.references.whole
        if not plain and (self.compactness or self.roi_search):
            got = f"shape {self.shape}, whole {self.references.whole}"
            raise ValueError(
                f"compactness and roi_search must be 0 but for square windows in all references, got {got}"
            )
        if self.references.whole and (self.follow is not None or self.screen is not None):
            got = f"follow {self.follow}, screen {self.screen}"
            raise ValueError(f"follow and screen must be None where long references are read whole, got {got}")
        if self.focus is not None and self.focus < 0:
            raise ValueError(f"focus must be at least 0, or None, got {self.focus}")
        if not 0 <= self.zoom <= 8:
            raise ValueError(f"zoom must lie in [0, 8], got {self.zoom}")
        if not 0 <= self.pieces < 1:
            raise ValueError(f"pieces must lie in [0, 1), got {self.pieces}")

    def matching(self, trained: Matching) -> Matching:
        """How frames are compared when labels are read, from how they were in training.

        Raises:
            ValueError: settings that do not go together.
        """
        own = {"radius": self.radius, "scale": self.scale}
        read = replace(trained, **{k: v for k, v in own.items() if v != "same"})  # type: ignore[arg-type]
        if self.shape == "disk" and read.radius == 0:
            raise ValueError("radius must be at least 1 where the shape is disk, got 0")
        if self.upsampling == "guided" and read.alignment != "cell":
            raise ValueError(f"upsampling must be bilinear where the alignment is not cell, got {read.alignment}")
        if self.roi_search and read.radius is None:
            raise ValueError(f"roi_search must be 0 where the whole frame is read (radius none), got {self.roi_search}")
        if self.screen is not None and (read.radius is None or read.border == "zeros"):
            got = f"{self.screen} with radius {read.radius}, border {read.border}"
            raise ValueError(f"screen must be None for the whole frame and for border zeros, got {got}")
        if self.follow is not None and read.radius is None:
            raise ValueError(f"follow must be None where the whole frame is read (radius none), got {self.follow}")
        return read


@dataclass(frozen=True)
class Settings:
    """All that a weights file says of how labels are read: settings that go together.

    Attributes:
        matching: how frames were compared in training. inference: how labels are read.
        space: what the network sees: normalised Lab, RGB, or gray.
    """

    matching: Matching = Matching()  # noqa: RUF009 (frozen: its own immutable default)
    inference: Inference = Inference()
    space: color.Space = "lab"

    def __post_init__(self) -> None:
        self.inference.matching(self.matching)


def from_reader(header: Mapping[str, Any]) -> Settings:
    """The settings of a weights file that holds them all in one, as ``reader``.

    Raises:
        ValueError: a field that there never was, or a value that it does not take.
    """
    if not isinstance(header, Mapping):
        raise ValueError(f"reader must be a table of settings, got {header!r}")
    fields = dict(header)

    def take(**names: str) -> dict[str, Any]:
        return {new: fields.pop(old) for old, new in names.items() if old in fields}

    matching = take(radius="radius", scale="scale", border="border", alignment="alignment")
    references, seen = take(long="long", short="short"), take(space="space")
    settings = take(feedback="feedback", top_k="top_k", compactness="compactness", search="roi_search", slow="slow")
    if fields:
        raise ValueError(f"unknown fields {', '.join(sorted(fields))} of reader")
    inference = {"feedback": "soft"} | settings | {"references": references}
    known: Settings = from_json(Settings, {"matching": matching, "inference": inference} | seen)
    return known
