"""Run options: concurrency, verification, the store, reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.option_group import AliasedOption, OnceOption, Option, option_group
from blobflow.cli.options.param_types import FILE, FOLDER, Seconds, byte_rate, byte_size

if TYPE_CHECKING:
    from blobflow.cluster.address import Engine
    from blobflow.engine.pairs import Lookup
    from blobflow.engine.policy import AuditMode, Judged, VerifyLevel
    from blobflow.engine.services import CacheMode
    from blobflow.transports.archive import CompressMode

# What a container platform usually gives between SIGTERM and SIGKILL is 30 seconds.
_GRACE = 25.0


class RunOptions(msgspec.Struct, frozen=True):
    """The options of a run. Sizes and rates in bytes, `grace` in seconds. `policy`, `trusted_root` and
    `policy_for`: which signatures are demanded (see `cli.signature_policies`). `engine`: who carries blobs,
    None: this process; it has options of its own."""

    dry_run: bool = False
    keep_going: bool = True
    no_overwrite: bool = False
    trust_root: bool = False
    foreign_layers: bool = False
    referrers: Lookup | None = None
    concurrency: int | None = None
    compress: CompressMode = "gzip"
    report: tuple[Path, ...] = ()
    grace: float = _GRACE
    verify: VerifyLevel = "roots"
    audit: AuditMode = "rolling"
    cache: CacheMode = "auto"
    cache_dir: Path | None = None
    cache_size: int | None = None
    limit_rate: int | None = None
    wait: bool = False
    policy: Path | None = None
    trusted_root: Path | None = None
    policy_for: Judged | None = None
    engine: Engine | None = None


concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="Blobs that move at once at a host. [default: 8; far away up to 16]",
)
cache_dir_option = click.option(
    "--cache-dir", type=FOLDER, metavar="DIR", help="Where the store is. [default: blobflow in XDG's cache]"
)

compress_option = click.option(
    "--compress",
    type=click.Choice(["gzip", "gzip-portable", "zstd", "none"]),
    default="gzip",
    help="What becomes of the bare layers of docker archives: gzip (the default; digests depend on the "
    "processor), gzip-portable (slower, the same digests everywhere), zstd, or none.",
)


def max_size_option(text: str, *, name: str = "max_size") -> Option:
    """The bound of a store's size, which is called the same wherever there is a store."""
    return click.option(
        "--max-size",
        name,
        cls=AliasedOption,
        aliases=["--cache-size"],
        type=byte_size,
        metavar="BYTES",
        help=text,
    )


def verify_option(text: str) -> Option:
    """`--verify LEVEL`, with a help text of the verb's own: what is verified depends on the verb."""
    return click.option(
        "--verify", type=click.Choice(["roots", "blobs", "content"]), default="roots", help=text
    )


def referrers_option(text: str) -> Option:
    """`--referrers WHEN`, with a help text of the verb's own."""
    return click.option("--referrers", type=click.Choice(["auto", "always", "off"]), help=text)


run_options = option_group(
    "run",
    RunOptions,
    click.option("--dry-run", is_flag=True, help="Show the plan, a line an image, and move nothing."),
    click.option(
        "--keep-going/--fail-fast",
        default=True,
        help="After an image failed, go on with the others (the default), or stop.",
    ),
    click.option(
        "--no-overwrite", is_flag=True, help="An existing tag that names another digest is an error."
    ),
    click.option(
        "--trust-root",
        is_flag=True,
        help="Take a target tag with the right digest as whole, without asking for its children.",
    ),
    click.option(
        "--foreign-layers",
        is_flag=True,
        help="Mirror layers that registries need not hold (`urls`) where the source itself holds them.",
    ),
    referrers_option(
        "Bring signatures, SBOMs and attestations too: look for them when an image moves or was never "
        "looked at (auto, the default), for unchanged images again, or not at all."
    ),
    click.option(
        "--policy",
        cls=OnceOption,
        instead="one policy has the requirements of both",
        type=FILE,
        metavar="FILE",
        help="Copy only what this signature policy accepts: containers' policy.json, as skopeo and podman "
        "read it. Judged at the source, before anything is put anywhere.",
    ),
    click.option(
        "--trusted-root",
        type=FILE,
        metavar="FILE",
        help="The roots of sigstore's certificates and logs, where no key has signed: a trusted_root.json.",
    ),
    click.option(
        "--policy-for",
        type=click.Choice(["root", "images", "all"]),
        help="What has to be signed: what the tag names, whose digest covers all below it (root, the "
        "default); each image that is copied and no index, as with skopeo (images); each manifest (all).",
    ),
    concurrency_option,
    verify_option(
        "Afterwards look at the tags that were put (the default), ask for every blob of every image, or read "
        "all of it back."
    ),
    click.option(
        "--audit",
        type=click.Choice(["rolling", "all", "none"]),
        default="rolling",
        help="Look below images that an earlier run put, and repair what is gone: below those looked at "
        "longest ago, for at most 5 % of the requests (the default), below all, or none.",
    ),
    click.option(
        "--cache",
        type=click.Choice(["auto", "all", "off"]),
        default="auto",
        help="What goes through the store on disk: what is needed more than once, or large (the default); "
        "all, kept for later runs; nothing but what is needed more than once, and no memory of the run.",
    ),
    cache_dir_option,
    max_size_option(
        "What the store may hold, as 20GB or 512MiB. [default: what it holds, and half of what is free]",
        name="cache_size",
    ),
    click.option(
        "--limit-rate",
        type=byte_rate,
        metavar="BYTES",
        help="Read, and write, at most so much a second in all, as 10MB or 10MB/s.",
    ),
    click.option(
        "--wait",
        is_flag=True,
        help="Where a source lets fewer manifests be read than are needed (Docker Hub), read those and wait "
        "for more, for hours if need be.",
    ),
    compress_option,
    click.option(
        "--report",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="Write a report, also of a failed run: JSON, as FILE.html a page for people, as FILE.xml JUnit "
        "for CI systems. Repeatable.",
    ),
    click.option(
        "--grace",
        type=Seconds(min=0),
        default=_GRACE,
        metavar="SECONDS",
        show_default=True,
        help="How long blobs in flight may still take after SIGTERM.",
    ),
    title="Run",
    common=("dry_run", "no_overwrite", "policy", "limit_rate", "report"),
)
