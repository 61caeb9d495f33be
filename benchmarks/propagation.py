"""``vcorr bench propagation`` of one video at several lengths: the table of the README.

python benchmarks/propagation.py VIDEO MASK [--frames 60 600] [--json]
"""

from __future__ import annotations

import argparse
import subprocess
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("mask")
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    films = [f"480p:frames={frames}" for frames in given.frames]
    command = [sys.executable, "-m", "vcorr", "bench", "propagation", *films, "--video", given.video]
    form = "--json" if given.json else "--markdown"
    sys.exit(subprocess.call([*command, "--labels", given.mask, form]))


if __name__ == "__main__":
    main()
