"""Peak memory, speed and where the time goes when a video is labelled, at several lengths.

    python benchmarks/propagation.py VIDEO MASK [--frames 60 600] [--objects N] [--json]

The video is played to and fro until it has as many frames; each length runs in a process of its own, whose peak
resident memory the operating system reports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from vcorr.data.video import VideoWriter, open_video


def stretch(source: str, path: Path, frames: int) -> None:
    """Write the video to and fro, ``frames`` frames long."""
    with (
        open_video(source) as video,
        VideoWriter(path, height=video.height, width=video.width, fps=video.fps) as writer,
    ):
        pictures = [rgb for _, rgb in video.frames(0, min(len(video), 60))]
        cycle = [*pictures, *pictures[-2:0:-1]]
        for k in range(frames):
            writer.write(cycle[k % len(cycle)])


def measure(video: Path, mask: str, out: Path) -> dict[str, object]:
    """Run ``vcorr propagate`` and read its manifest and its peak memory."""
    command = [sys.executable, "-m", "vcorr", "propagate", str(video), mask, "--out", str(out), "--json"]
    with (out.parent / "log").open("w") as log:
        pid = os.posix_spawn(
            command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), n) for n in (1, 2)]
        )
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"propagate failed:\n{(out.parent / 'log').read_text()}")
    manifest = json.loads((out / "manifest.json").read_text())
    frames = manifest["video"]["frames"]
    return {
        "frames": frames,
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "frames_per_second": round(frames / manifest["seconds"], 2),
        "shares": manifest["shares"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("mask")
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for frames in args.frames:
        with tempfile.TemporaryDirectory(prefix="vcorr-") as scratch:
            video = Path(scratch) / "video.mp4"
            stretch(args.video, video, frames)
            rows.append(measure(video, args.mask, Path(scratch) / "out"))
    if args.json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=2))
        return
    head = ("frames", "peak memory", "frames/s", "encoder", "read", "reading and writing", "other")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        shares = row["shares"]
        cells = " | ".join(f"{shares[k]:.0%}" for k in ("encoder", "read", "io", "other"))
        print(f"| {row['frames']} | {row['peak_mib']} MiB | {row['frames_per_second']} | {cells} |")


if __name__ == "__main__":
    main()
