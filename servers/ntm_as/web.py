"""The account server's HTTPS interface (``docs/operations.md``): bounded bodies in, JSON out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ntm_as.core import AccountCore
from ntm_as.refusals import Refused
from ntm_as.tables import Tables
from ntmd.runtime.clock import boot_clock, wall_ms
from ntmd.runtime.complaints import Complaint
from ntmd.runtime.journal import journal

BODY_MAX = 65_536
BODY_SECONDS = 10.0
RETRY_SECONDS = 30  # what a client is told while the database fails
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'sha256-{script}'; frame-ancestors 'none'",
}
EXCHANGES = ("enrol", "servers/enrol", "renew", "leave")

Work = Callable[[Tables], dict[str, Any]]
Run = Callable[[Work], Awaitable[dict[str, Any]]]

log = journal(__name__)

SCRIPT = 'document.getElementById("u").textContent="ntmd up --join \'"+location.href+"\'";'
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Join with ntmd</title>
<meta name="viewport" content="width=device-width">
<style>body{font:1rem/1.5 sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}
pre{background:#eee;padding:1rem;white-space:pre-wrap;word-break:break-all}</style>
<h1>You are invited</h1>
<p>This address is an invitation for <b>ntmd</b>. It is not opened in a browser, but given to the
program on the machine that is to join. Type there, as root, the address in quotes:</p>
<pre id="u">ntmd up --join 'THE WHOLE ADDRESS, WITH ALL AFTER #'</pre>
<p>Add <code>--name NAME</code> to choose the machine's name. Treat the address like a password:
whoever has it can join.</p>
<script>SCRIPT</script></html>
"""


def application(core: AccountCore, run: Run) -> Starlette:
    """The ASGI application; ``run`` executes work in a transaction off the event loop."""
    desk = _Desk(core, run)
    routes = [
        Route("/ca", desk.ca),
        Route("/join", desk.join),
        Route("/v1/login", desk.login, methods=["POST"]),
        Route("/v1/directory", desk.directory),
    ]
    for what in EXCHANGES:
        routes.append(Route(f"/v1/{what}/begin", desk.begin(what), methods=["POST"]))
        routes.append(Route(f"/v1/{what}/finish", desk.finish(what), methods=["POST"]))
    return Starlette(
        routes=routes,
        exception_handlers={404: _no_such_page, 405: _no_such_page, Exception: _failed},
    )


class _Desk:
    def __init__(self, core: AccountCore, run: Run) -> None:
        self._core = core
        self._run = run

    async def ca(self, request: Request) -> Response:
        return Response(self._core.platform.ca, media_type="application/pkix-cert")

    async def join(self, request: Request) -> Response:
        return HTMLResponse(PAGE.replace("SCRIPT", SCRIPT), headers=_page_headers())

    def begin(self, what: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = b""

            def work(tables: Tables) -> dict[str, Any]:
                asked = _object(body)
                source = _source(request)
                return self._core.begin(what, body, asked, tables, source, boot_clock(), wall_ms())

            try:
                body = await _body(request)
            except Refused as refused:
                return _refusal(refused)
            return await self._answer(work)

        return endpoint

    def finish(self, what: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await self._posted(
                request,
                lambda asked, tables: self._core.finish(
                    what, asked, tables, boot_clock(), wall_ms()
                ),
            )

        return endpoint

    async def login(self, request: Request) -> Response:
        return await self._posted(
            request,
            lambda asked, tables: self._core.login(
                asked, tables, _source(request), boot_clock(), wall_ms()
            ),
        )

    async def directory(self, request: Request) -> Response:
        header = request.headers.get("authorization", "")[:512]
        return await self._answer(lambda tables: self._core.directory(header, tables, wall_ms()))

    async def _posted(
        self, request: Request, what: Callable[[dict[str, Any], Tables], dict[str, Any]]
    ) -> Response:
        try:
            asked = _object(await _body(request))
        except Refused as refused:
            return _refusal(refused)
        return await self._answer(lambda tables: what(asked, tables))

    async def _answer(self, work: Work) -> Response:
        try:
            return JSONResponse(await self._run(work), headers={"Cache-Control": "no-store"})
        except Refused as refused:
            return _refusal(refused)
        except Complaint as complaint:  # the database: what was asked was undone as a whole
            log.warning("a request failed in the database", why=complaint.what)
            return _refusal(
                Refused(
                    503,
                    "database",
                    "the account server cannot use its database at the moment. Nothing was"
                    " changed: try again in a while; the server's log says why.",
                    RETRY_SECONDS,
                )
            )


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_MAX:
                    raise Refused(413, "too_large", f"a body has at most {BODY_MAX} bytes.")
    except TimeoutError:
        raise Refused(408, "too_slow", "the body did not arrive in time.") from None
    except ClientDisconnect:
        raise Refused(400, "bad_request", "the body was cut short.") from None
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise Refused(400, "bad_request", "the body is not a JSON object.")
    return asked


def _source(request: Request) -> str:
    return request.client.host if request.client else ""


def _refusal(refused: Refused) -> Response:
    headers = {"Cache-Control": "no-store"}
    if refused.retry_after:
        headers["Retry-After"] = str(refused.retry_after)
    log.debug("refused a request", error=refused.error)
    content = {"error": refused.error, "text": refused.text, "time_ms": wall_ms()}
    return JSONResponse(content, refused.status, headers)


async def _no_such_page(request: Request, error: Exception) -> Response:
    return _refusal(
        Refused(
            getattr(error, "status_code", 404),
            "no_such_page",
            "there is nothing at this address. Check the address and the method.",
        )
    )


async def _failed(request: Request, error: Exception) -> Response:
    log.failure("a request failed", error)
    return _refusal(
        Refused(500, "failed", "the account server failed. Try again; its log says why.")
    )


def _page_headers() -> dict[str, str]:
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return {name: value.replace("{script}", digest) for name, value in HEADERS.items()}
