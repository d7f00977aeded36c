"""Options of `serve`: its address, logins, storage limits and upstreams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
import msgspec

from blobflow.cli.options.option_group import OnceOption, option_group
from blobflow.cli.options.param_types import FILE, FOLDER, Seconds, byte_size
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import max_size_option

if TYPE_CHECKING:
    from blobflow.server.registry import SparsePolicy

LogFormat = Literal["brief", "common", "combined", "json"]

LISTEN = "127.0.0.1:5000"
# Seconds that requests under way have after SIGTERM; container platforms kill after 30.
_GRACE = 10.0
_TTL = 60.0
_UPLOAD_TTL = 3600.0
# `--trust-proxy` without addresses.
_ANY_PROXY: Final = "any"


class ServeOptions(msgspec.Struct, frozen=True):
    """The options of `serve`, but for how upstreams are reached. Times in seconds, sizes in bytes."""

    listen: str
    root: Path | None
    bundle: tuple[Path, ...]
    htpasswd: Path | None
    access: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    anonymous: bool
    read_only: bool
    max_blob_size: int | None
    upload_ttl: float
    sparse: SparsePolicy
    upstream: tuple[str, ...]
    upstream_ttl: float
    policy: Path | None
    trusted_root: Path | None
    max_size: int | None
    access_log: LogFormat | None
    access_log_file: Path | None
    public_url: str | None
    trust_proxy: str | None
    grace: float


serve_options = option_group(
    "options",
    ServeOptions,
    click.option(
        "--listen", default=LISTEN, metavar="HOST:PORT", show_default=True, help="Port 0: a free one."
    ),
    click.option(
        "--root",
        type=FOLDER,
        metavar="DIR",
        help="The store's folder; made if it is not there. Default: blobflow/registry under XDG_DATA_HOME.",
    ),
    click.option(
        "--bundle",
        type=FILE,
        metavar="FILE",
        multiple=True,
        help="Answer from what `save` wrote, as it lies there, in place of a store: read-only. A bundle in "
        "parts is named without their numbers. Repeatable: of a name that several have the last one counts.",
    ),
    click.option(
        "--htpasswd", type=FILE, metavar="FILE", help="Only these logins come in (bcrypt: `htpasswd -B`)."
    ),
    click.option(
        "--access",
        cls=OnceOption,
        instead="one file has the rules of both",
        type=FILE,
        metavar="FILE",
        help="Who may pull, push and delete what (TOML; see `blobflow help access`).",
    ),
    click.option(
        "--tls-cert", type=FILE, metavar="FILE", help="Serve https: the certificate with its chain."
    ),
    click.option(
        "--tls-key", type=FILE, metavar="FILE", help="The certificate's key, if it is not beside it."
    ),
    click.option(
        "--anonymous",
        "--allow-remote",
        is_flag=True,
        help="Without --htpasswd, listen beyond loopback all the same: anybody there comes in.",
    ),
    click.option(
        "--read-only",
        is_flag=True,
        help="Pull only: what would change something is refused. Without --upstream nothing is written into "
        "the store, which may be on a read-only file system.",
    ),
    click.option(
        "--max-blob-size",
        type=byte_size,
        metavar="BYTES",
        help="Refuse larger blobs, as 20GB. [default: none is]",
    ),
    click.option(
        "--upload-ttl",
        type=Seconds(min=1),
        default=_UPLOAD_TTL,
        show_default=True,
        metavar="SECONDS",
        help="How long an unfinished upload is kept without a byte, also of a process that died.",
    ),
    click.option(
        "--sparse",
        type=click.Choice(("accept", "indexes", "refuse")),
        default="indexes",
        show_default=True,
        help="Which manifests are taken while something that they name is not here: all, indexes, or none.",
    ),
    click.option(
        "--upstream",
        type=PLACE,
        multiple=True,
        metavar="HOST[=PREFIX]",
        help="Pull through: what is not here is fetched from HOST, and kept. With PREFIX its repositories "
        "are under PREFIX/. Repeatable.",
    ),
    click.option(
        "--upstream-ttl",
        type=Seconds(min=0),
        default=_TTL,
        show_default=True,
        metavar="SECONDS",
        help="How long a tag is taken for what its upstream said last, and what was refused stays refused.",
    ),
    click.option(
        "--policy",
        cls=OnceOption,
        instead="one policy has the requirements of both",
        type=FILE,
        metavar="FILE",
        help="Give out only what this signature policy accepts of the upstreams. It is containers' "
        "policy.json, as skopeo and podman read it, and read when serve starts. What is pushed here is not "
        "judged.",
    ),
    click.option(
        "--trusted-root",
        type=FILE,
        metavar="FILE",
        help="The roots of sigstore's certificates and logs, where no key has signed: a trusted_root.json.",
    ),
    max_size_option(
        "What the store may hold, as 20GB: beyond that, what was pulled through and not asked for longest "
        "goes. It is looked at every ten minutes, and what came in the last hour stays."
    ),
    click.option(
        "--access-log",
        type=click.Choice(("brief", "common", "combined", "json")),
        help="Log each request: in a form of our own (as -v does), or as httpd does, or as JSON lines.",
    ),
    click.option(
        "--access-log-file",
        type=FILE,
        metavar="FILE",
        help="Append the access log to FILE. [default: stderr]",
    ),
    click.option(
        "--public-url",
        metavar="URL",
        help="How clients reach it, as https://registry.example/mirror: answers then name whole URLs.",
    ),
    click.option(
        "--trust-proxy",
        is_flag=False,
        flag_value=_ANY_PROXY,
        metavar="[ADDRESS,...]",
        help="Believe what a reverse proxy at these addresses or networks says of clients and how they come "
        "(Forwarded, or X-Forwarded-Proto, -Host, -Prefix, -For). Without any address: whoever connects.",
    ),
    click.option(
        "--grace",
        type=Seconds(min=0),
        default=_GRACE,
        show_default=True,
        metavar="SECONDS",
        help="How long requests under way may still take after SIGTERM or Ctrl-C. A second one ends them "
        "at once.",
    ),
)
