"""A page in one file, and pictures within it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STYLE = """
:root{color-scheme:light dark}body{max-width:1200px;margin:0 auto;padding:20px;font:15px/1.5 system-ui,sans-serif}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}
th,td{text-align:right;padding:3px 14px 3px 0;border-bottom:1px solid #8884}
th:first-child,td:first-child{text-align:left}
.strip{display:grid;grid-template-columns:repeat(4,1fr);gap:8px;margin:4px 0 16px}figure{margin:0}
img{display:block;width:100%;height:auto;border-radius:6px}figcaption,.dim{font-size:.8rem;opacity:.7}
svg text{font-size:11px;fill:currentColor}h3{margin:.6em 0 0;font-size:1rem}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """The page of parts, which are HTML, under a title, which is text; ``style`` is CSS on top of STYLE."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def jpeg(picture: NDArray[np.uint8], side: int) -> str:
    """A picture [h w 3] of at most ``side`` pixels a side, as a ``data:`` address."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
