"""Several addresses of one server: who wins, who is closed, and what is said if none answers."""

from __future__ import annotations

import errno
import ssl
import threading
import time

import pytest

from ntmd.runtime.eyeballs import STAGGER, interleaved, race


class Connection:
    """What an attempt made."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_families_take_turns() -> None:
    assert interleaved(["::1", "::2", "10.0.0.1", "::1", "10.0.0.2", "::3"]) == (
        "::1", "10.0.0.1", "::2", "10.0.0.2", "::3",
    )  # fmt: skip


def test_a_silent_address_gets_company_and_its_late_answer_is_closed() -> None:
    gate, made = threading.Event(), Connection("slow")

    def connect(host: str) -> Connection:
        if host == "slow":
            assert gate.wait(10)
            return made
        return Connection(host)

    began = time.monotonic()
    host, won = race(["slow", "quick"], connect)
    assert (host, won.host) == ("quick", "quick")
    assert STAGGER <= time.monotonic() - began < STAGGER + 2
    gate.set()
    assert made.closed.wait(10)
    assert not won.closed.is_set()


def test_a_refusal_lets_the_next_begin_at_once() -> None:
    def connect(host: str) -> Connection:
        if host != "::4":
            raise OSError(errno.ECONNREFUSED, "refused")
        return Connection(host)

    began = time.monotonic()
    assert race(["::1", "::2", "::3", "::4"], connect)[0] == "::4"
    assert time.monotonic() - began < STAGGER


@pytest.mark.parametrize("hosts", [["route", "refused", "tls"], ["tls", "refused"], ["tls"]])
def test_the_failure_that_says_most_is_raised(hosts: list[str]) -> None:
    errors = {
        "route": OSError(errno.ENETUNREACH, "no route"),
        "refused": OSError(errno.ECONNREFUSED, "refused"),
        "tls": ssl.SSLCertVerificationError("not trusted"),
    }

    def connect(host: str) -> Connection:
        raise errors[host]

    with pytest.raises(ssl.SSLCertVerificationError):
        race(hosts, connect)
