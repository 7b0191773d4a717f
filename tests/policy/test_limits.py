"""How many sessions there may be, counted."""

from __future__ import annotations

from hypothesis import given, strategies as st

from socksproxy.policy.limits import PATIENCE, Admission, SessionCount, SessionLimits

SERVE, REFUSE, DROP = Admission.SERVE, Admission.REFUSE, Admission.DROP


def test_no_limit() -> None:
    count = SessionCount()
    assert all(count.admit("192.0.2.1") is SERVE for _ in range(10_000))
    assert count.total == 10_000


def test_total() -> None:
    """Whose they are does not matter; so many more are told, and the rest is closed unheard."""
    count = SessionCount(SessionLimits(sessions=3))
    clients = [f"192.0.2.{number}" for number in range(3 + PATIENCE + 5)]
    assert [count.admit(client) for client in clients] == [SERVE] * 3 + [REFUSE] * PATIENCE + [DROP] * 5


def test_per_client() -> None:
    """One client that has too many takes nothing from another."""
    count = SessionCount(SessionLimits(per_client=2))
    greedy = [count.admit("192.0.2.1") for _ in range(2 + PATIENCE + 3)]
    assert greedy == [SERVE] * 2 + [REFUSE] * PATIENCE + [DROP] * 3
    assert count.admit("192.0.2.2") is SERVE


def test_both() -> None:
    """The limit that is passed by more decides."""
    count = SessionCount(SessionLimits(sessions=4, per_client=2))
    assert [count.admit("a") for _ in range(3)] == [SERVE, SERVE, REFUSE]
    assert [count.admit("b") for _ in range(2)] == [SERVE, REFUSE]
    assert count.admit("c") is REFUSE


def test_zero() -> None:
    """A server that is to serve nobody."""
    assert SessionCount(SessionLimits(sessions=0)).admit("a") is REFUSE
    assert SessionCount(SessionLimits(per_client=0)).admit("a") is REFUSE


def test_release_makes_room() -> None:
    count = SessionCount(SessionLimits(sessions=2, per_client=1))
    assert [count.admit("a"), count.admit("b")] == [SERVE, SERVE]
    assert count.admit("a") is REFUSE
    count.release("a")
    count.release("a")
    assert count.admit("a") is SERVE
    assert count.total == 2


def test_unix_sockets_are_one_client() -> None:
    count = SessionCount(SessionLimits(per_client=1))
    assert count.admit(None) is SERVE
    assert count.admit(None) is REFUSE
    count.release(None)
    count.release(None)
    assert count.admit(None) is SERVE


def test_unknown_clients_have_no_limit_of_their_own() -> None:
    """Behind ``haproxy:`` everybody is unknown at first; the limit of all holds nevertheless."""
    count = SessionCount(SessionLimits(sessions=3, per_client=1))
    assert [count.admit("") for _ in range(4)] == [SERVE, SERVE, SERVE, REFUSE]
    for _ in range(4):
        count.release("")
    assert count.total == 0


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", "c", "", None])), max_size=200),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 3),
)
def test_any_order(acts: list[tuple[bool, str | None]], sessions: int | None, per_client: int | None) -> None:
    """What is served never exceeds a limit for want of a release, and nothing is left of those who went."""
    count = SessionCount(SessionLimits(sessions, per_client))
    here: list[str | None] = []
    for comes, client in acts:
        if comes:
            admission = count.admit(client)
            here.append(client)
            over = 0 if sessions is None else len(here) - sessions
            if per_client is not None and client != "":
                over = max(over, here.count(client) - per_client)
            assert admission is (SERVE if over <= 0 else REFUSE if over <= PATIENCE else DROP)
        elif client in here:
            here.remove(client)
            count.release(client)
        assert count.total == len(here)
    for client in here:
        count.release(client)
    assert count.total == 0
    assert count._by_client == {}
