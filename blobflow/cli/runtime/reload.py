"""Reloads the files of a registry that serves: when they change, and on SIGHUP."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from blobflow.cli.output.stdio import print_lines
from blobflow.cli.runtime.files import read_text

if TYPE_CHECKING:
    from blobflow.server import AccessRules, Certificate, Logins
    from blobflow.server.admin.file_reload import Reloadable
    from blobflow.signatures.contract import SignatureJudge


class HangupSignals:
    """SIGHUP as events that end nothing. One that comes before anybody waits is kept."""

    def __init__(self) -> None:
        self._came = False
        self._ring: Callable[[], None] = lambda: None

    @contextmanager
    def caught(self) -> Iterator[HangupSignals]:
        """While inside, SIGHUP only wakes who waits. Outside the main thread it has no effect."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._came = True
            self._ring()

        try:
            before = signal.signal(signal.SIGHUP, on_signal)
        except ValueError:
            yield self
            return
        try:
            yield self
        finally:
            signal.signal(signal.SIGHUP, before if before is not None else signal.SIG_DFL)

    async def each(self) -> AsyncIterator[None]:
        """Yield once for each signal, or for several that came together."""
        loop, rung = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            loop.call_soon_threadsafe(rung.set)

        self._ring = ring
        try:
            while True:
                if not self._came:
                    await rung.wait()
                rung.clear()
                self._came = False
                yield
        finally:
            self._ring = lambda: None


def load_logins(path: Path) -> tuple[Logins, Reloadable]:
    """The logins of an htpasswd file, and what reloads them. Raises InvalidConfig."""
    from blobflow.server import Logins, parse_htpasswd
    from blobflow.server.admin.file_reload import ReloadableFile

    def parse(text: str) -> dict[str, bytes]:
        return parse_htpasswd(text, str(path))

    text = read_text(path)
    logins = Logins(parse(text))
    return logins, ReloadableFile(_file(path), text, what="the logins", parse=parse, take=logins.replace)


def load_access_rules(path: Path, names: Callable[[], frozenset[str]]) -> tuple[AccessRules, Reloadable]:
    """The rules of a file, and what reloads them; warns about rules for none of the registry's `names`.

    Raises InvalidConfig.
    """
    from blobflow.server import AccessRules, parse_access
    from blobflow.server.admin.file_reload import ReloadableFile
    from blobflow.server.auth.access_rules import ParsedRules

    def parse(text: str) -> ParsedRules:
        return parse_access(text, str(path))

    def take(parsed: ParsedRules) -> None:
        access.replace(parsed)
        if strangers := parsed.strangers(names()):
            print_notice(f"warning: {path} has rules for logins that there are not: {', '.join(strangers)}")

    text = read_text(path)
    access = AccessRules()
    take(parse(text))
    return access, ReloadableFile(_file(path), text, what="the access rules", parse=parse, take=take)


def certificate_reloader(certificate: Certificate) -> Reloadable:
    """What reloads a certificate, on SIGHUP only."""
    from blobflow.server.admin.file_reload import ReloadableOnDemand

    return ReloadableOnDemand(certificate.path, "the certificate", certificate.reread)


class PolicyReloader:
    """Reads a signature policy again, with all keys and roots that it names: on SIGHUP only, since these are
    several files. `judge`: what `load` gave first. `take` makes another one take effect."""

    what = "the signature policy"
    on_demand = True

    def __init__(
        self,
        path: Path,
        judge: SignatureJudge,
        load: Callable[[], SignatureJudge],
        take: Callable[[SignatureJudge], None],
    ) -> None:
        self.name = str(path)
        self._fingerprint = judge.fingerprint
        self._load = load
        self._take = take

    def read(self) -> Callable[[], None] | None:
        """See `Reloadable`. Raises InvalidConfig."""
        judge = self._load()
        if judge.fingerprint == self._fingerprint:
            return None

        def take() -> None:
            self._fingerprint = judge.fingerprint
            self._take(judge)

        return take


def _file(path: Path) -> Path:
    """A path that can be watched, for `-` too."""
    return Path("/dev/stdin") if str(path) == "-" else path


@asynccontextmanager
async def reload_on_change(files: Sequence[Reloadable], hangups: HangupSignals) -> AsyncIterator[None]:
    """While inside, changed files take effect, and SIGHUP reloads all of them.

    What fails inside is raised unchanged, not in a group.
    """
    from blobflow.server.admin.file_reload import FileReloader

    rereading = FileReloader(files, print_notice)

    async def reread() -> None:
        async for _ in hangups.each():
            if not files:
                print_notice("there is nothing to read again")
            await rereading.reread()

    failed: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(reread()), group.create_task(rereading.watch())]
            try:
                yield
            except Exception as error:  # noqa: BLE001  it is raised below
                failed = error
            for task in tasks:
                task.cancel()
    finally:
        rereading.close()
    if failed is not None:
        raise failed


def print_notice(sentence: str) -> None:
    """Print on stderr what the operator should know."""
    print_lines(f"blobflow: {sentence}", err=True)
