"""Any set, carried by any workers however they answer, ends as it does without them."""

from __future__ import annotations

import asyncio
import random
import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import Site
from blobflow.engine.results.report import Report
from blobflow.engine.transfer.carrying import Arrival, Carriage, Tell, tell_nobody
from blobflow.errors import BlobflowError, ConnectionLost, Denied, NotFound
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.transports.store import Store
from tests.fakes.carrier import WorkersHere
from tests.scenarios.carried import mirrored, workers_here
from tests.scenarios.mirror import MirrorScenario

# Made once: what differs is how it is carried.
SETS = [sample_set(seed, images=3, architectures=("amd64", "arm64"), layer_size=512) for seed in range(3)]


class Unsteady:
    """Lets carriages wait for each other in any order, and some be told late or not at all."""

    def __init__(self, carrier: WorkersHere, seed: int) -> None:
        self._carrier = carrier
        self._random = random.Random(seed)

    def __getattr__(self, name: str) -> object:
        return getattr(self._carrier, name)

    async def carry(self, carriage: Carriage, *, size_left: int, tell: Tell = tell_nobody) -> list[Arrival]:
        for _ in range(self._random.randrange(20)):
            await asyncio.sleep(0)
        told = tell if self._random.random() < 0.7 else tell_nobody
        arrivals = list(await self._carrier.carry(carriage, size_left=size_left, tell=told))
        self._random.shuffle(arrivals)
        return arrivals


def ended(report: Report) -> dict[tuple[str, str], str]:
    return {(image.source, image.target): image.status for image in report.images}


@given(
    sample=st.sampled_from(SETS),
    targets=st.integers(1, 3),
    mounts=st.booleans(),
    workers=st.integers(1, 3),
    each=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    faults=st.dictionaries(
        st.integers(0, 40),
        st.sampled_from(["source gone", "target says no", "read once", "pushed once"]),
        max_size=6,
    ),
)
@settings(max_examples=12)
def test_a_set_ends_as_it_does_without_workers(
    sample: SampleSet,
    targets: int,
    mounts: bool,
    workers: int,
    each: int,
    seed: int,
    faults: dict[int, str],
) -> None:
    blobs = sorted(sample.blobs)
    wrong = {blobs[number % len(blobs)]: fault for number, fault in faults.items()}

    def bench_in(folder: Path, store: Store) -> MirrorScenario:
        bench = MirrorScenario(store, sample)
        for name in ("one", "two", "three")[:targets]:
            target = bench.target(name, mounts=mounts)
            target.fault = Faults(wrong, "push")
        bench.source.fault = Faults(wrong, "open")
        return bench

    async def both() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with closing(Store.open(folder / "alone")) as store:
                alone = bench_in(folder, store)
                expected = ended(await alone.mirror())
            with closing(Store.open(folder / "carried")) as store:
                bench = bench_in(folder, store)
                async with workers_here(bench, workers) as carrier:
                    carrier.each = each
                    unsteady: WorkersHere = Unsteady(carrier, seed)  # type: ignore[assignment]
                    report = await mirrored(bench, unsteady)
                    assert carrier.most <= carrier.capacity()
                assert ended(report) == expected
                whole = {blob for blob in blobs if blob not in wrong}
                reads = bench.opened()
                assert all(reads[blob] == 1 for blob in whole)
                if not wrong:
                    assert set(expected.values()) == {"done"}
                    for target in bench.targets.values():
                        bench.assert_whole(target)

    asyncio.run(both())


class Faults:
    """What goes wrong with blobs at one call of a registry: always, or the first time."""

    def __init__(self, wrong: dict[str, str], call: str) -> None:
        self._wrong = wrong
        self._call = call
        self._once: set[str] = set()

    def __call__(self, call: str, site: Site, name: str) -> BlobflowError | None:
        fault = self._wrong.get(name)
        if call != self._call or fault is None:
            return None
        match call, fault:
            case "open", "source gone":
                return NotFound("gone", status=404)
            case "push", "target says no":
                return Denied("no", status=403)
            case ("open", "read once") | ("push", "pushed once") if name not in self._once:
                self._once.add(name)
                return ConnectionLost("broke")
        return None
