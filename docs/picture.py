"""Make the README's picture: four frames of a result's overlay, side by side.

make demo && python docs/picture.py out/goat/overlay.mp4 docs/goat.jpg 0 12 25 38
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from vcorr.media.image import write_image
from vcorr.media.video import open_video

video, out, *frames = sys.argv[1:]
with open_video(video) as source:
    pictures = [source.frame(int(k), short_side=270) for k in frames]
rows = [np.concatenate(pictures[i : i + 2], axis=1) for i in range(0, len(pictures), 2)]
write_image(Path(out), Image.fromarray(np.concatenate(rows)), quality=88)
