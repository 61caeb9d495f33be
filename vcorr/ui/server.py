"""Runs the local server of ``vcorr ui``."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vcorr.errors import OutputError, UsageError
from vcorr.files import held, replacing
from vcorr.labels.given import Kind
from vcorr.machine import pick_device
from vcorr.media.video import Video, open_video
from vcorr.propagation.adapt import Adaptation
from vcorr.propagation.run import Request, recorded_results
from vcorr.propagation.video import check_side, frame_range
from vcorr.ui.label_folder import is_empty, kind_in
from vcorr.ui.session import Session

LOOPBACK = "127.0.0.1"
ADDRESS = ".address.json"  # beside the labels
GRACE = 1  # seconds that open requests get at the end


def serve(
    request: Request,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    browser: bool = True,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page until a signal comes.

    Args:
        request: as for ``propagate_to``; its labels are those in the folder. An existing folder keeps its options.
        host: the interface to listen on. port: None is one that is free.
        browser: open the page. say: takes lines worth telling. ready: takes the address, once it answers.

    Raises:
        UsageError: starlette or uvicorn is not installed, or the port is taken.
        InputError: the video cannot be read. OutputError: the folder is another video's, or cannot be written.
    """
    try:
        import uvicorn

        from vcorr.ui.app import Hub, application
    except ImportError as error:
        raise UsageError("vcorr ui", f"{error.name} is not installed", "run: pip install 'vcorr[ui]'") from None

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """End on a signal, and let go of it: it is not raised once more."""
            wanted = (signal.SIGINT, signal.SIGTERM)
            before = {number: signal.signal(number, self.handle_exit) for number in wanted}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def handle_exit(self, sig: int, frame: Any) -> None:
            hub.close()
            super().handle_exit(sig, frame)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address)
            if browser:
                webbrowser.open(address)

    hub = Hub()
    with opened(request, say) as session, _address(session.labels.folder / ADDRESS, host, port) as (listening, token):
        everywhere = host not in (LOOPBACK, "localhost", "::1")
        if everywhere:
            say(f"{host}: whoever reaches this machine may ask, and the connection is not encrypted")
        names = ["localhost", socket.gethostname(), host] if everywhere else ["localhost"]
        at = LOOPBACK if host in ("0.0.0.0", "::", "localhost") else host  # noqa: S104 (told)
        address = f"http://{f'[{at}]' if ':' in at else at}:{listening.getsockname()[1]}/#{token}"
        app = application(session, token, hub, names=names, everywhere=everywhere)
        config = uvicorn.Config(
            app, log_level="critical", lifespan="off", timeout_graceful_shutdown=GRACE, server_header=False, ws="none"
        )
        Server(config).run(sockets=[listening])


@contextmanager
def opened(request: Request, say: Callable[[str], None] = lambda line: None) -> Iterator[Session]:
    """The session of a folder, which no other process may write meanwhile.

    Raises:
        InputError, OutputError: as ``serve``.
    """
    request = replace(request, device=str(pick_device(request.device)))
    check_side(request.short_side)
    with open_video(request.video) as video:
        found = recorded_results(request.out)
        if found is not None:
            request = _as_it_was(request, found, video)
        elif (kind := kind_in(request.labels)) and not (request.kind and is_empty(request.labels)):
            request = _of_kind(request, kind)
        frame_range(video, request.start, request.end)
        for note in video.notes:
            say(note)
        with held(request.out, say):
            session = Session(request, video)
            session.open()
            try:
                yield session
            finally:
                session.close()


def _as_it_was(request: Request, found: Mapping[str, Any], video: Video) -> Request:
    """A request with the options of the results that are there."""
    inputs, options, weights = found["inputs"], found["options"], found["paths"]["weights"]
    if inputs["video"] != video.fingerprint():
        what = f"holds the results of another video, {found['paths']['video']}"
        raise OutputError(request.out, what, "give that video, or another --out")
    if (kind := inputs.get("kind", "masks")) == "soft":
        raise OutputError(request.out, "holds value layers", "correct them with `vcorr propagate --update`")
    return replace(
        _of_kind(request, kind),
        start=options["start"],
        end=options["end"],
        short_side=options["size"],
        device=options["device"],
        weights=request.weights or (weights and Path(weights)),
        soft=bool(options.get("soft")),
        check=options.get("check"),
        method=options.get("method"),
        read=tuple(options.get("read", ())),
        adapt=Adaptation(**options["adapt"]) if "adapt" in options else None,
    )


def _of_kind(request: Request, kind: Kind) -> Request:
    """A request for the kind of labels that a folder holds."""
    if request.kind not in (None, kind):
        raise UsageError(f"--kind {request.kind}", f"{request.out} holds {kind}", "leave it out, or give another --out")
    return replace(request, kind=kind)


@contextmanager
def _address(kept: Path, host: str, port: int | None) -> Iterator[tuple[socket.socket, str]]:
    """A socket to listen on, and the token.

    They are kept in a file that the user alone may read. So a page whose server was killed goes on with the next one,
    and sends it what it still has.
    """
    before = _kept(kept)
    token = str(before.get("token") or secrets.token_urlsafe(24))
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            try:
                listening.bind((host, port or before.get("port", 0)))
            except OSError:
                if port:
                    raise
                listening.bind((host, 0))  # another one has it by now
        except OSError as error:
            what = f"cannot listen on {host} ({error.strerror})"
            raise UsageError(f"--port {port or 0}", what, "give another") from None
        with replacing(kept) as file:
            Path(file.name).chmod(0o600)
            file.write(json.dumps({"port": listening.getsockname()[1], "token": token}).encode())
        yield listening, token


def _kept(path: Path) -> dict[str, Any]:
    """What the file of an address holds; nothing where it is damaged, or where others may read it."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if len(found["token"]) >= 32 and 0 < found["port"] < 65536 else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
