"""Beyond inputs and outputs a reading holds buffers of one size, whatever the number of references."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FEW, MANY = 8, 14  # references; with top_k eight are scored at once
CELLS, FEATURES, CHANNELS = 60 * 107, 64, 64
GRADIENTS = 4 * CELLS * (FEATURES + CHANNELS) // 1024  # of a reference's keys and values, in kilobytes
SLACK = 6_000  # kilobytes: less than the values of four references

READINGS = {
    "plain": "read(values)",
    "gradients": "torch.autograd.grad(read(leaves[1], keys=leaves[0]).sum(), leaves[0][:n] + leaves[1][:n])",
    "key_mask": "read(values, key_mask=[mask] * n)",
    "boolean values": "read([value > 0.5] * n)",
    "integer values": "read([whole] * n)",
    "top_k": "read(values, radius=12, top_k=10)",
    "query_mask": "read(values, radius=12, query_mask=mask & few)",
    "offset": "read(values, offset=[offset] * n)",
    "radii": f"read(values, radius=list(range({MANY}, {MANY} - n, -1)))",
}

# Each reading in a process of its own, which begins with what all need; the first fills buffers and loads libraries.
PROBE = f"""
import json, os, pathlib, sys, torch
from vcorr.kernels import memory_read

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

torch.set_num_threads(1)
torch.manual_seed(0)
query, value = torch.randn(1, 60, 107, {FEATURES}), torch.rand(1, 60, 107, {CHANNELS})
keys, values = [query] * {MANY}, [value] * {MANY}
mask, whole = value[..., 0] > 0.1, (9 * value).int()
few, offset = torch.arange(60)[:, None] < 9, torch.arange(60)[:, None, None].expand(1, 60, 107, 2) // 12
leaves = [[x.detach().requires_grad_() for x in frames] for frames in (keys, values)]

def grown(reading):
    for n in ({FEW}, {MANY}):
        def read(values, keys=keys, radius=6, **options):
            return memory_read(query, keys[:n], values[:n], radius=radius, **options)

        before = peak()
        eval(reading)
    return peak() - before

for name, reading in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        print(json.dumps([name, grown(reading)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def grown():
    """How much the peak of each reading's memory grows from few references to many, in kilobytes."""
    command = [sys.executable, "-c", PROBE, json.dumps(READINGS)]
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **given_back})
    return dict(map(json.loads, done.stdout.splitlines())), done.stderr


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a Linux process's peak memory")
@pytest.mark.parametrize("name", READINGS)
def test_memory_does_not_grow_with_references(grown, name):
    sizes, errors = grown
    assert name in sizes, errors
    returned = (MANY - FEW) * GRADIENTS if name == "gradients" else 0
    more = sizes[name] - returned
    assert more < SLACK, f"{more} kB more for {MANY} references than for {FEW}, beyond what is returned"
