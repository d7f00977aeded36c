"""From what is asked for to pairs: rules find their tags first. And, if that is wanted, what is too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.carrying import Course, Outcome, carry_out_work
from blobflow.cli.choosing import Choosing, choose
from blobflow.cli.console import display
from blobflow.cli.options import Ends, Link, Run, policy_of, settings_of
from blobflow.cli.running import run as run_loop
from blobflow.cli.selection import Asked, Settled, settle
from blobflow.events import Meter, Observer, Warned

if TYPE_CHECKING:
    from blobflow.engine.flow import Planned
    from blobflow.engine.plan import Pair
    from blobflow.engine.report import Report, TagRecord
    from blobflow.mirror import Settings
    from blobflow.tending.clearing import Keep
    from blobflow.tending.search import Chosen, Search
    from blobflow.tending.surplus import Limit


class Drawn(msgspec.Struct, frozen=True):
    """A plan of what was asked for, with notes of what it took, and the tags that would be too many."""

    planned: Planned
    notes: tuple[str, ...] = ()
    tags: tuple[TagRecord, ...] = ()


def ends_of_asked(asked: Asked) -> Ends:
    """The hosts at both ends, as far as they are known by name."""
    sources, targets = asked.places
    return Ends(sources, targets)


async def find_pairs(
    asked: Asked, choosing: Choosing, settings: Settings, show: Observer, meter: Meter
) -> Settled:
    """The pairs, now. Where rules choose tags, their registries are asked."""
    for warning in (*asked.warnings, *([asked.timing] if asked.timing else [])):
        show(Warned(warning))
    if not asked.searches:
        return _settled(asked, {}, choosing)
    from blobflow.tending.finding import find

    found = await find(asked.searches, settings, observer=show, meter=meter)
    return _settled(asked, found, choosing)


def may_skip_all(asked: Asked, choosing: Choosing) -> bool:
    """Whether somebody said that images may be skipped. If nobody did, a set of which all are is a
    mistake."""
    return choosing.missing_platform is not None or asked.says_missing


def check_asked(asked: Asked, choosing: Choosing) -> None:
    """Raise UsageError for what can be seen to be wrong before anything is asked."""
    exact = tuple(image for image in asked.wanted if image.search is None)
    _settled(msgspec.structs.replace(asked, wanted=exact), {}, choosing)


def _settled(asked: Asked, found: Mapping[Search, Sequence[Chosen]], choosing: Choosing) -> Settled:
    settled = settle(asked, found)
    return msgspec.structs.replace(settled, pairs=tuple(choose(settled.pairs, choosing)))


def settings_for(asked: Asked, link: Link, run: Run) -> Settings:
    """The settings for what is asked."""
    return _with_hosts(settings_of(link, run, ends_of_asked(asked)), asked, link)


def _with_hosts(settings: Settings, asked: Asked, link: Link) -> Settings:
    """The settings, with what the file says of hosts that nothing else is said of."""
    hosts = asked.hosts
    if link.tls_verify is not None:
        hosts = {host: msgspec.structs.replace(own, verify=None) for host, own in hosts.items()}
    return msgspec.structs.replace(settings, hosts={**hosts, **settings.hosts})


def carry_out_set(
    asked: Asked,
    choosing: Choosing,
    link: Link,
    run: Run,
    *,
    clearing: Limit | None = None,
    told: Callable[[Report], None] = lambda report: None,
) -> Outcome:
    """Mirror what is asked for; as `carry_out_work`. With `clearing`, tags too many are removed once all is
    there, so many at most."""

    async def work(settings: Settings, course: Course, show: Observer, meter: Meter) -> Sequence[str]:
        from blobflow.mirror import mirror

        settings = _with_hosts(settings, asked, link)
        settled = await find_pairs(asked, choosing, settings, show, meter)
        course.lost = settled.lost
        flow = course(settled.pairs, settled.notes)
        report = await mirror(settled.pairs, settings, observer=show, meter=meter, run=flow)
        skips_all = all(image.reason for image in report.images)
        whole = report.ok and not settled.lost and (may_skip_all(asked, choosing) or not skips_all)
        if clearing is not None and whole:
            from blobflow.tending.clearing import clear

            keep = _kept(settled.pairs, report)
            async for tag in clear(keep, clearing, settings, observer=show, meter=meter):
                course.tags.append(tag)
        return ()

    check_asked(asked, choosing)
    return carry_out_work(work, ends_of_asked(asked), link, run, told=told)


def _kept(pairs: Iterable[Pair], report: Report) -> Iterator[Keep]:
    from blobflow.oci import parse_digest
    from blobflow.tending.clearing import Keep

    for pair, image in zip(pairs, report.images, strict=True):
        yield Keep(pair.target, parse_digest(image.digest) if image.digest else None)


def draw(asked: Asked, choosing: Choosing, link: Link, run: Run, *, clearing: Limit | None = None) -> Drawn:
    """The plan of what is asked for; nothing is changed anywhere. What the rules could not find is among its
    failures. With `clearing`, also what would be removed, if all of it can be planned."""
    check_asked(asked, choosing)
    return run_loop(_drawn(asked, choosing, link, run, clearing))


async def _drawn(asked: Asked, choosing: Choosing, link: Link, run: Run, clearing: Limit | None) -> Drawn:
    from blobflow.mirror import plan_run

    meter = Meter()
    async with display(link.look, meter) as show:
        settings = settings_for(asked, link, run)
        settled = await find_pairs(asked, choosing, settings, show, meter)
        planned = await plan_run(settled.pairs, settings, policy_of(run), observer=show, meter=meter)
        planned = msgspec.structs.replace(
            planned,
            pairs=(*planned.pairs, *settled.lost),
            failures={**planned.failures, **settled.lost},
        )
        tags: list[TagRecord] = []
        if clearing is not None and not planned.failures:
            from blobflow.tending.clearing import clear

            keep = _to_be_kept(planned)
            async for tag in clear(keep, clearing, settings, dry_run=True, observer=show, meter=meter):
                tags.append(tag)
        return Drawn(planned, settled.notes, tuple(tags))


def _to_be_kept(planned: Planned) -> Iterator[Keep]:
    from blobflow.tending.clearing import Keep

    for pair, shape in planned.shapes.items():
        lists = {
            manifest.descriptor.digest: tuple(child.digest for child in manifest.manifests)
            for manifest in shape.manifests
            if manifest.is_index
        }
        yield Keep(pair.target, shape.root.digest, lists)
    for pair in planned.skipped:
        yield Keep(pair.target, None)
