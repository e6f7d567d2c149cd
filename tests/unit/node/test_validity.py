"""The states of a path: complete, driven by evidence, and the only truth of the book of paths."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from ntmd.node.path import STATES_KEPT, PathBook
from ntmd.node.validity import PROVEN, TRANSITIONS, Evidence, Validity
from ntmd.proto.timing import PATH_SET
from ntmd.proto.types import Endpoint, Path

FORGEABLE = (Evidence.REFUSED,)
PATHS = st.builds(
    Path,
    st.integers(1, 3),
    st.builds(Endpoint, st.sampled_from(["203.0.113.1", "203.0.113.2", "2001:db8::1"]), st.just(9)),
    st.sampled_from([0, 0, 7, 8]),
)
STEPS = st.lists(st.tuples(PATHS, st.sampled_from(list(Evidence)), st.floats(0.001, 0.5)))


def test_every_state_has_an_answer_to_every_piece_of_evidence() -> None:
    assert set(TRANSITIONS) == set(product(Validity, Evidence))


def test_good_is_reached_by_an_answer_alone_and_what_can_be_forged_ends_nothing() -> None:
    for (before, evidence), after in TRANSITIONS.items():
        if after is Validity.GOOD and before is not Validity.GOOD:
            assert evidence is Evidence.ANSWERED
        if evidence in FORGEABLE:
            assert after is before or (before, after) == (Validity.GOOD, Validity.DOUBTFUL)
        if after is Validity.DEAD and before is not Validity.DEAD:
            assert evidence in (Evidence.UNANSWERED, Evidence.GONE)


@given(STEPS)
def test_the_book_follows_the_table_and_nothing_else(
    steps: list[tuple[Path, Evidence, float]],
) -> None:
    """Whatever happens: proven is who is good or doubtful, and each state is the table's."""
    book, model = PathBook(), dict[Path, Validity]()
    for now, (path, evidence, rtt) in enumerate(steps):
        spot = path._replace(leg=1) if path.relayed else path
        match evidence:
            case Evidence.ASKED:
                book.trying(path, float(now))
            case Evidence.ANSWERED:
                book.prove(path, rtt, float(now))
            case Evidence.UNANSWERED if not path.relayed:
                book.disprove(path)
            case Evidence.LAPSED:
                book.lapse()
            case Evidence.GONE:
                book.drop_socket(path.socket)
            case _:
                book.note(path, evidence)
        if evidence is Evidence.LAPSED:
            model = {p: s for p, s in model.items() if p.relayed}
        elif evidence is Evidence.GONE:
            model = {p: s for p, s in model.items() if p.socket != path.socket}
        else:
            model[spot] = TRANSITIONS[model.get(spot, Validity.UNKNOWN), evidence]
        seen = {p: book.validity(p) for p in model}
        assert len(book.proven) <= PATH_SET
        if sum(s in PROVEN and not p.relayed for p, s in model.items()) <= PATH_SET:
            assert seen == model
        else:
            model = seen  # the set was full: the least recently proven lapsed
        assert set(book.proven) == {p for p in seen if seen[p] in PROVEN and not p.relayed}
        assert all(book.is_proven(p) for p in book.proven)


def test_what_is_remembered_of_paths_is_bounded_and_keeps_what_is_proven() -> None:
    book = PathBook()
    good = Path(1, Endpoint("198.51.100.1", 1))
    book.prove(good, 0.01, 0.0)
    for port in range(2000):
        book.trying(Path(1, Endpoint("203.0.113.1", 1024 + port)), 1.0)
    assert len(book.states) == STATES_KEPT
    assert book.validity(good) is Validity.GOOD


def test_of_two_paths_the_one_in_doubt_comes_second() -> None:
    book = PathBook()
    quick, slow = (Path(1, Endpoint(f"203.0.113.{n}", 1)) for n in (1, 2))
    book.prove(quick, 0.010, 0.0)
    book.prove(slow, 0.100, 0.0)
    assert book.best_direct(lambda _: (0,)) == quick
    book.note(quick, Evidence.SILENT)
    assert book.best_direct(lambda _: (0,)) == slow
    book.prove(quick, 0.010, 1.0)
    assert book.best_direct(lambda _: (0,)) == quick
