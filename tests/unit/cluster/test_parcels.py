"""Which carriages go to a worker together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from blobflow.cluster import parcels
from blobflow.cluster.members import Member
from blobflow.cluster.parcels import MAX_TOGETHER, Parcel, Parcels
from blobflow.content import Site
from blobflow.engine.transfer.arrival_codec import unpack_carriage
from blobflow.engine.transfer.carrying import Carriage
from blobflow.oci import Descriptor, digest_of

SOURCE, TARGET = Site("source.example", "app"), Site("target.example", "app")
LARGE = 1 << 30


def carriage(number: int, size: int = 1000) -> Carriage:
    return Carriage(Descriptor("", digest_of(str(number).encode()), size), SOURCE, (TARGET,))


class Post:
    """What was sent: the keys of each parcel, in their order."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.parcels = Parcels(self._send)
        self.workers: Mapping[str, Member] = {
            name: Member(f"tcp://{name}", name, 32, at) for at, name in enumerate(("a", "b"))
        }

    async def _send(self, parcel: Parcel) -> dict[str, tuple[str, bytes]]:
        self.sent.append([*parcel.packed])
        return {key: ("arrived", packed) for key, packed in parcel.packed.items()}

    def put(self, key: str, size: int = 1000, *, to: str = "a", alone: bool = False) -> Parcel:
        return self.parcels.put(self.workers[to], key, carriage(int(key), size), alone=alone)


async def ended(*made: Parcel) -> None:
    await asyncio.gather(*(each.ended for each in made))


async def test_small_ones_of_one_moment_go_together_and_large_ones_alone() -> None:
    post = Post()
    together, large, other = post.put("1"), post.put("2", LARGE), post.put("3", to="b")
    assert post.put("4") is together
    await ended(together, large, other)
    assert sorted(post.sent) == [["1", "4"], ["2"], ["3"]]
    later = post.put("5")
    await ended(later)
    assert post.sent[-1] == ["5"]


async def test_each_of_a_parcel_is_told_of_its_own() -> None:
    post = Post()
    parcel = post.put("1")
    post.put("2")
    said = await parcel.ended
    assert said is not None
    assert [unpack_carriage(packed) for _, packed in said.values()] == [carriage(1), carriage(2)]


async def test_what_came_back_from_a_worker_takes_no_others_along() -> None:
    post = Post()
    made = [post.put("1"), post.put("2", alone=True), post.put("3", alone=True)]
    post.put("4")
    await ended(*made)
    assert sorted(post.sent) == [["1", "4"], ["2"], ["3"]]


async def test_no_parcel_has_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_TOGETHER > 3
    monkeypatch.setattr(parcels, "MAX_TOGETHER", 3)
    post = Post()
    await ended(*(post.put(str(number)) for number in range(8)))
    assert [len(keys) for keys in post.sent] == [3, 3, 2]


async def test_a_task_is_let_go_of_by_the_last_who_waits_for_it() -> None:
    post = Post()
    parcel = post.put("1")
    post.put("2")
    assert not parcel.leave("1")
    parcel.release()
    assert not parcel.ended.cancelling()
    assert parcel.leave("2")
    parcel.release()
    assert parcel.ended.cancelling()
