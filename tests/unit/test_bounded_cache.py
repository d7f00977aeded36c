"""The bounded cache: bytes, entries and time, least recently used first."""

from __future__ import annotations

from blobflow.bounded_cache import BoundedCache


class Now:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def by_length(key: str, value: bytes) -> int:
    return len(value)


def test_the_least_recently_used_goes_first_when_the_bytes_are_too_many() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(entries=100, room=10, weigh=by_length)
    cache.put("a", b"12345")
    cache.put("b", b"12345")
    assert cache.get("a") == b"12345"
    cache.put("c", b"1")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"12345", None, b"1")
    assert cache.weight == 6


def test_there_are_never_more_entries_than_allowed() -> None:
    cache: BoundedCache[int, str] = BoundedCache(entries=3)
    for number in range(1000):
        cache.put(number, "x")
        assert len(cache) <= 3
    assert [cache.get(number) for number in (996, 997, 998, 999)] == [None, "x", "x", "x"]


def test_a_value_that_is_too_large_is_not_held_and_displaces_nobody() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(entries=100, room=10, largest=5, weigh=by_length)
    cache.put("small", b"1")
    cache.put("large", b"123456")
    assert (cache.get("small"), cache.get("large")) == (b"1", None)
    cache.put("small", b"123456")
    assert cache.get("small") is None, "the earlier value of the key is not the value any more"
    assert (len(cache), cache.weight) == (0, 0)


def test_a_value_that_is_put_again_is_weighed_again() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(entries=100, room=10, weigh=by_length)
    cache.put("a", b"12345678")
    cache.put("a", b"1")
    assert cache.weight == 1
    cache.put("b", b"123456789")
    assert (cache.get("a"), cache.get("b")) == (b"1", b"123456789")


def test_a_value_is_gone_when_its_time_is_over() -> None:
    now = Now()
    cache: BoundedCache[str, str] = BoundedCache(entries=10, seconds=60, clock=now)
    cache.put("a", "x")
    cache.put("short", "x", seconds=5)
    now.now = 5
    assert (cache.get("a"), cache.get("short")) == ("x", None)
    now.now = 59.9
    assert cache.get("a") == "x", "being asked for does not make it younger"
    now.now = 60
    assert cache.get("a") is None


def test_what_nobody_asks_for_any_more_leaves_memory_when_anything_else_is_asked_for() -> None:
    now = Now()
    cache: BoundedCache[str, bytes] = BoundedCache(entries=1000, seconds=10, weigh=by_length, clock=now)
    for number in range(100):
        cache.put(f"old {number}", b"x" * 10)
    now.now = 30
    assert cache.get("something else") is None
    assert (len(cache), cache.weight) == (0, 0)


def test_with_no_time_to_live_nothing_is_held() -> None:
    cache: BoundedCache[str, str] = BoundedCache(entries=10, seconds=0)
    cache.put("a", "x")
    assert len(cache) == 0


def test_what_is_forgotten_weighs_nothing() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(entries=10, weigh=by_length)
    cache.put("a", b"123")
    cache.put("b", b"4")
    assert (cache.pop("a"), cache.pop("a"), cache.weight) == (b"123", None, 1)
    cache.clear()
    assert (len(cache), cache.weight) == (0, 0)
