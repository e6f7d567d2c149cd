from __future__ import annotations

from ntmd.node.path import PathBook
from ntmd.proto.timing import PATH_SET
from ntmd.proto.types import Endpoint, Path

RELAY = Path(1, Endpoint("198.51.100.1", 4331), 77)


def direct(number: int, socket: int = 1) -> Path:
    return Path(socket, Endpoint(f"203.0.113.{number}", 4330))


def rank(path: Path) -> tuple[int, ...]:
    return (path.relayed, path.socket)


def test_a_direct_path_counts_only_once_it_answered_and_goes_before_the_relay() -> None:
    book = PathBook(sending=(RELAY,))
    assert not book.is_proven(direct(1))
    assert book.is_proven(RELAY)
    book.prove(direct(1), 0.2, 1.0)
    assert book.is_proven(direct(1))
    assert book.better(direct(1), rank)


def test_hysteresis_twenty_percent_or_ten_milliseconds() -> None:
    book = PathBook()
    book.prove(direct(1), 0.020, 1.0)
    book.sending = (direct(1),)
    book.prove(direct(2), 0.017, 1.0)
    assert not book.better(direct(2), rank)
    book.prove(direct(3), 0.015, 1.0)
    assert book.better(direct(3), rank)
    book.prove(direct(4), 0.100, 1.0)
    book.sending = (direct(4),)
    book.prove(direct(5), 0.089, 1.0)
    assert book.better(direct(5), rank)
    book.prove(direct(6), 0.095, 1.0)
    assert not book.better(direct(6), rank)


def test_a_better_socket_wins_whatever_its_round_trip() -> None:
    book = PathBook()
    book.prove(direct(1, socket=2), 0.001, 1.0)
    book.sending = (direct(1, socket=2),)
    book.prove(direct(1, socket=1), 0.050, 1.0)
    assert book.better(direct(1, socket=1), rank)
    assert book.best_direct(rank) == direct(1, socket=1)


def test_the_set_is_bounded_and_never_loses_what_is_sent_on() -> None:
    book = PathBook()
    book.prove(direct(0), 0.01, 0.0)
    book.sending = (direct(0),)
    for number in range(1, 30):
        book.prove(direct(number), 0.01, float(number))
    assert len(book.proven) == PATH_SET
    assert direct(0) in book.proven
    assert direct(29) in book.proven
    assert direct(1) not in book.proven


def test_a_lost_socket_takes_its_paths_along() -> None:
    book = PathBook()
    book.prove(direct(1, socket=1), 0.01, 0.0)
    book.prove(direct(1, socket=2), 0.01, 0.0)
    book.sending = (direct(1, socket=1), direct(1, socket=2))
    book.drop_socket(1)
    assert list(book.sending) == [direct(1, socket=2)]
    assert list(book.proven) == [direct(1, socket=2)]
    book.lapse()
    assert book.best_direct(rank) is None


def test_silence_is_three_round_trips_but_never_below_the_floor() -> None:
    book = PathBook()
    book.prove(direct(1), 0.010, 0.0)
    book.sending = (direct(1),)
    assert book.silence(0.2) == 0.2
    book = PathBook()
    book.prove(direct(1), 0.300, 0.0)
    book.sending = (direct(1),)
    assert abs(book.silence(0.2) - 0.9) < 1e-9
