"""``vcorr doctor``."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from vcorr.commands.options import Device
from vcorr.errors import VcorrError


def doctor(
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check that vcorr works on this machine: device, codecs, weights, disk, one timed frame."""
    from vcorr.bench.doctor import examine
    from vcorr.machine import pick_device

    findings = []
    for finding in examine(pick_device(device)):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{finding.part:11}{'ok  ' if finding.ok else 'BAD '}{finding.text}")
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    bad = [finding.part for finding in findings if not finding.ok]
    if bad:
        what = f"{len(bad)} of {len(findings)} checks failed: {', '.join(bad)}"
        raise VcorrError("vcorr doctor", what, "mend what the lines marked BAD say, and run it again")
