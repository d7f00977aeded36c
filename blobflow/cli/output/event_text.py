"""Events as lines of text: what every display says of them. Pure."""

from __future__ import annotations

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.units import count_text, one_line, seconds_text
from blobflow.events import Event, ImageDone, Retrying, Traced, Warned, WorkersChanged
from blobflow.oci.local_reference import transport_of


def image_name(source: str) -> str:
    """An image by its repository and tag, as in its source but without the registry; a layout or archive
    unchanged."""
    return source if transport_of(source) else source.partition("/")[2] or source


def registry_of(target: str) -> str:
    """The registry of a target; a layout or archive unchanged."""
    return target if transport_of(target) else target.partition("/")[0]


def event_line(event: Event, output: OutputOptions) -> str | None:
    """The line for an event that every text display prints; None if none does."""
    match event:
        case Warned() if not output.quiet:
            return one_line(f"warning: {event.message}")
        case WorkersChanged() if output.verbose:
            changes = [
                f"{', '.join(names)} {how}"
                for names, how in ((event.joined, "joined"), (event.left, "left"))
                if names
            ]
            return one_line("; ".join((count_text(event.workers, "worker"), *changes)))
        case Retrying() if output.verbose:
            return one_line(
                f"retry {event.attempt} of {event.what} in {seconds_text(event.delay)}: {event.error}"
            )
        case Traced() if output.verbose:
            return one_line(f"{event.method} {event.url} {event.status} {seconds_text(event.seconds)}")
        case _:
            return None


def progress_line(event: ImageDone, *, name_target: bool = False) -> str:
    """`Progress: 3/8 rancher/pause:3.1 done`; with several target registries, also which one."""
    where = f" at {registry_of(event.target)}" if name_target else ""
    return one_line(f"Progress: {event.done}/{event.images} {image_name(event.source)}{where} {event.status}")
