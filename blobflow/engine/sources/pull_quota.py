"""Pull quotas: how many manifests the sources allow to be read, and what a run does where that is too few.

Some registries count the manifests that are read and refuse more than so many in some hours (Docker Hub);
what they reported last is their `Allowance`. A run asks here before it reads each level of the graph. Then it
knows how many manifests it needs now, and how many it will need at least: an index has a child. So a run
whose quota is too small stops before its first counted request if that is known by then, and else at the
level where it becomes known; or, if it may wait, reads what is left and waits for more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from blobflow.content import Allowance, AllowanceOf, Site, Sleep, SourceAt
from blobflow.errors import BlobflowError, Throttled
from blobflow.events import Observer, Warned
from blobflow.oci import Descriptor, media
from blobflow.waits import Waits

DescriptorAt = tuple[Site, Descriptor]
# Returns which of the wanted manifests may be read now: at least one, or it raises.
AdmitReads = Callable[[Sequence[DescriptorAt]], Awaitable[Sequence[DescriptorAt]]]

# Seconds between questions. They are free, but many that wait must not ask a host all the time.
ASK_AGAIN = 300.0


def no_allowance(host: str) -> None:
    """No registry counts what is read from it."""


async def unlimited(wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
    """What admits reads where nobody counts."""
    return wanted


class PullQuota:
    """One run's use of its sources' allowances. `reads`: how many manifests it permitted to read, by host."""

    def __init__(
        self,
        allowance_of: AllowanceOf,
        source_at: SourceAt,
        observe: Observer,
        sleep: Sleep,
        waits: Waits | None,
    ) -> None:
        """`waits`: where it is told that more are waited for; None: that is not done."""
        self._allowance_of = allowance_of
        self._source_at = source_at
        self._observe = observe
        self._sleep = sleep
        self._waits = waits
        self.reads: Counter[str] = Counter()

    @property
    def allowances(self) -> dict[str, Allowance]:
        """The allowances that the sources that were read from reported last."""
        found = {host: self._allowance_of(host) for host in sorted(self.reads)}
        return {host: allowance for host, allowance in found.items() if allowance is not None}

    async def admit(self, wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
        """See `AdmitReads`. Raises Throttled where an allowance is too small, and nothing is waited for."""
        told: set[str] = set()
        while True:
            now = self._allowed(wanted)
            if now or not wanted:
                self.reads.update(site.registry for site, _ in now)
                return now
            if not await self._wait(wanted[0], told):
                return wanted[:1]  # it fails for a reason of its own, which should be reported

    def _allowed(self, wanted: Sequence[DescriptorAt]) -> list[DescriptorAt]:
        """Which of the wanted manifests may be read now."""
        left: dict[str, int] = {}
        for host, need in self._needs(wanted).items():
            allowance = self._allowance_of(host)
            if allowance is None:
                continue
            if need > allowance.remaining and not (self._waits is not None and allowance.limit):
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
        """Wait, and ask the host again what is left; False if it refuses for another reason."""
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
        assert self._waits is not None, "who does not wait has failed by now"
        with self._waits.begin("quota", site.registry, seconds=ASK_AGAIN):
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
