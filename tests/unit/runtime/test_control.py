"""The control socket: requests, streams, cancelling, complaints, and what strangers may do."""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ntmd.proto.io import UserAnswered, UserAsked
from ntmd.runtime import control, control_server
from ntmd.runtime.control import ControlClient, ControlError, ControlRefused, check_path, may_use
from ntmd.runtime.control_server import ControlServer, Desk, Request


def serve(path: Path, on_request: Callable[[Request], None], client: Callable[[], Any]) -> Any:
    """Run ``client`` in a thread against a server with this handler; its result or error."""

    async def story() -> Any:
        server = ControlServer(path, on_request)
        try:
            return await asyncio.wait_for(asyncio.to_thread(client), 20)
        finally:
            server.close()

    return asyncio.run(story())


def test_a_stream_of_answers_comes_in_order(tmp_path: Path) -> None:
    def handler(request: Request) -> None:
        for number in range(3):
            request.answer({"n": number, "got": request.arguments}, last=number == 2)

    def client() -> list[Any]:
        with ControlClient(tmp_path / "s") as connection:
            return list(connection.stream("count", {"a": 1}))

    assert serve(tmp_path / "s", handler, client) == [{"n": n, "got": {"a": 1}} for n in range(3)]


def test_a_refusal_carries_text_and_exit_code(tmp_path: Path) -> None:
    def client() -> None:
        with ControlClient(tmp_path / "s") as connection:
            connection.ask("anything")

    with pytest.raises(ControlRefused, match="no such peer") as caught:
        serve(tmp_path / "s", lambda request: request.fail("no such peer", 4), client)
    assert caught.value.exit_code == 4


def test_nobody_serving_is_exit_code_3_and_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="ntmd up") as caught:
        ControlClient(tmp_path / "nothing")
    assert caught.value.exit_code == 3


def test_a_silent_daemon_is_waited_for_only_so_long(tmp_path: Path) -> None:
    def client() -> None:
        with ControlClient(tmp_path / "s", timeout=0.05) as connection:
            connection.ask("anything")

    with pytest.raises(ControlError, match="did not answer"):
        serve(tmp_path / "s", lambda request: None, client)


def test_a_daemon_that_ends_is_noticed_at_once(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def end() -> None:
        connection, _ = listener.accept()
        connection.recv(100)
        connection.close()

    thread = threading.Thread(target=end)
    thread.start()
    with (
        ControlClient(tmp_path / "s") as connection,
        pytest.raises(ControlError, match="hung up") as caught,
    ):
        connection.ask("anything")
    assert caught.value.exit_code == 3
    thread.join()
    listener.close()


def test_an_answer_that_is_no_json_is_a_clear_error(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def babble() -> None:
        connection, _ = listener.accept()
        connection.recv(100)
        connection.sendall(b"220 mail ready\r\n")
        connection.close()

    thread = threading.Thread(target=babble)
    thread.start()
    with (
        ControlClient(tmp_path / "s") as connection,
        pytest.raises(ControlError, match="is not ntmd"),
    ):
        connection.ask("anything")
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"[]", b"{}", b'{"what": 5, "id": 1}', b"\xff\xfe", b'{"what":"x","arguments":3}',
     b'{"id": {"a": 1}, "what": "x"}', b"[" * 5000],
)  # fmt: skip
def test_a_malformed_request_gets_one_complaint_and_the_next_one_is_served(
    tmp_path: Path, line: bytes
) -> None:
    def client() -> list[Any]:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(str(tmp_path / "s"))
            raw.sendall(line + b'\n{"id": 7, "what": "ping"}\n')
            file = raw.makefile()
            return [json.loads(file.readline()), json.loads(file.readline())]

    bad, good = serve(tmp_path / "s", lambda request: request.answer("pong"), client)
    assert bad["exit_code"] == 2
    assert good == {"id": 7, "result": "pong", "last": True}


def test_an_endless_request_is_cut_off(tmp_path: Path) -> None:
    def client() -> bytes:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(str(tmp_path / "s"))
            try:
                for _ in range(10):
                    raw.sendall(b"x" * control.LINE_MAX)
            except OSError:
                pass
            answer = b""
            try:
                while data := raw.recv(4096):
                    answer += data
            except OSError:
                pass
            return answer

    def handler(request: Request) -> None:
        raise AssertionError("no request was complete")

    serve(tmp_path / "s", handler, client)


def test_a_client_that_hangs_up_cancels_its_requests(tmp_path: Path) -> None:
    async def story() -> list[Any]:
        asked: list[UserAsked] = []
        cancelled = asyncio.Event()

        def post(event: UserAsked) -> None:
            asked.append(event)
            if event.what == "cancel":
                cancelled.set()

        desk = Desk(post)
        server = ControlServer(tmp_path / "s", desk.ask)

        def client() -> None:
            with ControlClient(tmp_path / "s") as connection:
                next(connection.stream("watch"))

        def first(event: UserAsked) -> None:
            desk.answered(UserAnswered(event.token, {"n": 1}, last=False))

        task = asyncio.create_task(asyncio.to_thread(client))
        while not asked:
            await asyncio.sleep(0)
        first(asked[0])
        await asyncio.wait_for(cancelled.wait(), 10)
        await task
        desk.answered(UserAnswered(asked[0].token, "too late"))
        server.close()
        return asked

    first, second = asyncio.run(story())
    assert (first.what, second) == ("watch", UserAsked(first.token, "cancel", {}))


def test_the_shell_may_add_to_a_result(tmp_path: Path) -> None:
    def client() -> Any:
        with ControlClient(tmp_path / "s") as connection:
            return connection.ask("status")

    async def story() -> Any:
        def post(event: UserAsked) -> None:
            desk.answered(UserAnswered(event.token, {"core": 1}))

        desk = Desk(post, lambda what, result: result | {"shell": what})
        server = ControlServer(tmp_path / "s", desk.ask)
        try:
            return await asyncio.to_thread(client)
        finally:
            server.close()

    assert asyncio.run(story()) == {"core": 1, "shell": "status"}


def test_a_slow_reader_costs_a_bounded_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "UNSENT_MAX", 1 << 20)
    cancelled = threading.Event()

    def handler(request: Request) -> None:
        request.on_cancel = cancelled.set
        for _ in range(64):
            request.answer("x" * 65536, last=False)

    def client() -> bool:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(tmp_path / "s"))
            raw.sendall(b'{"id": 1, "what": "flood"}\n')
            return cancelled.wait(10)

    assert serve(tmp_path / "s", handler, client)


def test_the_socket_is_closed_to_others_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def client() -> int:
        return path.stat().st_mode & 0o777

    mode = serve(path, lambda request: None, client)
    assert mode == (0o660 if control.group_id() is not None else 0o600)
    assert not path.exists()


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()

    async def story() -> None:
        server = ControlServer(path, lambda request: None)
        with pytest.raises(ControlError, match="another program serves"):
            ControlServer(path, lambda request: None)
        server.close()

    asyncio.run(story())


def test_a_path_that_is_too_long_is_refused_with_its_length() -> None:
    assert check_path(Path("/" + "a" * 106))
    with pytest.raises(ControlError, match="108 bytes"):
        check_path(Path("/" + "a" * 107))
    with pytest.raises(ControlError):
        check_path(Path("/" + "ä" * 54))


def test_only_root_ourselves_and_the_group_may_use_it() -> None:
    assert may_use(0, 0, None)
    assert may_use(os.geteuid(), 12345, None)
    assert may_use(4000, 77, 77)
    assert not may_use(4000, 78, 77)
    assert not may_use(4000, 77, None)
