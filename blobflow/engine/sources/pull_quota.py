"""The pull quota: how many manifests the sources let be read, and what a run does where that is too few.

Some registries count the manifests that are read and refuse more than so many in some hours (Docker Hub);
what they said last is their `Allowance`. A run asks here before each level of the graph is read. What it then
needs to read is known, and what it will need at the least as well: an index has a child. So a run that can't
be read to its end stops before its first counted request, if it can be known, and else at the level where it
is known; or, if it may wait, reads what is left and waits for more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from blobflow.content import Allowance, AllowanceOf, Site, Sleep, SourceAt
from blobflow.errors import BlobflowError, Throttled
from blobflow.events import Observer, Warned
from blobflow.oci import Descriptor, media

DescriptorAt = tuple[Site, Descriptor]
# Says which of the manifests that are to be read may be read now: one at least, or it raises.
AdmitReads = Callable[[Sequence[DescriptorAt]], Awaitable[Sequence[DescriptorAt]]]

# Asking is free, but nobody is to be asked all the time by many that wait (seconds).
ASK_AGAIN = 300.0


def no_allowance(host: str) -> None:
    """No registry counts what is read from it."""


async def unlimited(wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
    """The permit where nobody counts."""
    return wanted


class PullQuota:
    """One run's way with its sources' allowances. `reads`: the manifests that it let be read, by host."""

    def __init__(
        self, allowance_of: AllowanceOf, source_at: SourceAt, observe: Observer, sleep: Sleep, *, waits: bool
    ) -> None:
        self._allowance_of = allowance_of
        self._source_at = source_at
        self._observe = observe
        self._sleep = sleep
        self._waits = waits
        self.reads: Counter[str] = Counter()

    @property
    def allowances(self) -> dict[str, Allowance]:
        """What the sources that were read from said last."""
        found = {host: self._allowance_of(host) for host in sorted(self.reads)}
        return {host: allowance for host, allowance in found.items() if allowance is not None}

    async def permit(self, wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
        """See `AdmitReads`. Raises Throttled where an allowance is too small, and nothing is waited for."""
        told: set[str] = set()
        while True:
            now = self._allowed(wanted)
            if now or not wanted:
                self.reads.update(site.registry for site, _ in now)
                return now
            if not await self._wait(wanted[0], told):
                return wanted[:1]  # it fails for a reason of its own, which is to be heard

    def _allowed(self, wanted: Sequence[DescriptorAt]) -> list[DescriptorAt]:
        """What may be read now of what is wanted."""
        left: dict[str, int] = {}
        for host, need in self._needs(wanted).items():
            allowance = self._allowance_of(host)
            if allowance is None:
                continue
            if need > allowance.remaining and not (self._waits and allowance.limit):
                raise _too_few(host, allowance, need)
            left[host] = allowance.remaining
        now = []
        for mention in wanted:
            host = mention[0].registry
            if left.get(host, 1) > 0:
                now.append(mention)
                if host in left:
                    left[host] -= 1
        return now

    def _needs(self, wanted: Sequence[DescriptorAt]) -> Counter[str]:
        needs: Counter[str] = Counter()
        for site, descriptor in wanted:
            needs[site.registry] += 2 if descriptor.media_type in media.INDEXES else 1
        return needs

    async def _wait(self, mention: DescriptorAt, told: set[str]) -> bool:
        """Wait, and have the host say anew what is left; False if it has other reasons not to."""
        site, descriptor = mention
        allowance = self._allowance_of(site.registry)
        if site.registry not in told and allowance is not None:
            told.add(site.registry)
            self._observe(
                Warned(
                    f"{site.registry} lets no more manifests be read for now ({allowance.rate});"
                    f" waiting, and asking again every {ASK_AGAIN / 60:.0f} min"
                )
            )
        await self._sleep(ASK_AGAIN)
        try:
            await self._source_at(site).resolve(descriptor.digest)
        except BlobflowError as error:
            return error.retryable
        return True


def _too_few(host: str, allowance: Allowance, need: int) -> Throttled:
    error = Throttled(
        f"{host} lets {allowance.remaining} more manifests be read for now ({allowance.rate}), and this run"
        f" has at least {need} to read; run it later, for fewer images, or with --wait",
        status=0,
    )
    error.side = "source"
    return error
