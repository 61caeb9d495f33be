"""The bank of negatives: a ring whose content is known, groups, and the affinity that it makes."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.forked import Forked
from vcorr import rng
from vcorr.kernels import windowed_attention_lse
from vcorr.model.weights import load_tensors, save_tensors
from vcorr.training.losses import bank
from vcorr.training.losses.bank import BankConfig


def features(*shape, seed=0):
    return torch.randn(*shape, generator=rng.generator(seed, "test"))


# --- the ring ------------------------------------------------------------------------------------------------------


@examples(40)
@given(frames=st.integers(1, 7), pushes=st.lists(st.integers(1, 9), max_size=6))
def test_the_ring_keeps_the_last_frames(frames, pushes):
    """Against a queue: whatever has been pushed, in any portions, also more at once than fits."""
    queue, extra, sample = deque(maxlen=frames), bank.init(BankConfig(frames, 2), 3), 0
    for k, count in enumerate(pushes):
        new, videos = features(count, 2, 3, seed=k), [(7 * k + n) % 5 for n in range(count)]
        extra = bank.push(extra, new, videos, range(sample, sample + count))
        queue.extend(zip(new, videos, strict=True))
        sample += count
    assert int(extra["bank.pushed"]) == sample
    negatives, groups = bank.read(extra)
    kept = sorted((int(v), tuple(f.flatten().tolist())) for f, v in queue)
    got = sorted(
        (int(v[0]), tuple(f.flatten().tolist()))
        for f, v in zip(negatives.view(-1, 2, 3), groups.view(-1, 2), strict=True)
    )
    assert got == kept and all(len(set(v.tolist())) == 1 for v in groups.view(-1, 2))


def test_a_new_frame_takes_the_place_of_the_oldest():
    extra = bank.init(BankConfig(3, 1), 1)
    for k in range(5):
        extra = bank.push(extra, torch.full((1, 1, 1), float(k)), [k], [k])
    assert extra["bank.features"].flatten().tolist() == [3, 4, 2]
    assert extra["bank.videos"].tolist() == [3, 4, 2]


def test_pushing_leaves_its_arguments_and_other_tensors_alone():
    extra = bank.init(BankConfig(3, 2), 4) | {"mine": torch.ones(2)}
    before = {k: v.clone() for k, v in extra.items()}
    new = features(2, 2, 4).requires_grad_()
    pushed = bank.push(extra, new, [1, 2], [0, 1])
    assert all(torch.equal(extra[k], before[k]) for k in before)
    assert pushed["mine"] is extra["mine"] and pushed.keys() == extra.keys()
    assert not any(v.requires_grad for v in pushed.values())
    assert all(pushed[k].shape == extra[k].shape and pushed[k].dtype == extra[k].dtype for k in extra)


def test_frames_lie_in_the_order_of_their_samples():
    extra, new = bank.init(BankConfig(4, 1), 1), torch.arange(3.0).view(3, 1, 1)
    pushed = bank.push(extra, new, [10, 11, 12], [5, 3, 4])
    assert pushed["bank.features"].flatten().tolist() == [1, 2, 0, 0]
    assert pushed["bank.videos"].tolist() == [11, 12, 10, -1]


@pytest.mark.slow
def test_a_bank_of_no_frames_stays_empty_and_survives_a_file(tmp_path):
    extra = bank.init(BankConfig(0, 4), 8)
    extra = bank.push(extra, features(2, 4, 8), [0, 1], [0, 1])
    save_tensors(tmp_path / "state", extra, {})
    assert all(torch.equal(v, extra[k]) for k, v in load_tensors(tmp_path / "state")[0].items())
    assert torch.equal(bank.logsumexp(extra, features(1, 2, 2, 8), [0]), torch.full((1, 2, 2), -torch.inf))


@pytest.mark.parametrize("numbers", [(-1, 4), (10, 0)])
def test_impossible_banks_are_refused(numbers):
    with pytest.raises(ValueError, match="frames must be at least 0 and points 1"):
        BankConfig(*numbers)


GATHERED = """
import sys, torch, torch.distributed as dist
from vcorr.training.losses import bank
from vcorr import ranks, rng
torch.set_num_threads(1)
rank, where = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
extra = bank.init(bank.BankConfig(5, 2), 3)
for step in range(3):
    samples = [4 * step + k for k in ((0, 3), (1, 2))[rank]]   # parts that are not in order
    new = torch.stack([torch.full((2, 3), float(s)) for s in samples])
    with ranks.parted():
        extra = bank.push(extra, new, [s % 3 for s in samples], samples)
torch.save(extra, f"{where}/{rank}")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_keep_the_bank_that_one_would():
    with tempfile.TemporaryDirectory() as where:
        ranks = [Forked("-c", GATHERED, str(rank), where, GLOO_SOCKET_IFNAME="lo") for rank in range(2)]
        ended = [rank.wait() for rank in ranks]
        assert [rank.code for rank in ended] == [0, 0], ended
        found = [torch.load(Path(where) / str(rank)) for rank in range(2)]
    alone = bank.init(BankConfig(5, 2), 3)
    for step in range(3):
        samples = range(4 * step, 4 * step + 4)
        new = torch.stack([torch.full((2, 3), float(s)) for s in samples])
        alone = bank.push(alone, new, [s % 3 for s in samples], samples)
    for extra in found:
        assert all(torch.equal(extra[k], alone[k]) for k in alone)


# --- points --------------------------------------------------------------------------------------------------------


def test_points_are_cells_of_their_frame_drawn_once_each():
    maps = torch.arange(3 * 5 * 7.0).reshape(3, 5, 7, 1)
    drawn = bank.draw(maps, 6, [rng.generator(0, "points", k) for k in range(3)])
    assert drawn.shape == (3, 6, 1)
    for k, points in enumerate(drawn.flatten(1).tolist()):
        assert len(set(points)) == 6 and all(35 * k <= p < 35 * (k + 1) for p in points)
    assert len({tuple((p.flatten() % 35).tolist()) for p in drawn}) == 3
    with pytest.raises(ValueError, match="points must be at most the 35 cells of a frame, got 36"):
        bank.draw(maps, 36, [rng.generator(0, "points")] * 3)


def test_points_follow_their_sample_and_not_its_place_in_the_batch():
    maps = features(2, 5, 7, 3)
    rngs = lambda *samples: [rng.generator(0, "points", s) for s in samples]  # noqa: E731
    there, back = bank.draw(maps, 4, rngs(8, 9)), bank.draw(maps.flip(0), 4, rngs(9, 8))
    assert torch.equal(there, back.flip(0))


# --- the affinity --------------------------------------------------------------------------------------------------


def joint_readout(query, key, value, negatives, own, groups, *, radius, scale, border):
    """LIIR eq. 4 and 5 in loops: one softmax over the window's cells and every point of another video, by hand."""
    b, h, w, _ = query.shape
    out = query.new_zeros(b, h, w, value.shape[-1])
    for n in range(b):
        others = negatives[groups != own[n]]
        for y in range(h):
            for x in range(w):
                logits, values = [scale * (others @ query[n, y, x])], [value.new_zeros(len(others), value.shape[-1])]
                for v in range(y - radius, y + radius + 1):
                    for u in range(x - radius, x + radius + 1):
                        if 0 <= v < h and 0 <= u < w:
                            logits.append(scale * (key[n, v, u] @ query[n, y, x])[None])
                            values.append(value[n, v, u][None])
                        elif border == "zeros":
                            logits.append(query.new_zeros(1))
                            values.append(value.new_zeros(1, value.shape[-1]))
                out[n, y, x] = torch.cat(logits).softmax(0) @ torch.cat(values)
    return out


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_inter_and_intra_video_affinity_is_one_softmax(border):
    """Values and every gradient against concatenating all logits."""
    query, key, value = (features(2, 4, 5, c, seed=k).double().requires_grad_() for k, c in enumerate((6, 6, 3)))
    extra = bank.push(bank.init(BankConfig(8, 2), 6), features(5, 2, 6, seed=3), [0, 1, 2, 1, 0], range(5))
    extra |= {"bank.features": extra["bank.features"].double()}
    negatives, groups = bank.read(extra)
    own, scale = [1, 3], 0.7
    wanted = joint_readout(
        query, key, value, negatives, torch.tensor(own), groups, radius=1, scale=scale, border=border
    )
    readout, intra = windowed_attention_lse(query, key, value, radius=1, scale=scale, border=border)
    got = readout * bank.share(extra, query, own, intra, scale=scale)[..., None]
    torch.testing.assert_close(got, wanted)
    weights = features(*got.shape, seed=4).double()
    ours = torch.autograd.grad((got * weights).sum(), (query, key, value))
    theirs = torch.autograd.grad((wanted * weights).sum(), (query, key, value))
    torch.testing.assert_close(ours, theirs)


def test_points_of_the_same_video_are_left_out():
    """A clip of a video that is alone in the bank reads as if the bank were empty; another clip does not."""
    extra = bank.push(bank.init(BankConfig(4, 3), 6), features(2, 3, 6), [7, 7], [0, 1])
    query = features(2, 3, 3, 6, seed=1)
    intra = torch.zeros(2, 3, 3)
    share = bank.share(extra, query, [7, 8], intra)
    assert torch.equal(share[0], torch.ones(3, 3)) and bool((share[1] < 0.5).all())
    wanted = (extra["bank.features"][:2].flatten(0, 1) @ query[1].flatten(0, 1).T / 6**0.5).logsumexp(0)
    torch.testing.assert_close(share[1].flatten(), torch.sigmoid(-wanted))


@pytest.mark.parametrize("frames", [0, 4])
def test_with_an_empty_bank_the_affinity_is_the_window_alone(frames):
    """LIIR eq. 4 becomes eq. 1, in its value and its gradients."""
    query, key, value = (features(2, 4, 5, 6, seed=k).requires_grad_() for k in range(3))
    extra = bank.init(BankConfig(frames, 2), 6)
    readout, intra = windowed_attention_lse(query, key, value, radius=2)
    share = bank.share(extra, query, [0, 1], intra)
    assert torch.equal(share, torch.ones(2, 4, 5))
    joint = torch.autograd.grad((readout * share[..., None]).sum(), (query, key, value), retain_graph=True)
    alone = torch.autograd.grad(readout.sum(), (query, key, value))
    assert all(torch.equal(a, b) for a, b in zip(joint, alone, strict=True))


def test_a_batch_can_be_its_own_bank():
    """Two samples read; three more only lend their points; those of one's own video are left out."""
    query, key = features(2, 3, 4, 6, seed=1).requires_grad_(), features(5, 3, 4, 6, seed=2).requires_grad_()
    intra, videos = features(2, 3, 4, seed=3), [7, 8, 7, 9, 9]

    share = bank.share_of_batch(query, key, intra, 2, 3, range(5), videos, scale=0.7)
    points = bank.draw(key, 2, [rng.generator(3, "points", k) for k in range(5)])
    for b, others in enumerate(([1, 3, 4], [0, 2, 3, 4])):
        mass = (0.7 * query[b].flatten(0, 1) @ points[others].flatten(0, 1).T).logsumexp(1)
        torch.testing.assert_close(share[b].flatten(), torch.sigmoid(intra[b].flatten() - mass))
    share.sum().backward()
    assert query.grad is not None and key.grad is None  # negatives carry no gradient
