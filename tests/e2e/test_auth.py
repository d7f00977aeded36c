"""Getting in, with real locks: logins, tokens, certificates, proxies and mirrors, set up as by their owners.

A source without a lock holds the sample set; it goes to a docker-registry behind each lock. What arrived is
told by that registry's own storage. `Secrets` are looked for in everything that any run said or left.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.e2e.conftest import StartsRegistries
from tests.e2e.servers.forward_proxy import forward_proxy
from tests.e2e.servers.locked_registry import (
    Authority,
    KeyFiles,
    Locked,
    Told,
    blobflow,
    locked_registry,
    nginx,
    nginx_program,
    self_signed,
    skopeo,
)
from tests.e2e.servers.token_server import token_server
from tools import imageset
from tools.processes import Registry, docker_registry

PLACES = "IP:127.0.0.1,DNS:registry.test"
USER, PASSWORD, REFRESH = "joe", "correct-horse:battery", "refresh-4f1d2c7a9e"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, REFRESH, BASIC, "Bearer ey")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl (Debian: apt-get install openssl)")
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def server_keys(authority: Authority) -> KeyFiles:
    return authority.issue("registry", PLACES)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> imageset.Layout:
    """Three images with layers in common: enough for a mount."""
    return imageset.synthetic(tmp_path_factory.mktemp("images") / "set", seed=1, images=3)


@pytest.fixture(scope="module")
def source(
    programs: None, images: imageset.Layout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("source")) as registry:
        imageset.push(images.path, registry.host)
        yield registry


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    file = tmp_path / "htpasswd"
    file.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    return file


@pytest.fixture
def locked(programs: None, tmp_path: Path, server_keys: KeyFiles, htpasswd: Path) -> Iterator[Locked]:
    """TLS by a private authority, and htpasswd."""
    auth = {"htpasswd": {"realm": "locked", "path": str(htpasswd)}}
    with locked_registry(tmp_path / "locked", server_keys, auth) as registry:
        yield registry


@pytest.fixture
def login_file(tmp_path: Path) -> Path:
    file = tmp_path / "creds"
    file.write_text(f"{USER}:{PASSWORD}\n")
    return file


def everything(source: Registry, target: str, layout: imageset.Layout) -> list[str]:
    return ["--from", source.host, "--to", f"{target}/mirror", "--images", str(layout.path / "images.txt")]


def arrived(registry: Locked, layout: imageset.Layout) -> bool:
    return all(
        registry.digest_of(f"mirror/{image.repository}", image.tag) == image.digest
        for image in layout.images.values()
    )


def assert_no_secret(home: Path, *runs: Told, kept: tuple[Path, ...] = ()) -> None:
    """Nothing that was said, and no file under `home` but those `kept`, has a secret in it."""
    for run in runs:
        for secret in SECRETS:
            assert secret not in run.out + run.err
    for file in home.rglob("*"):
        if file.is_file() and file not in kept:
            content = file.read_bytes()
            assert not [secret for secret in SECRETS if secret.encode() in content], file


def test_htpasswd_over_tls_with_a_private_authority(
    locked: Locked, source: Registry, images: imageset.Layout, authority: Authority, home: Path
) -> None:
    log_in = ("login", locked.host, "-u", USER, "--password-stdin", "-v")
    everywhere = everything(source, locked.host, images)

    stranger = blobflow(*log_in, "--config", _config(home, locked.host), home=home, given=PASSWORD)
    assert (stranger.code, "certificate that is not trusted" in stranger.err) == (4, True)
    wrong = blobflow(*log_in, "--ca", authority.pem, home=home, given="wrong")
    assert (wrong.code, f"does not accept the login of '{USER}'" in wrong.err) == (5, True)
    kept = home / "docker" / "config.json"
    assert not kept.exists()

    entered = blobflow(*log_in, "--ca", authority.pem, home=home, given=f"{PASSWORD}\n")
    assert (entered.code, entered.out) == (
        0,
        f"logged in to {locked.host} as {USER}; kept in {kept}, not encrypted\n",
    )
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text()) == {"auths": {locked.host: {"auth": BASIC}}}
    synced = blobflow("sync", *everywhere, "--ca", authority.pem, "-v", home=home)
    assert synced.code == 0, synced.err
    assert arrived(locked, images)

    left = blobflow("logout", locked.host, home=home)
    assert left.out == f"logged out of {locked.host}\n"
    assert json.loads(kept.read_text()) == {"auths": {}}
    telling = {"BLOBFLOW_DEBUG": "1"}  # tracebacks
    outside = blobflow("verify", *everywhere, "--ca", authority.pem, home=home, variables=telling)
    assert (outside.code, outside.out.count(f"blobflow login {locked.host}")) == (3, len(images.images))
    assert_no_secret(home, stranger, wrong, entered, synced, left, outside)


def test_the_system_s_trust_is_where_openssl_looks_for_it(
    locked: Locked,
    source: Registry,
    images: imageset.Layout,
    authority: Authority,
    home: Path,
    login_file: Path,
) -> None:
    """The certificates that a process of ours does not load as it starts are there when TLS is spoken."""
    config = _config(home, locked.host)
    everywhere = everything(source, locked.host, images)
    sync: list[str | Path] = ["sync", *everywhere, "--config", config, "--target-creds", f"@{login_file}"]
    stranger = blobflow(*sync, home=home)
    assert (stranger.code, "certificate that is not trusted" in stranger.out + stranger.err) == (3, True)
    told = blobflow(*sync, home=home, variables={"SSL_CERT_FILE": str(authority.pem)})
    assert told.code == 0, told.err
    assert arrived(locked, images)


def _config(home: Path, host: str, **keys: object) -> Path:
    """A configuration file with one host, spoken to by TLS."""
    home.mkdir(exist_ok=True)
    file = home / "blobflow.toml"
    lines = [f'[registry."{host}"]', "http = false", *(f"{key} = {json.dumps(keys[key])}" for key in keys)]
    file.write_text("\n".join(lines))
    return file


def test_logins_of_other_tools_are_ours_and_ours_are_theirs(
    locked: Locked, source: Registry, images: imageset.Layout, authority: Authority, home: Path
) -> None:
    certs = home / ".config" / "containers" / "certs.d" / locked.host
    certs.mkdir(parents=True)
    shutil.copy(authority.pem, certs / "ca.crt")
    image, *_ = images.images.values()
    theirs, ours = home / "theirs.json", home / "ours.json"
    entered = skopeo("login", locked.host, f"--authfile={theirs}", home=home, given=PASSWORD)
    assert entered.code == 0, entered.err
    copied = blobflow(
        *("copy", f"{source.host}/{image.name}", f"{locked.host}/team/{image.name}"),
        home=home,
        variables={"REGISTRY_AUTH_FILE": str(theirs)},
    )
    assert copied.code == 0, copied.err
    log_in = ("login", locked.host, "-u", USER, "--password-stdin")
    kept = blobflow(*log_in, home=home, given=PASSWORD, variables={"REGISTRY_AUTH_FILE": str(ours)})
    assert f"kept in {ours}" in kept.out
    seen = skopeo(
        "inspect", "--raw", f"--authfile={ours}", f"docker://{locked.host}/team/{image.name}", home=home
    )
    assert seen.code == 0, seen.err
    assert json.loads(ours.read_text()) == json.loads(theirs.read_text())


def test_a_folder_of_certificates_and_a_login_in_a_file_are_enough(
    locked: Locked,
    source: Registry,
    images: imageset.Layout,
    authority: Authority,
    home: Path,
    login_file: Path,
) -> None:
    certs = home / "config" / "containers" / "certs.d" / locked.host
    certs.mkdir(parents=True)
    shutil.copy(authority.pem, certs / "ca.crt")
    arguments = everything(source, locked.host, images)
    report = home / "report.json"
    synced = blobflow(
        *("sync", *arguments, "--target-creds", f"@{login_file}"),
        *("--report", report, "-v", "--log-format", "json"),
        home=home,
    )
    assert synced.code == 0, synced.err
    assert arrived(locked, images)
    assert_no_secret(home, synced)


HELPER = """\
#!/bin/sh
# A credential helper as docker's: one login in a file of its own.
echo "$@" >>{home}/asked
case "$1" in
    get) cat >/dev/null
         cat {home}/vault 2>/dev/null || {{ echo "credentials not found in native keychain"; exit 1; }} ;;
    store) cat >{home}/vault ;;
    erase) cat >/dev/null; rm {home}/vault ;;
esac
"""


def test_a_credential_program_keeps_the_login_and_gives_it(
    locked: Locked, source: Registry, images: imageset.Layout, authority: Authority, home: Path
) -> None:
    program = home / "bin" / "docker-credential-vault"
    program.parent.mkdir(parents=True)
    program.write_text(HELPER.format(home=home))
    program.chmod(0o755)
    config = home / "docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"credHelpers": {locked.host: "vault"}, "theme": "dark"}))
    variables = {"PATH": f"{program.parent}:/usr/bin:/bin", "BLOBFLOW_CA": str(authority.pem)}

    log_in = ("login", locked.host, "-u", USER, "--password-stdin")
    entered = blobflow(*log_in, home=home, given=PASSWORD, variables=variables)
    assert entered.code == 0, entered.err
    assert entered.out == f"logged in to {locked.host} as {USER}; kept in docker-credential-vault\n"
    vault = json.loads((home / "vault").read_text())
    assert vault == {"ServerURL": locked.host, "Username": USER, "Secret": PASSWORD}
    everywhere = everything(source, locked.host, images)
    synced = blobflow("sync", *everywhere, "-v", home=home, variables=variables)
    assert synced.code == 0, synced.err
    assert arrived(locked, images)
    assert (home / "asked").read_text().split() == ["store", "get"]  # once a run, not once a repository
    assert_no_secret(home, entered, synced, kept=(home / "vault",))

    blobflow("logout", locked.host, home=home, variables=variables)
    assert not (home / "vault").exists()
    assert json.loads(config.read_text()) == {"credHelpers": {locked.host: "vault"}, "theme": "dark"}


def test_a_credential_program_that_fails_keeps_nobody_from_what_anybody_may_read(
    programs: None,
    source: Registry,
    images: imageset.Layout,
    authority: Authority,
    server_keys: KeyFiles,
    home: Path,
    tmp_path: Path,
) -> None:
    image, *_ = images.images.values()
    program, config = home / "bin" / "docker-credential-x", home / "docker" / "config.json"
    for file in (program, config):
        file.parent.mkdir(parents=True)
    variables = {"PATH": f"{program.parent}:/usr/bin:/bin", "BLOBFLOW_CA": str(authority.pem)}
    signer = self_signed(tmp_path, "signer")

    def helper(script: str) -> None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    with (
        token_server(signer, server_keys, user=USER, password=PASSWORD, refresh=REFRESH) as tokens,
        locked_registry(tmp_path / "locked", server_keys, tokens.registry_auth()) as locked,
    ):
        config.write_text(json.dumps({"auths": {locked.host: {"auth": BASIC.rstrip("=")}}}))
        places = [f"{locked.host}/{room}/app:1" for room in ("public", "private")]
        copied = blobflow("copy", f"{source.host}/{image.name}", *places, home=home, variables=variables)
        assert copied.code == 0, copied.err

        config.write_text('{"credsStore": "x"}')
        for script, words in {
            "": "can't run the credential helper docker-credential-x: No such file or directory",
            f"cat >/dev/null; echo no bus >&2; echo {PASSWORD}; exit 1": "ended with status 1: no bus",
            "exit 3": "ended with status 3",
        }.items():
            if script:
                helper(script)
            public, private = (blobflow("inspect", place, home=home, variables=variables) for place in places)
            assert (public.code, public.err.count(words)) == (0, 1), public.err
            assert f"{locked.host} is asked without a login: {config}: " in public.err
            assert private.code == 5, private.err
            assert words in private.err.splitlines()[-1]
            assert_no_secret(tmp_path / "nothing", public, private)
        helper(f"""echo '{{"Username": "{USER}", "Secret": "{PASSWORD}"}}'""")
        for _ in range(5):  # it does not read what it is given
            told = blobflow("inspect", places[1], home=home, variables=variables)
            assert (told.code, "without a login" in told.err) == (0, False), told.err


@pytest.mark.parametrize("way", ["GET", "POST"])
def test_a_token_server_is_asked_once_for_what_a_repository_needs(
    way: str,
    programs: None,
    source: Registry,
    images: imageset.Layout,
    authority: Authority,
    server_keys: KeyFiles,
    home: Path,
    tmp_path: Path,
) -> None:
    signer = self_signed(tmp_path, "signer")
    with (
        token_server(signer, server_keys, user=USER, password=PASSWORD, refresh=REFRESH) as tokens,
        locked_registry(tmp_path / "locked", server_keys, tokens.registry_auth()) as locked,
    ):
        config = home / "docker" / "config.json"
        config.parent.mkdir(parents=True)
        entry = {"auth": BASIC} if way == "GET" else {"identitytoken": REFRESH}
        config.write_text(json.dumps({"auths": {locked.host: entry}}))
        variables = {"BLOBFLOW_CA": str(authority.pem)}

        everywhere = everything(source, locked.host, images)
        synced = blobflow("sync", *everywhere, "-v", home=home, variables=variables)
        assert synced.code == 0, synced.err
        assert arrived(locked, images)
        assert {(grant.user, grant.method) for grant in tokens.granted} == {(USER, way)}
        asked = [frozenset(grant.scopes) for grant in tokens.granted]
        assert len(asked) == len(set(asked))
        assert any(len(scopes) == 2 for scopes in asked)  # a mount: to push here, to pull there
        assert tokens.refused == 0

        config.unlink()
        anybody = blobflow("verify", *everywhere, home=home, variables=variables)
        assert anybody.code == 3
        assert tokens.granted[-1].user == ""
        assert_no_secret(home, synced, anybody)


def test_client_certificates_and_locations_of_a_registry_behind_a_tls_proxy(
    programs: None,
    source: Registry,
    images: imageset.Layout,
    authority: Authority,
    server_keys: KeyFiles,
    home: Path,
    tmp_path: Path,
    htpasswd: Path,
    login_file: Path,
) -> None:
    if nginx_program() is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    mine = authority.issue("client")
    auth = {"htpasswd": {"realm": "locked", "path": str(htpasswd)}}
    with (
        locked_registry(tmp_path / "behind", auth=auth) as behind,
        nginx(tmp_path / "nginx", behind.host, server_keys, authority.pem) as front,
    ):
        trusted = ("--ca", str(authority.pem), "--target-creds", f"@{login_file}")
        arguments = [*everything(source, front, images), *trusted]
        without = blobflow("sync", *arguments, home=home)
        assert (without.code, f"{front} refused" in without.err) == (3, True), without.err
        shown = ("--cert", mine.cert, "--key", mine.key)
        synced = blobflow("sync", *arguments, *shown, "-v", home=home)
        assert synced.code == 0, synced.err
        assert arrived(behind, images)
        # What the registry answered with would have led out of TLS.
        told = (tmp_path / "nginx" / "locations.log").read_text()
        assert f"POST 202 location=http://{front}/v2/mirror/" in told
        assert "http://" not in synced.err.replace(f"http://{source.host}", "")
        assert_no_secret(home, without, synced)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_forward_proxy_that_alone_knows_the_registry_s_name(
    scheme: str,
    programs: None,
    source: Registry,
    images: imageset.Layout,
    authority: Authority,
    server_keys: KeyFiles,
    home: Path,
    tmp_path: Path,
    htpasswd: Path,
    login_file: Path,
) -> None:
    auth = {"htpasswd": {"realm": "locked", "path": str(htpasswd)}}
    with locked_registry(tmp_path / "far", server_keys if scheme == "https" else None, auth) as far:
        name = f"registry.test:{far.host.rpartition(':')[2]}"
        login = f"mole:{REFRESH}"
        with forward_proxy({name: far.host}, login) as proxy:
            variable = f"{scheme.upper()}_PROXY"
            arguments = [*everything(source, name, images), "--target-creds", f"@{login_file}"]
            arguments += ["--ca", str(authority.pem)] if scheme == "https" else ["--plain-http", name]
            inside = {variable: f"http://{login}@{proxy.host}"}
            synced = blobflow("sync", *arguments, "-v", home=home, variables=inside)
            assert synced.code == 0, synced.err
            assert arrived(far, images)
            # The source is on loopback: it was asked without the proxy.
            assert {host for _, host in proxy.asked} == {name}
            methods = {method for method, _ in proxy.asked}
            assert methods == {"CONNECT"} if scheme == "https" else methods > {"HEAD", "PUT"}
            assert proxy.turned_away == 0

            stranger = blobflow("sync", *arguments, home=home, variables={variable: f"http://{proxy.host}"})
            assert (stranger.code, "407" in stranger.err) == (3, True), stranger.err
            assert_no_secret(home, synced, stranger)


def test_a_mirror_is_read_first_and_the_registry_itself_for_what_it_lacks(
    start_registry: StartsRegistries, source: Registry, images: imageset.Layout, home: Path
) -> None:
    near, target = start_registry("near"), start_registry("target")
    first, *others = images.images.values()
    filled = blobflow(
        "copy", f"{source.host}/{first.name}", f"{near.host}/cache/{first.name}", home=home / "before"
    )
    assert filled.code == 0, filled.err
    home.mkdir(exist_ok=True)
    config = home / "config.toml"
    config.write_text(f'[registry."{source.host}"]\nmirrors = ["{near.host}/cache"]\n')
    arguments = [*everything(source, target.host, images), "--config", str(config)]
    source.forget()
    near.forget()
    synced = blobflow("sync", *arguments, home=home)
    assert synced.code == 0, synced.err
    for image in images.images.values():
        assert target.digest_of(f"mirror/{image.repository}", image.tag) == image.digest
    at_near, at_source = near.requests().reads_of_blobs(), source.requests().reads_of_blobs()
    assert at_near + at_source == Counter(images.blobs.keys())
    elsewhere = {digest for image in others for digest in image.blobs}
    assert first.blobs.keys() - elsewhere <= at_near.keys() <= first.blobs.keys()
    assert not near.requests().uploads()
