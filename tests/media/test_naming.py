"""Folders that stand for files: distinct, none inside another, and the same when the rest changes."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vcorr.media.naming import folders_for

PARTS = st.sampled_from(["a", "A", "b", "clip", "clip.mp4", "frames", "a.2"])
NAMES = st.lists(
    st.builds(
        lambda parts, suffix: "/".join(parts) + suffix,
        st.lists(PARTS, min_size=1, max_size=3),
        st.sampled_from(["", ".mp4", ".avi"]),
    ),
    unique=True,
    max_size=12,
)


def files(names):
    return {name: name.endswith((".mp4", ".avi")) for name in names}


@examples(100)
@given(NAMES, NAMES)
def test_no_folder_is_another_or_lies_in_it_now_or_later(first, second):
    known = folders_for(files(first))
    both = folders_for(files(dict.fromkeys([*second, *first])), known)
    assert known.items() <= both.items() and set(both) == {*first, *second}
    folded = [folder.casefold().split("/") for folder in both.values()]
    for a, b in permutations(folded, 2):
        assert a != b[: len(a)]


def test_names_are_those_that_one_expects():
    names = ["deep/x.mp4", "x.avi", "x.mp4", "x.X.mp4", "y", "y/z.mp4", "y.mp4", "."]
    assert folders_for(files(names)) == {
        "deep/x.mp4": "deep/x",
        "x.avi": "x",
        "x.mp4": "x.mp4",
        "x.X.mp4": "x.X",
        "y": "y/frames",
        "y/z.mp4": "y/z",
        "y.mp4": "y.mp4",
        ".": "frames",
    }


def test_case_alone_makes_no_other_name():
    assert folders_for(files(["Clip.mp4", "clip.mp4", "CLIP.avi"])) == {
        "Clip.mp4": "Clip",
        "clip.mp4": "clip.mp4",
        "CLIP.avi": "CLIP.avi",
    }


def test_a_name_given_out_is_kept_and_never_given_to_another():
    known = {"gone.mp4": "clip", "clip.mov": "clip.mov"}
    assert folders_for(files(["clip.mp4"]) | {"clip.mov": True}, known) == {
        "clip.mov": "clip.mov",
        "clip.mp4": "clip.mp4",
    }
