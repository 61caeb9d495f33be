"""The addresses of the local server. ``guard`` refuses strangers before anything here runs.

GET    /                        the page; /static/NAME its files
GET    /api/state               all but pictures, masks and confidences
GET    /api/events              server-sent events: state, mask, job, confidence
GET    /api/frames/K            a picture, JPEG
GET    /api/masks/K             ids, PNG; 204 where there are none; its version in ``x-version``
PATCH  /api/masks/K?x&y&width&height  a stroke: ids in rows, uint16, little endian; 65535 is no change
GET    /api/before/K            ids before the last correction, PNG; 204 where it left them as they are
POST   /api/magic/K?x&y&width&height  scribbles in the same form: the mask that they make, PNG
GET    /api/points/K            {ID: [x, y, confidence]}; GET /api/points-before/K before the last correction
PATCH  /api/points/K            {ID: [x, y] or null}: points that are placed, or hidden
DELETE /api/masks/K, /api/points/K  the frame is labelled no more
PUT    /api/objects/ID          {"name", "colour"}; DELETE takes it out of all labels
PUT    /api/kind                {"kind"}: masks or keypoints, where nothing is labelled yet
GET    /api/confidence          per object and frame, in percent
POST   /api/propagate           {"first", "last"}, or {} for all; /api/stop
POST   /api/export              {"form"}; then POST /api/ticket gives an address to download what it wrote
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vcorr.errors import UsageError, VcorrError
from vcorr.labels.formats.points import Place
from vcorr.ui.guard import Guard
from vcorr.ui.painted import Patch
from vcorr.ui.session import Session

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MAX_JSON = 64 * 1024  # bytes of a request that is no stroke
WAITING = 2000  # events that wait for a page; one that is slower starts anew
ALIVE = 10.0  # seconds between signs of life
STATUS = {2: 400, 3: 422, 4: 507}  # by exit code


class Hub:
    """Gives events to the pages that listen. Any thread may tell."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: set[asyncio.Queue[str | None]] = set()

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        """To all pages."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._put, f"event: {event}\ndata: {json.dumps(data)}\n\n")

    def close(self) -> None:
        """End all streams."""
        for queue in self._queues:
            queue.put_nowait(None)

    async def listen(self) -> AsyncIterator[str]:
        """What is told from now on, and signs of life."""
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield ": hello\n\n"
            while True:
                try:
                    told = await asyncio.wait_for(queue.get(), ALIVE)
                except TimeoutError:
                    yield ": alive\n\n"
                    continue
                if told is None:
                    return
                yield told
        finally:
            self._queues.discard(queue)

    def _put(self, text: str) -> None:
        for queue in self._queues:
            queue.put_nowait(text if queue.qsize() < WAITING else None)


def application(session: Session, token: str, hub: Hub, **guard: Any) -> Guard:
    """The server's application, guarded.

    Args:
        hub: that the session tells. guard: see ``guard.Guard``.
    """
    static = _static()
    tickets: dict[str, Path] = {}
    height, width = session.size

    def frame_of(request: Request) -> int:
        k = int(request.path_params["k"])
        if k not in session.frames:
            first, last = session.frames[0], session.frames[-1]
            raise UsageError(f"frame {k}", "is not labelled here", f"choose {first} to {last}")
        return k

    async def page(request: Request) -> Response:
        return static["index.html"]

    async def file(request: Request) -> Response:
        return static.get(request.path_params["name"], Response(status_code=404))

    async def state(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(session.state))

    async def events(request: Request) -> Response:
        return StreamingResponse(hub.listen(), media_type="text/event-stream")

    async def picture(request: Request) -> Response:
        k = int(request.path_params["k"])
        if k >= len(session.video):
            return Response(status_code=404)
        data = await run_in_threadpool(session.pictures.picture, k)
        damaged = {"x-damaged": "1"} if session.pictures.is_damaged(k) else {}
        return Response(data, media_type="image/jpeg", headers=damaged)

    async def mask(request: Request) -> Response:
        data, version = await run_in_threadpool(session.mask, frame_of(request))
        headers = {"x-version": str(version)}
        if data is None:
            return Response(status_code=204, headers=headers)
        return Response(data, media_type="image/png", headers=headers)

    async def before(request: Request) -> Response:
        data = await run_in_threadpool(session.painted.before, frame_of(request))
        return Response(status_code=204) if data is None else Response(data, media_type="image/png")

    async def patch_of(request: Request) -> Patch:
        x, y, w, h = (_number(request, name) for name in ("x", "y", "width", "height"))
        if not (0 < w <= width - x and 0 < h <= height - y):
            raise UsageError("patch", "lies outside the frame", "send what lies inside")
        body = await _body(request, 2 * w * h)
        if len(body) != 2 * w * h:
            raise UsageError("patch", f"has {len(body)} bytes, not {2 * w * h}", "send ids of 16 bits")
        return Patch(x, y, np.frombuffer(body, "<u2").reshape(h, w).astype(np.uint16))

    async def paint(request: Request) -> Response:
        k, patch = frame_of(request), await patch_of(request)
        before, version = await run_in_threadpool(session.paint, k, patch, _page(request))
        return JSONResponse({"before": before, "version": version})

    async def points(request: Request) -> Response:
        found, version = await run_in_threadpool(session.points, frame_of(request))
        return JSONResponse(found, headers={"x-version": str(version)})

    async def points_before(request: Request) -> Response:
        found = await run_in_threadpool(session.placed.before, frame_of(request))
        return Response(status_code=204) if found is None else JSONResponse(found)

    async def place(request: Request) -> Response:
        k, places = frame_of(request), _places(await _json(request))
        before, version = await run_in_threadpool(session.place, k, places, _page(request))
        return JSONResponse({"before": before, "version": version})

    async def choose(request: Request) -> Response:
        kind = (await _json(request, kind=str)).get("kind")
        if kind not in ("masks", "keypoints"):
            raise UsageError("kind", "is not known", "send masks or keypoints")
        await run_in_threadpool(session.choose, kind)
        return JSONResponse({})

    async def magic(request: Request) -> Response:
        k, patch = frame_of(request), await patch_of(request)
        return Response(await run_in_threadpool(session.magic, k, patch), media_type="image/png")

    async def take_back(request: Request) -> Response:
        version = await run_in_threadpool(session.take_back, frame_of(request), _page(request))
        return JSONResponse({"version": version})

    async def describe(request: Request) -> Response:
        asked = await _json(request, name=str, colour=str)
        if (colour := asked.get("colour")) is not None and not re.fullmatch("#[0-9a-f]{6}", colour):
            raise UsageError("colour", "is not #rrggbb", "choose one")
        await run_in_threadpool(session.describe, int(request.path_params["id"]), asked.get("name"), colour)
        return JSONResponse({})

    async def forget(request: Request) -> Response:
        await run_in_threadpool(session.forget, int(request.path_params["id"]))
        return JSONResponse({})

    async def confidence(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(session.confidence))

    async def propagate(request: Request) -> Response:
        asked = await _json(request, first=int, last=int)
        within = None
        if asked:
            first, last = asked.get("first", session.frames[0]), asked.get("last", session.frames[-1])
            within = range(max(first, session.frames.start), min(last + 1, session.frames.stop))
        await run_in_threadpool(session.propagate, within)
        return JSONResponse({}, 202)

    async def stop(request: Request) -> Response:
        session.stop()
        return JSONResponse({}, 202)

    async def export(request: Request) -> Response:
        asked = await _json(request, form=str)
        await run_in_threadpool(session.export, asked.get("form", ""))
        return JSONResponse({}, 202)

    async def ticket(request: Request) -> Response:
        if session.job.running or not session.job.result:
            raise UsageError("download", "nothing was exported", "export first")
        word = secrets.token_urlsafe(24)
        tickets[word] = session.out / "export" / session.job.result
        return JSONResponse({"address": f"/download/{word}"})

    async def download(request: Request) -> Response:
        path = tickets.pop(request.path_params["word"], None)
        if path is None:
            return Response("this address was used already: export again", 404)
        if not path.is_dir():
            return FileResponse(path, filename=path.name)
        archive = await run_in_threadpool(_zipped, path)
        tidy = BackgroundTask(shutil.rmtree, archive.parent, ignore_errors=True)
        return FileResponse(archive, filename=archive.name, background=tidy)

    def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except VcorrError as error:
                return JSONResponse({"error": str(error)}, STATUS.get(error.exit_code, 500))

        return handle

    routes = [
        ("/", "GET", page),
        ("/static/{name}", "GET", file),
        ("/download/{word}", "GET", download),
        ("/api/state", "GET", state),
        ("/api/events", "GET", events),
        ("/api/frames/{k:int}", "GET", picture),
        ("/api/masks/{k:int}", "GET", mask),
        ("/api/masks/{k:int}", "PATCH", paint),
        ("/api/masks/{k:int}", "DELETE", take_back),
        ("/api/before/{k:int}", "GET", before),
        ("/api/points/{k:int}", "GET", points),
        ("/api/points/{k:int}", "PATCH", place),
        ("/api/points/{k:int}", "DELETE", take_back),
        ("/api/points-before/{k:int}", "GET", points_before),
        ("/api/kind", "PUT", choose),
        ("/api/magic/{k:int}", "POST", magic),
        ("/api/objects/{id:int}", "PUT", describe),
        ("/api/objects/{id:int}", "DELETE", forget),
        ("/api/confidence", "GET", confidence),
        ("/api/propagate", "POST", propagate),
        ("/api/stop", "POST", stop),
        ("/api/export", "POST", export),
        ("/api/ticket", "POST", ticket),
    ]
    session.tell = hub.tell
    app = Starlette(routes=[Route(path, guarded(handler), methods=[method]) for path, method, handler in routes])
    return Guard(app, token, **guard)


def _static() -> dict[str, Response]:
    """The page's files by name, read once."""
    files = resources.files("vcorr.ui") / "static"
    return {
        entry.name: Response(entry.read_bytes(), media_type=KINDS[Path(entry.name).suffix])
        for entry in files.iterdir()
        if Path(entry.name).suffix in KINDS
    }


def _page(request: Request) -> str:
    """The page that asks, as it calls itself."""
    return request.headers.get("x-page", "")[:64]


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UsageError(name, f"is '{text[:20]}'", "give a number")
    return int(text)


async def _body(request: Request, limit: int) -> bytes:
    """What is sent, of at most so many bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise UsageError("request", f"is larger than {limit} bytes", "send less")
    return bytes(body)


async def _json(request: Request, **kinds: type) -> dict[str, Any]:
    """An object with some of these keys, each of its kind; with any keys where none are given."""
    try:
        data = json.loads(await _body(request, MAX_JSON) or b"{}")
    except (ValueError, RecursionError):
        raise UsageError("request", "is no JSON", "send an object") from None
    wrong = isinstance(data, dict) and kinds and any(type(v) is not kinds.get(k) for k, v in data.items())
    if not isinstance(data, dict) or wrong:
        raise UsageError("request", "is not understood", f"send {', '.join(kinds)}")
    return data


def _places(asked: Mapping[str, Any]) -> dict[int, Place | None]:
    """Places by id of a point."""
    places: dict[int, Place | None] = {}
    for id_, at in asked.items():
        pair = isinstance(at, list) and len(at) == 2 and all(type(v) in (int, float) for v in at)
        if not re.fullmatch("[0-9]{1,9}", id_) or not (at is None or pair):
            raise UsageError("point", "is not understood", "send {ID: [x, y] or null}")
        places[int(id_)] = None if at is None else (float(at[0]), float(at[1]))
    return places


def _zipped(folder: Path) -> Path:
    """A folder in one file, in a folder for temporary files."""
    path = Path(tempfile.mkdtemp(prefix="vcorr-")) / f"{folder.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder.parent))
    return path
