"""The report as one HTML page, without script: everything is inline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from vcorr.training.watch.curves import show
from vcorr.training.watch.pictures import COLOURS, ERROR, Picture, Scene, inline
from vcorr.training.watch.validation import Validation

STYLE = """
:root{color-scheme:light dark;--ground:#f6f6f3;--card:#fff;--ink:#1d1f21;--dim:#63676c;--rule:#e2e2dd;--c1:#1f6fd6;
--c2:#d2601a;--c3:#2d8a4e;--warn:#a3400a;--warnbed:#fdf0e2;--ok:#2d8a4e}
@media(prefers-color-scheme:dark){:root{--ground:#141517;--card:#1d1f22;--ink:#e6e7e8;--dim:#9a9fa6;--rule:#303338;
--c1:#6aa9ff;--c2:#ff9d5c;--c3:#6fcf8f;--warn:#ffb07a;--warnbed:#33251a;--ok:#6fcf8f}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:36px 0 10px}
h3{font-size:.9rem;margin:0;font-weight:600}
p{margin:.4em 0;max-width:75ch}
header{display:flex;flex-wrap:wrap;gap:6px 12px;align-items:center}
.badge{border:1px solid currentColor;border-radius:99px;padding:1px 10px;font-size:.8rem;color:var(--dim)}
.badge.running{color:var(--c1)}.badge.finished{color:var(--ok)}.badge.stopped{color:var(--warn)}
.bar{height:8px;border-radius:4px;background:var(--rule);overflow:hidden;margin:14px 0 4px}
.bar i{display:block;height:100%;background:var(--c1)}
.dim,figcaption,dt,th{color:var(--dim)}
.card,.chart,dl{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr));gap:10px 20px;margin:14px 0}
dt{font-size:.78rem}dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.warn{background:var(--warnbed);color:var(--warn);border-radius:10px;padding:10px 14px;margin:10px 0;max-width:none}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:12px}
figure{margin:0}
.chart svg{display:block;width:100%;height:auto}
figcaption{font-size:.8rem;overflow-wrap:anywhere}
.legend{display:flex;flex-wrap:wrap;gap:0 12px;font-size:.8rem;color:var(--dim)}
.key::before{content:"";display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:5px;background:var(--k)}
.key b{color:var(--ink);font-variant-numeric:tabular-nums}
.c1{--k:var(--c1)}.c2{--k:var(--c2)}.c3{--k:var(--c3)}
svg text{font-size:10px;fill:var(--dim);font-family:inherit}svg .name{font-size:9px}
path{fill:none;vector-effect:non-scaling-stroke}
.line{stroke:var(--k);stroke-width:1.8;stroke-linejoin:round}.raw{stroke:var(--k);stroke-width:1;opacity:.28}
circle{fill:var(--k)}.grid{stroke:var(--rule)}.mark{stroke:var(--dim);stroke-dasharray:2 3}
.limit{stroke:var(--warn);stroke-dasharray:5 4}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(46%,210px),1fr));gap:12px}
.pictures img{display:block;width:100%;height:auto;border-radius:6px;background:var(--rule)}
.scroll{overflow-x:auto;margin-top:12px}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:3px 18px 3px 0;border-bottom:1px solid var(--rule);vertical-align:top}
td.value{overflow-wrap:anywhere}
.dot{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:6px}
.ramp{height:8px;border-radius:4px;margin-top:4px;background:linear-gradient(90deg,#080818,#46146e,#be325a,#fa9632,#fffac8)}
summary{cursor:pointer;color:var(--dim);margin-top:8px}
code{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.86em}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
RELOAD = 60  # seconds after which an open page of a running training reloads


def document(title: str, parts: Iterable[str], *, running: bool) -> str:
    """The whole page; ``parts`` are HTML, the title is text."""
    reload = f'<meta http-equiv="refresh" content="{RELOAD}">' if running else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{reload}'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def head(name: str, status: str, share: float, progress: str, facts: Mapping[str, str]) -> str:
    """Name, status and progress of the run, and facts as a list; ``share`` of the steps done, in [0, 1]."""
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return (
        f'<header><h1>{escape(name)}</h1><span class="badge {escape(status)}">{escape(status)}</span></header>'
        f'<div class="bar"><i style="width:{100 * min(max(share, 0), 1):.1f}%"></i></div>'
        f'<div class="dim">{escape(progress)}</div><dl>{listed}</dl>'
    )


def warnings(lines: Sequence[str]) -> str:
    """Warnings, one line each."""
    return "".join(f'<p class="warn" role="status">{escape(line)}</p>' for line in lines)


def configuration(changed: Mapping[str, tuple[str, str]], whole: Mapping[str, str]) -> str:
    """The values that differ from the recipe's defaults, key -> (default, now), and a fold with the whole."""
    rows = [(key, now, default) for key, (default, now) in changed.items()]
    table = (
        _table(("key", "value", "default"), rows) if rows else '<p class="dim">All values are the recipe\'s own.</p>'
    )
    every = _table(("key", "value"), list(whole.items()))
    return f"<h2>Configuration</h2>{table}<details><summary>All values</summary>{every}</details>"


def curves(charts: Sequence[str]) -> str:
    """The charts, or a note that there are none."""
    if not charts:
        return '<h2>Curves</h2><p class="dim">Nothing is logged yet.</p>'
    return f'<h2>Curves</h2><div class="charts">{"".join(charts)}</div>'


def pictures(seen: tuple[int, Scene] | None) -> str:
    """A rebuilt frame, and where its cells look, after a step."""
    if seen is None:
        return (
            '<h2>Reconstruction</h2><p class="dim">This recipe hands over no views (Out.views) of what its loss '
            "compares, or has not logged a step since it was started.</p>"
        )
    step, scene = seen
    shown = [
        *(_figure(p, f"reference {k}") for k, p in enumerate(scene.references, start=1)),
        _figure(scene.query, "query frame"),
        _figure(scene.rebuilt, "rebuilt: colours read from the references with the affinity"),
        _figure(scene.error, f"mean difference of the colours, from 0 to {ERROR}", '<div class="ramp"></div>'),
    ]
    looks = [_figure(scene.marked, "query frame with the cells that are followed")]
    looks += [_figure(p, f"where they look in reference {k}") for k, p in enumerate(scene.looks, start=1)]
    rows = [
        (
            f'<span class="dot" style="background:rgb{COLOURS[k]}"></span>{k + 1}',
            f"{largest:.3f}",
            f"{entropy:.3f}",
            ", ".join(f"{share:.0%}" for share in scene.shares[k]),
        )
        for k, (largest, entropy) in enumerate(zip(scene.largest, scene.entropy, strict=True))
    ]
    return (
        f'<h2>Reconstruction</h2><p class="dim">A clip of the batch of step {step:,}. Mean difference '
        f"{scene.difference:.3f}; of the most similar reference, left where it is, {scene.in_place:.3f}.</p>"
        f'<div class="pictures">{"".join(shown)}</div><h2>Where query cells look</h2>'
        '<p class="dim">The affinity of four cells, each in its colour, over its window (outlined) in every reference. '
        "Brightness is the square root of the weight, relative to the cell's largest.</p>"
        f'<div class="pictures">{"".join(looks)}</div><div class="scroll">'
        + _table(("cell", "largest weight", "entropy / log taps", "mass in each reference"), rows, html=True)
        + "</div>"
    )


def validation(step: int, found: Validation) -> str:
    """The validation clips after a step: the scores of each, and frames of the first."""
    rows = [
        (c.name, str(c.frames), f"{100 * c.j:.1f}", f"{100 * c.f:.1f}", f"{50 * (c.j + c.f):.1f}") for c in found.clips
    ]
    frames = "".join(_figure(p, "given" if k == 0 else f"{k} frames later") for k, p in found.pictures)
    return (
        f'<h2>Validation clips</h2><p class="dim">Labelled with the weights of step {step:,}, shortened and read '
        "small: for comparison within this run, not with published scores.</p>"
        f'<div class="pictures">{frames}</div><div class="scroll">'
        f"{_table(('clip', 'frames', 'J', 'F', 'J&F'), rows)}</div>"
    )


def _figure(picture: Picture, caption: str, more: str = "") -> str:
    height, width = picture.shape[:2]
    source = inline(picture)
    return (
        f'<figure><img src="{source}" width="{width}" height="{height}" alt="{escape(caption)}">{more}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, html: bool = False) -> str:
    """A table of text, or of HTML."""
    top = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td class="value">{cell if html else escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def number(value: object) -> str:
    """A value of a configuration as a person writes it."""
    return show(value) if isinstance(value, float) and abs(value) < 1e4 else str(value)
