"""The world as processes: registries to talk to, programs to run, and what they say of themselves.

Registries are started on a free port of 127.0.0.1 and ended by leaving their context; programs are run to
their end and measured from outside. Nothing knows of pytest, so that the benchmarks run the same things.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from tools.access_log import Requests, parse_access_log
from tools.certificates import Pair as KeyFiles
from tools.checkout import TOP
from tools.ports import reserve_port, takes_connections
from tools.warm import WarmProcess, start

# What a process was started by. `WarmProcess` has what is used of the other.
Process = subprocess.Popen[bytes] | WarmProcess

BLOBFLOW = (sys.executable, "-m", "blobflow")  # run in TOP

READY_SECONDS = 60.0  # a registry answers within some 50 ms, but the machine may be busy
END_SECONDS = 60.0  # as long, and it ends as soon
RUN_SECONDS = 240.0  # a whole-set run takes seconds; below pytest's own limit, so that the output is shown

# distribution 2.8.2: errors only, so that what it says on standard error is worth reading.
DOCKER_REGISTRY = """\
version: 0.1
log: {{accesslog: {{disabled: false}}, level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "{host}"}}
"""


class Registry:
    """A registry process on `host`. `root` is its storage; `log` takes its standard output. With `ca`, a
    certificate that is trusted, it speaks TLS."""

    def __init__(self, host: str, root: Path, log: Path, process: Process, ca: Path | None = None) -> None:
        self.host = host
        self.ca = ca
        self.root = root
        self.process = process
        self._log = log
        self._seen = log.stat().st_size
        self._probes = 0

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One exchange on a connection of its own: status, headers in lower case, body."""
        connection = _connection(self.host, 30, self.ca)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def digest_of(self, repository: str, name: str) -> str | None:
        """The digest that a tag or digest of a manifest answers with, None where there is none."""
        accept = ", ".join(
            f"application/vnd.{kind}+json"
            for kind in (
                "oci.image.index.v1",
                "oci.image.manifest.v1",
                "docker.distribution.manifest.list.v2",
                "docker.distribution.manifest.v2",
            )
        )
        status, headers, _ = self.ask("HEAD", f"/v2/{repository}/manifests/{name}", {"Accept": accept})
        return headers["docker-content-digest"] if status == 200 else None

    def forget(self) -> None:
        """Begin a new count: `requests` tells only what comes after this."""
        self._seen = self._whole_log()

    def requests(self) -> Requests:
        """What was asked since `forget`. Only docker-registry writes the log that this reads."""
        end = self._whole_log()
        with self._log.open("rb") as log:
            log.seek(self._seen)
            return parse_access_log(log.read(end - self._seen).decode())

    def _whole_log(self) -> int:
        """The log's length in bytes once a probe sent now has reached it.

        A line is written before the end of an answer goes out (large blobs aside, which something always
        follows), so a client that has ended has all its lines in the log before the probe's.
        """
        self._probes += 1
        self.ask("GET", f"/v2/?probe={self._probes}")
        marker = f"/v2/?probe={self._probes} ".encode()
        deadline = time.monotonic() + READY_SECONDS
        while marker not in (log := self._log.read_bytes()) or not log.endswith(b"\n"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._log} does not show the probe")
            time.sleep(0.01)
        return len(log)

    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        return cpu_seconds_of(self.process.pid)


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a process so far, as Linux tells it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


Leave = Callable[[Path], None]


def remove(storage: Path) -> None:
    """Remove a folder, whatever of it is there."""
    shutil.rmtree(storage, ignore_errors=True)


def empty(storage: Path) -> None:
    """Cut all files of a folder down to nothing, and remove none.

    ext4 gives an inode out again only minutes after its removal, and until then looks at every such one for
    each file that is made: a registry that is measured would pay with up to a third of its CPU for what was
    removed before it.
    """
    for folder, _, names in os.walk(storage):
        for name in names:
            os.truncate(Path(folder, name), 0)


@contextmanager
def docker_registry(
    folder: Path, upstream: str = "", *, leave: Leave = remove, tls: KeyFiles | None = None
) -> Iterator[Registry]:
    """Debian's docker-registry under `folder`. Its storage goes when the context ends, its logs stay.

    `upstream`: the host that it is a pull-through cache of. `leave`: what is done to its storage at the end.
    With `tls` it speaks TLS alone, and its Locations are relative.
    """

    def command(host: str) -> list[str]:
        config = folder / "config.yml"
        text = DOCKER_REGISTRY.format(root=folder / "storage", host=host)
        if upstream:
            text += f"proxy: {{remoteurl: http://{upstream}}}\n"
        if tls:
            files = f"{{certificate: {tls.cert}, key: {tls.key}}}"
            text = text.replace("http: {", f"http: {{relativeurls: true, tls: {files}, ")
        config.write_text(text)
        return ["docker-registry", "serve", str(config)]

    with serving(command, folder, leave, ca=tls and tls.cert) as registry:
        yield registry


def blobflow_of(checkout: Path) -> tuple[str, ...]:
    """The command that runs the blobflow of a checkout, in its folder: with ours its environment is this
    one's, with another its own. Raises FileNotFoundError if that was not made."""
    if checkout.resolve() == TOP:
        return BLOBFLOW
    python = checkout.resolve() / ".venv/bin/python"
    if not python.exists():
        raise FileNotFoundError(f"{checkout} has no .venv; make one there, as tools/test does")
    return (str(python), "-m", "blobflow")


@contextmanager
def blobflow_serve(
    folder: Path,
    *arguments: str,
    checkout: Path = TOP,
    tls: KeyFiles | None = None,
    bundles: Sequence[Path] = (),
) -> Iterator[Registry]:
    """`blobflow serve` with its store under `folder`, which goes when the context ends, or over `bundles`.
    `checkout`: whose. `{host}` in an argument becomes where it listens; with `tls` it speaks TLS alone."""
    program = blobflow_of(checkout)
    more = ["--tls-cert", str(tls.cert), "--tls-key", str(tls.key)] if tls else []
    over = [word for path in bundles for word in ("--bundle", str(path))]
    over = over or ["--root", str(folder / "storage")]

    def command(host: str) -> list[str]:
        told = [argument.replace("{host}", host) for argument in arguments]
        return [*program, "serve", "--listen", host, *over, *more, *told]

    with serving(command, folder, top=checkout, ca=tls and tls.cert) as registry:
        yield registry


@contextmanager
def faulty_registry(folder: Path, journal: Path, *faults: str, leave: Leave = remove) -> Iterator[Registry]:
    """The faulty registry (tools/registry/faulty.py) with its storage under `folder`; what it is asked goes
    to `journal`, and not to a log. `leave`: what is done to its storage at the end."""

    def command(host: str) -> list[str]:
        told = [word for fault in faults for word in ("--fault", fault)]
        where = ["--root", str(folder / "storage"), "--journal", str(journal)]
        return [sys.executable, "-m", "tools.registry.faulty", "--listen", host, *where, *told]

    with serving(command, folder, leave) as registry:
        yield registry


@contextmanager
def serving(
    command: Callable[[str], Sequence[str]],
    folder: Path,
    leave: Leave = remove,
    *,
    top: Path = TOP,
    ca: Path | None = None,
) -> Iterator[Registry]:
    """What `command` starts on the host that it is given, once it answers as a registry does."""
    with listening(command, folder, lambda host: _answers(host, ca), top=top) as (host, process):
        try:
            yield Registry(host, folder / "storage", folder / "access.log", process, ca)
        finally:
            end(process)
            leave(folder / "storage")


@contextmanager
def listening(
    command: Callable[[str], Sequence[str]],
    folder: Path,
    is_ready: Callable[[str], bool] = takes_connections,
    *,
    top: Path = TOP,
) -> Iterator[tuple[str, Process]]:
    """What `command` starts on the host that it is given, once that is ready: the host and the process, which
    is ended with the context. What it prints goes to access.log and errors.log in `folder`.

    Raises RuntimeError, with what it said, if it ends before or takes too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{reserve_port()}"
    with (folder / "access.log").open("ab") as log, (folder / "errors.log").open("ab") as errors:
        words, kept = command(host), environment(folder)
        warm = start_warm(words, kept, log, errors) if top == TOP else None
        process: Process = warm or subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=errors, cwd=top, env=kept
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while process.poll() is None and not is_ready(host) and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is not None or time.monotonic() >= deadline:
            raise RuntimeError(f"no server came up: {(folder / 'errors.log').read_text()}")
        yield host, process
    finally:
        end(process)


def end(process: Process) -> None:
    """Ask a process to end, and kill it if it does not."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _connection(host: str, seconds: float, ca: Path | None) -> http.client.HTTPConnection:
    """A connection not yet made, over TLS where `ca` is trusted for it."""
    if ca is None:
        return http.client.HTTPConnection(host, timeout=seconds)
    trusting = ssl.create_default_context(cafile=str(ca))
    return http.client.HTTPSConnection(host, timeout=seconds, context=trusting)


def _answers(host: str, ca: Path | None) -> bool:
    """Whether a registry answers there."""
    connection = _connection(host, READY_SECONDS, ca)
    try:
        connection.request("GET", "/v2/?probe=ready")
        return connection.getresponse().status == 200
    except ConnectionError:
        return False
    finally:
        connection.close()


class Run(msgspec.Struct, frozen=True):
    """A program that ended. Seconds of wall and of CPU (user and system), bytes of peak resident memory."""

    code: int
    out: str
    err: str
    wall: float
    cpu: float
    peak: int


def run(
    command: Sequence[str],
    home: Path,
    seconds: float = RUN_SECONDS,
    *,
    top: Path = TOP,
    variables: Mapping[str, str] | None = None,
) -> Run:
    """Run a program in the folder `top` to its end, with `home` for all that it keeps: caches, state,
    credentials.

    It is started by measure.py, whose figures are the program's alone: Linux hands the peak of the process
    that starts a program on to it, and ours may be large.
    """
    measure = [sys.executable, "-S", "-E", str(TOP / "tools/measure.py")]
    with (
        tempfile.NamedTemporaryFile(prefix="measured-") as figures,
        subprocess.Popen(
            [*measure, figures.name, *command],
            cwd=top,
            env=environment(home) | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Run(process.returncode, out, err, **json.loads(figures.read()))


def blobflow(*arguments: str | Path, home: Path, variables: Mapping[str, str] | None = None) -> Run:
    """Run blobflow as a user does, as a process of its own, with some more `variables` if they are given.

    Each verb starts as users start it the first time, and after that off a warm Python, whose memory counts
    in `peak`: what is to be measured is for `run`.
    """
    words = [*map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start_warm([*BLOBFLOW, *words], environment(home) | dict(variables or {}), out, err)
        if process is None:
            return run([*BLOBFLOW, *words], home, variables=variables)
        try:
            code = process.wait(RUN_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        out.seek(0)
        err.seek(0)
        told = out.read().decode(), err.read().decode()
        return Run(code if code >= 0 else 128 - code, *told, **process.figures)


def start_warm(
    command: Sequence[str], environment: Mapping[str, str], out: IO[Any], err: IO[Any]
) -> WarmProcess | None:
    """See `start`; None also if it is not our blobflow."""
    ours = tuple(command[: len(BLOBFLOW)]) == BLOBFLOW
    return start(command[len(BLOBFLOW) :], environment, out, err) if ours else None


def skopeo(*arguments: str | Path, home: Path) -> Run:
    """Run skopeo, accepting unsigned images as its policy may not."""
    program = shutil.which("skopeo") or "skopeo"
    return run([program, "--insecure-policy", *map(str, arguments)], home)


def environment(home: Path) -> dict[str, str]:
    """This process's environment with every place for keeping things turned to `home`, and no proxies."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    places = {
        "HOME": "",
        "XDG_CACHE_HOME": "cache",
        "XDG_CONFIG_HOME": "config",
        "XDG_DATA_HOME": "data",
        "XDG_STATE_HOME": "state",
        "XDG_RUNTIME_DIR": "run",
        "DOCKER_CONFIG": "docker",
    }
    for folder in places.values():
        (home / folder).mkdir(parents=True, exist_ok=True)
    return kept | {key: str(home / folder) for key, folder in places.items()} | {"TERM": "dumb"}
