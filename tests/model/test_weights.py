"""Weights on disk: whole or not at all, and nothing foreign is believed."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import stat
from contextlib import contextmanager

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import callers
from tests.toys import NOT_TEXT, takes_any_name
from vcorr import rng
from vcorr.errors import InputError, OutputError
from vcorr.matching.settings import Matching
from vcorr.model import network
from vcorr.model.inference import Inference, References
from vcorr.model.resnet import ResNetConfig
from vcorr.model.weights import Weights, default_weights, load_tensors, load_weights, save_tensors, save_weights

NET = ResNetConfig(widths=(4, 4, 6, 8), features=5)


def tiny(**meta):
    params, stats = network.init(NET, rng.generator(0, "init"))
    matching = Matching(radius=3, border="zeros")
    return Weights(params, stats, NET, matching, Inference(References(short=(1, 2)), scale=9.0), meta, space="rgb")


@pytest.mark.parametrize("name", callers.STATES)
def test_weights_are_float32_whatever_the_state_of_the_caller(tmp_path, name):
    with callers.STATES[name]():
        weights = load_weights()
    assert {t.dtype for t in (*weights.params.values(), *weights.stats.values())} == {torch.float32}
    wanted = load_weights().params
    assert all(torch.equal(weights.params[k], wanted[k]) for k in wanted)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a good weights file."""
    path = tmp_path_factory.mktemp("good") / "w.safetensors"
    save_weights(path, tiny())
    return path.read_bytes()


def rewritten(path, change):
    """A good weights file with tensors and header changed by ``change(tensors, header)``."""
    save_weights(path, tiny())
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["vcorr"])
    change(tensors, header)
    safetensors.torch.save_file(tensors, path, {"vcorr": json.dumps(header)})
    return path


def in_one_line(refused):
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- what is written comes back -------------------------------------------------------------------------------------


def test_weights_come_back(tmp_path):
    wanted = tiny(step=7, recipe="mast")
    save_weights(tmp_path / "deep" / "w.safetensors", wanted)
    got = load_weights(tmp_path / "deep" / "w.safetensors")
    for field in ("net", "matching", "inference", "space"):
        assert getattr(got, field) == getattr(wanted, field)
    assert (got.meta["step"], got.meta["recipe"]) == (7, "mast")
    for old, new in ((wanted.params, got.params), (wanted.stats, got.stats)):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[k], new[k]) for k in old)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


READER = {
    **{
        "radius": 5,
        "scale": 28.0,
        "border": "zeros",
        "alignment": "corner",
        "long": [0],
        "short": [1, 2],
        "top_k": None,
    },
    **{"feedback": "hard", "space": "gray", "compactness": 0, "slow": True, "search": 15},
}


def first_form(reader):
    """A change to a header of the first form, which holds all settings in one."""

    def change(tensors, header):
        for key in ("matching", "inference", "space"):
            del header[key]
        header |= {"format": "vcorr-weights-1", "reader": reader}

    return change


def test_a_header_of_the_first_form_is_read_as_it_was(tmp_path):
    got = load_weights(rewritten(tmp_path / "w", first_form(READER)))
    assert got.matching == Matching(radius=5, scale=28.0, border="zeros", alignment="corner")
    wanted = Inference(References((0,), (1, 2)), feedback="hard", slow=True, roi_search=15)
    assert (got.inference, got.space) == (wanted, "gray")
    save_weights(tmp_path / "again", got)
    again = load_weights(tmp_path / "again")
    assert (again.matching, again.inference, again.space) == (got.matching, got.inference, got.space)
    assert "reader" not in again.meta
    early = load_weights(rewritten(tmp_path / "early", first_form({"radius": None})))
    assert (early.matching, early.inference) == (Matching(radius=None), Inference(feedback="soft"))


@pytest.mark.parametrize(
    "wrong", [{"x": 1}, {"radius": -1}, {"long": [-1]}, {"top_k": 0}, {"space": "cmyk"}, {"border": 3}, 5]
)
def test_a_damaged_header_of_the_first_form_is_refused(tmp_path, wrong):
    reader = READER | wrong if isinstance(wrong, dict) else wrong
    with pytest.raises(InputError, match="does not say how to read it") as refused:
        load_weights(rewritten(tmp_path / "w", first_form(reader)))
    in_one_line(refused)


@takes_any_name
def test_weights_come_back_from_a_path_that_is_no_text(tmp_path):
    save_weights(tmp_path / NOT_TEXT / "w.safetensors", tiny(step=7))
    got = load_weights(tmp_path / NOT_TEXT / "w.safetensors")
    assert got.meta["step"] == 7 and all(torch.equal(v, got.params[k]) for k, v in tiny().params.items())
    (tmp_path / NOT_TEXT / "w.safetensors").write_bytes(b"no tensors")
    for name, words in [("w.safetensors", "is not a readable safetensors file"), ("none", "no such file")]:
        with pytest.raises(InputError, match=words):
            load_weights(tmp_path / NOT_TEXT / name)


def test_half_weights_are_half_as_large_and_as_exact_as_float16(tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    wanted = tiny()
    save_weights(whole, wanted)
    save_weights(half, wanted, half=True)
    got = load_weights(half)
    assert all(v.dtype == torch.float32 for v in got.params.values())
    assert all(torch.equal(got.params[k], v.half().float()) for k, v in wanted.params.items())
    assert all(torch.equal(got.stats[k], v) for k, v in wanted.stats.items())
    assert half.stat().st_size < whole.stat().st_size


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_tensors_in_any_layout_and_with_gradients_are_saved(tmp_path, layout):
    tensor = torch.randn(2, 3, 4, 5, generator=rng.generator(0, "test")).contiguous(memory_format=layout)
    save_tensors(tmp_path / "t", {"x": tensor.requires_grad_(), "n": torch.tensor(3)}, {"a": [1, None]})
    tensors, meta = load_tensors(tmp_path / "t")
    assert torch.equal(tensors["x"], tensor.detach()) and int(tensors["n"]) == 3
    assert meta == {"a": [1, None]}


def test_the_default_weights_have_their_place():
    assert default_weights().parent.name == "weights"


# --- what is foreign or damaged is refused --------------------------------------------------------------------------


@given(st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, content, data):
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError) as refused:
        load_weights(path)
    assert in_one_line(refused).startswith(str(path))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError):
        load_weights(path)


@given(st.data())
def test_a_header_with_random_bytes_in_it_is_refused_or_harmless(tmp_path_factory, content, data):
    """Whatever stands in the header, the answer is weights or an InputError."""
    length = 8 + int.from_bytes(content[:8], "little")
    at = data.draw(st.integers(0, length - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    try:
        assert load_weights(path).net.features > 0
    except InputError as error:
        assert str(path) in str(error)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_a_pickle_is_refused_unopened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Trap()))
    torch.save({"x": torch.zeros(2)}, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(InputError, match="is not a readable safetensors file"):
            load_weights(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_not_there_or_no_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_weights(tmp_path / "none")
    with pytest.raises(InputError, match="is not a readable"):
        load_weights(tmp_path)


@pytest.mark.parametrize("header", [None, {}, {"format": "pt"}, {"vcorr": "["}, {"vcorr": "3"}, {"vcorr": "[" * 99999}])
def test_foreign_safetensors_are_refused(tmp_path, header):
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "w", header)
    with pytest.raises(InputError, match="not one that vcorr wrote"):
        load_weights(tmp_path / "w")


def test_a_training_state_is_not_taken_for_weights(tmp_path):
    save_tensors(tmp_path / "s", {"x": torch.zeros(2)}, {"format": "vcorr-state-1"})
    with pytest.raises(InputError, match=r"holds vcorr-state-1, not vcorr-weights-2; give the weights\.safetensors"):
        load_weights(tmp_path / "s")


def put(group, **values):
    return lambda tensors, header: header[group].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda t, h: h.pop("net"), "does not say how to read it", id="no-net"),
        pytest.param(lambda t, h: h.update(net=3), "does not say how to read it", id="net-no-object"),
        pytest.param(put("net", depth=3), "unknown fields depth", id="unknown-field"),
        pytest.param(put("net", widths=[4, 4, 6]), "widths", id="three-widths"),
        pytest.param(put("net", widths=[4, 4, 6, -8]), "widths", id="negative-width"),
        pytest.param(put("net", widths=[4, 4, 6, 10**7]), "wanted", id="wide"),
        pytest.param(put("net", widths=[10**12] * 4), "impossible network", id="too-wide-for-memory"),
        pytest.param(put("net", widths=[10**30] * 4), "impossible network", id="too-wide-for-integers"),
        pytest.param(put("matching", radius=-1), "radius", id="negative-radius"),
        pytest.param(put("matching", border="wrap"), "border", id="unknown-border"),
        pytest.param(put("matching", scale=float("nan")), "scale", id="nan-scale"),
        pytest.param(put("inference", references={"short": [0]}), "short", id="reads-itself"),
        pytest.param(put("inference", radius="twice"), "radius", id="radius-no-number"),
        pytest.param(put("inference", scale=float("inf")), "scale", id="infinite-scale"),
        pytest.param(put("inference", radius=None, roi_search=15), "roi_search must be 0", id="search-everywhere"),
        pytest.param(lambda t, h: h.update(space="cmyk"), "space", id="unknown-space"),
        pytest.param(lambda t, h: h.pop("inference"), "does not say how to read it", id="no-inference"),
        pytest.param(lambda t, h: t.pop("params/head.bias"), "lacks 1 tensors, first head.bias", id="lacks"),
        pytest.param(lambda t, h: t.update({"params/x": torch.zeros(1)}), "unknown tensors, first x", id="extra"),
        pytest.param(
            lambda t, h: t.update({"params/head.bias": torch.zeros(6)}), r"shape \[6\], wanted \[5\]", id="shape"
        ),
        pytest.param(
            lambda t, h: t["params/head.bias"].fill_(float("nan")), "head.bias holds values that are not", id="nan"
        ),
        pytest.param(lambda t, h: t["stats/stem.bn.var"].fill_(-1), "negative variances", id="negative-variance"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as refused:
        load_weights(rewritten(tmp_path / "w", change))
    in_one_line(refused)


# --- a file is replaced whole or not at all -------------------------------------------------------------------------


@contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with file_size_limit(4096), pytest.raises(OutputError, match="cannot be written") as refused:
        save_weights(path, tiny())
    assert "free space" in in_one_line(refused)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_a_disk_that_is_full_at_the_end_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "w"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_weights(path, tiny())
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "w").mkdir(parents=True)
    for path in (tmp_path / "file" / "w", tmp_path / "folder" / "w"):
        with pytest.raises(OutputError, match="cannot be written") as refused:
            save_weights(path, tiny())
        assert str(path) in in_one_line(refused)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            save_weights(tmp_path / "w", tiny())
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_of_a_file_follows_the_umask(tmp_path, mask):
    old = os.umask(mask)
    try:
        save_weights(tmp_path / "w", tiny())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "w").stat().st_mode) == 0o666 & ~mask


# --- differences ----------------------------------------------------------------------------------------------------
