"""What the admin socket answers: invitations, accounts, nodes, status."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from ntm_as.passwords import SHORTEST, hash_password
from ntm_as.refusals import Refused
from ntm_as.shell import AsServer
from ntm_as.tables import Account, Member, Tables
from ntm_rs.shell import RsServer
from ntmd.proto.crypto import sha256
from ntmd.runtime.clock import wall_ms
from ntmd.runtime.complaints import Complaint, Exit
from ntmd.runtime.control_server import Request
from ntmd.runtime.journal import journal

LONGEST_INVITATION = 366 * 86_400  # seconds
Answer = Callable[[dict[str, Any]], Awaitable[Any]]

log = journal(__name__)


class AdminDesk:
    """Answers requests; ``status`` is asked of the running server."""

    def __init__(self, status: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self.accounts: AsServer | None = None
        self.relay: RsServer | None = None
        self._status = status
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: dict[str, Answer] = {
            "invite": self._invite,
            "enrol": self._enrol,
            "user.add": self._user_add,
            "user.list": self._user_list,
            "user.passwd": self._user_passwd,
            "user.remove": self._user_remove,
            "node.list": self._node_list,
            "node.show": self._node_show,
            "node.remove": self._node_remove,
            "drain": self._drain,
            "status": lambda arguments: self._status(),
        }

    def take(self, request: Request) -> None:
        """Answer ``request`` when its work is done."""
        task = asyncio.get_running_loop().create_task(self._work(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, request: Request) -> None:
        answer = self._answers.get(request.what)
        try:
            if answer is None:
                raise Complaint(f"there is no request {request.what[:64]!r}.", exit_code=Exit.USAGE)
            request.answer(await answer(request.arguments))
        except Complaint as complaint:
            request.refuse(complaint)
        except Refused as refused:
            request.fail(refused.text)
        except Exception as error:  # ours: the operator gets an answer, the log the traceback
            log.failure("a request of the operator failed", error)
            request.fail("the server failed at this request; its log says why.")

    def _as(self) -> AsServer:
        if self.accounts is None:
            raise Complaint(
                "this server is not the account server, or is still starting.",
                "Only the account server knows accounts, nodes and invitations.",
                "Give the --data directory of `ntm-server all` or `ntm-server as`.",
            )
        return self.accounts

    async def _drain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.relay is None:
            raise Complaint(
                "this server is no relay, or is still starting.",
                "Only a relay can be drained.",
                "Give the --data directory of `ntm-server all` or `ntm-server rs`.",
            )
        found = self.relay.drain(arguments.get("on") is not False)
        return {key: found[key] for key in ("draining", "nodes", "legs", "busy_legs")}

    # -------------------------------------------------------------- invitations

    async def _invite(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self._token(
            _span(arguments),
            name=_text(arguments, "name"),
            domain=_text(arguments, "domain"),
            user=_text(arguments, "user"),
            reusable=arguments.get("reusable") is True,
        )

    async def _enrol(self, arguments: dict[str, Any]) -> dict[str, Any]:
        role, domain = _text(arguments, "role"), _text(arguments, "domain")
        if role not in ("dc", "rs") or not domain:
            raise Complaint("enrol needs a role (dc or rs) and a domain.", exit_code=Exit.USAGE)
        return await self._token(_span(arguments), role=role, domain=domain)

    async def _token(self, seconds: int, **what: Any) -> dict[str, Any]:
        accounts, now = self._as(), wall_ms()
        until = now + seconds * 1000
        token = await accounts.run(lambda tables: accounts.core.invite(tables, now, until, **what))
        return {"url": accounts.join_url(token), "expires_ms": until}

    # -------------------------------------------------------------- accounts

    async def _user_add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self._keep_user(arguments, new=True)

    async def _user_passwd(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self._keep_user(arguments, new=False)

    async def _keep_user(self, arguments: dict[str, Any], new: bool) -> dict[str, Any]:
        user, password = _user(arguments), _text(arguments, "password", 1024)
        if len(password) < SHORTEST and (password or not new):
            raise Complaint(
                f"a password has at least {SHORTEST} characters.", do="Choose a longer one."
            )
        loop = asyncio.get_running_loop()
        hashed = await loop.run_in_executor(None, hash_password, password) if password else ""

        def keep(tables: Tables) -> None:
            known = tables.account(user)
            if new and known is not None:
                raise Refused(
                    409,
                    "user_exists",
                    f"the user {user} exists. `user passwd` changes the password.",
                )
            if not new and known is None:
                raise _no_user(user)
            tables.put_account(Account(user, hashed, known.created_ms if known else wall_ms()))

        await self._as().run(keep)
        return {"user": user}

    async def _user_list(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        def look(tables: Tables) -> list[dict[str, Any]]:
            members = tables.members()
            return [
                {
                    "user": account.user,
                    "password": account.password != "",
                    "created_ms": account.created_ms,
                    "nodes": [each.name for each in members if each.user == account.user],
                }
                for account in tables.accounts()
            ]

        return await self._as().run(look)

    async def _user_remove(self, arguments: dict[str, Any]) -> dict[str, Any]:
        user = _user(arguments)

        def drop(tables: Tables) -> None:
            if tables.account(user) is None:
                raise _no_user(user)
            tables.drop_account(user)

        await self._as().run(drop)
        return {"user": user}

    # -------------------------------------------------------------- nodes

    async def _node_list(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        return await self._as().run(lambda tables: [plain(each) for each in tables.members()])

    async def _node_show(self, arguments: dict[str, Any]) -> dict[str, Any]:
        name = _text(arguments, "name")
        return await self._as().run(lambda tables: plain(_node(name, tables)))

    async def _node_remove(self, arguments: dict[str, Any]) -> dict[str, Any]:
        accounts, name = self._as(), _text(arguments, "name")
        return await accounts.run(
            lambda tables: plain(
                accounts.core.remove_node(_node(name, tables).name, tables, wall_ms())
            )
        )


def plain(member: Member) -> dict[str, Any]:
    """A member as commands show it."""
    values = dataclasses.asdict(member)
    for private in ("key", "certificate", "sign_key", "sign_certificate"):
        values.pop(private)
    return {**values, "endpoints": list(member.endpoints), "key_hash": sha256(member.key).hex()}


def _node(name: str, tables: Tables) -> Member:
    """A member by its full name, or by its label where that is unambiguous."""
    found = [each for each in tables.members() if name in (each.name, each.name.partition(".")[0])]
    exact = [each for each in found if each.name == name]
    if len(exact or found) != 1:
        several = ": several have this label, give the full name" if found else ""
        raise Refused(
            404, "no_such_node", f"there is no node {name}{several}. `node list` shows all."
        )
    return (exact or found)[0]


def _no_user(user: str) -> Refused:
    return Refused(404, "no_such_user", f"there is no user {user}. `user list` shows all.")


def _text(arguments: dict[str, Any], name: str, longest: int = 256) -> str:
    value = arguments.get(name) or ""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise Complaint(f"{name} must be a printable text.", exit_code=Exit.USAGE)
    return value


def _user(arguments: dict[str, Any]) -> str:
    user = _text(arguments, "user", 64)
    if not user or not all(c.isalnum() or c in "._@+-" for c in user):
        raise Complaint(
            f"{user!r} cannot be a user's name.",
            do="Use up to 64 letters, digits and the characters . _ @ + -",
            exit_code=Exit.USAGE,
        )
    return user


def _span(arguments: dict[str, Any]) -> int:
    seconds = arguments.get("expires_s", 86_400)
    if not isinstance(seconds, int) or not 0 < seconds <= LONGEST_INVITATION:
        raise Complaint("an invitation lasts from 1 s to 366 days.", exit_code=Exit.USAGE)
    return seconds
