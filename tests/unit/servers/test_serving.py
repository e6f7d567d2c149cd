"""All roles in one process: certificates renewed while they run, the database of one's choice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ntm_server import serving
from ntm_server.options import Settings
from ntm_server.serving import Serving
from ntmd.proto import timing
from ntmd.runtime.clock import boot_clock
from tests.unit.ports import free_port

LIMIT = 15.0


async def until(what: Any, task: asyncio.Task[None]) -> None:
    """Wait until ``what()`` holds; fail with what ended the server, or after LIMIT."""
    async with asyncio.timeout(LIMIT):
        while not what():
            assert not task.done(), task
            await asyncio.sleep(0.02)


def test_certificates_are_renewed_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "RENEW_EVERY", 0.3)
    monkeypatch.setattr(timing, "RENEW_FROM", 0.0)
    port = free_port()
    database = f"sqlite:///{tmp_path / 'platform.db'}"
    settings = Settings(tmp_path / "data", ("127.0.0.1",), "home.test", port, port, 0, database)

    async def story() -> None:
        running = Serving(settings, ("as", "dc", "rs"))
        task = asyncio.create_task(running.run())
        await until(lambda: running.ready, task)
        dc: Any
        rs: Any
        dc, rs = (running.running[name] for name in ("dc", "rs"))
        shown = [role.core.engine._context.certificate_hash for role in (dc, rs)]
        told = lambda: [each.leaf.der for each in dc.core.relays.live(boot_clock())]  # noqa: E731
        (before,) = told()
        renewed = lambda role: role.metrics()["events"].get("certificates_renewed", 0)  # noqa: E731
        await until(lambda: renewed(dc) and renewed(rs), task)
        monkeypatch.setattr(timing, "RENEW_FROM", 0.9)
        assert [running.running[name] for name in ("dc", "rs")] == [dc, rs]
        assert rs.metrics()["registered"]
        after = [role.core.engine._context.certificate_hash for role in (dc, rs)]
        assert all(one != two for one, two in zip(shown, after, strict=True))
        kept = running.files["rs"].enrolment().certificates[0]
        assert kept != before
        await until(lambda: told() == [kept], task)
        running._ending.set()
        await task

    asyncio.run(story())
    tables = sa.inspect(sa.create_engine(database)).get_table_names()
    assert {"dc_nodes", "members"} <= set(tables)
    assert not (tmp_path / "data/dc/nodes.sqlite").exists()
