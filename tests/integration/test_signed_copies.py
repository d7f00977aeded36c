"""Policies on the command line: what is not signed as they want does not get to a target, and says why."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from blobflow.cli import cli
from blobflow.oci import Digest, Manifest
from blobflow.signatures.contract import FoundSignature
from tests.scenarios.signed_images import Content, item_of
from tests.scenarios.signed_registries import ServedRegistries, hang, load, served_registries
from tests.unit.signatures.signing import (
    ISSUER,
    Authority,
    Log,
    attestation_bundle,
    bundle,
    certificate_pem,
    der,
    dsse_entry,
    encoded,
    hashedrekord,
    message_bundle,
    payload,
    pem,
    private_key,
    sign,
    simple,
    statement,
    text,
)


class Signed(NamedTuple):
    """Registries, whose source has images that are signed well and badly, and a policy for them."""

    served: ServedRegistries
    folder: Path
    images: dict[str, Manifest]

    @property
    def policy(self) -> Path:
        return self.folder / "policy.json"

    def source(self, name: str) -> str:
        return f"{self.served.source.host}/{name}:1"

    def target(self, name: str) -> str:
        return f"{self.served.target.host}/m/{name}:1"

    def copy(self, name: str, *more: str, to: str = "") -> Result:
        return self.run("copy", self.source(name), self.target(to or name), *more)

    def run(self, *arguments: str) -> Result:
        self.served.forget()
        return CliRunner().invoke(cli, [*arguments])

    def judged(self, name: str, *more: str, to: str = "") -> Result:
        return self.copy(name, "--policy", str(self.policy), *more, to=to)


KEY, FORGED = private_key(), private_key("p256", 1)
ED25519 = private_key("ed25519")
AUTHORITY, LOG = Authority(), Log()
MAIL = "build@example.com"

# The images that a policy of keys, of a CA with a log, and of a CA alone is for.
GOOD = ("signed", "by-subject", "bundle", "bundle-of-ed25519", "certified/app", "certified/bundle")

# What is wrong with an image, and what is said of it.
ATTACKS = {
    "unsigned": "no signature was found",
    "wrong-key": "it is not by key 1",
    "other-digest": "it is for sha256:",
    "other-repository": "it names ",
    "copied-signature": "it is for sha256:",
    "changed-payload": "it is not by key 1",
    "no-json": "does not count",
    "no-payload": "no signature was found",
    "bundle-wrong-key": "it is not by key 1",
    "bundle-other-digest": "it is for sha256:",
    "bundle-of-provenance": "it attests something about the image (https://slsa.dev/provenance/v1)",
    "bundle-no-json": "does not count",
    "certified/alike": f"not of {MAIL}",
    "certified/other-bytes": "its log entry is for other bytes",
    "issued/expired": "no timestamp says that it was signed before",
}


def certified(name: str, digest: Digest, *, mail: str = MAIL, logged: bytes | None = None) -> FoundSignature:
    """A payload signed with a certificate, and what a log was told of it."""
    content, leaf = payload(digest, name), AUTHORITY.issue(KEY, x509.RFC822Name(mail), issuer=ISSUER)
    signature = sign(KEY, content)
    body = hashedrekord(content if logged is None else logged, signature, certificate_pem(leaf))
    return simple(
        KEY,
        content,
        signature,
        certificate=certificate_pem(leaf).decode(),
        chain=certificate_pem(AUTHORITY.intermediate, AUTHORITY.root).decode(),
        bundle=LOG.annotation(body),
    )


def certified_bundle(digest: Digest) -> FoundSignature:
    content, leaf = statement(digest), AUTHORITY.issue(KEY, x509.RFC822Name(MAIL), issuer=ISSUER)
    signature = sign(KEY, encoded(content))
    entry = LOG.entries(dsse_entry(content, signature, certificate_pem(leaf)))
    chain = {"certificates": [{"rawBytes": der(each)} for each in (leaf, AUTHORITY.intermediate)]}
    return bundle(
        attestation_bundle(KEY, content, signature, x509CertificateChain=chain, tlogEntries=[entry])
    )


def _policy(host: str) -> dict[str, Any]:
    """Keys for all, a CA and a log for some, and for others a CA of one's own."""
    identity = {"signedIdentity": {"type": "matchRepository"}}
    keys = {"type": "sigstoreSigned", "keyDatas": [text(pem(KEY)), text(pem(ED25519))], **identity}
    root = text(certificate_pem(AUTHORITY.root))
    fulcio = {"caData": root, "oidcIssuer": ISSUER, "subjectEmail": MAIL}
    logged = {
        "type": "sigstoreSigned",
        "fulcio": fulcio,
        "rekorPublicKeyData": text(pem(LOG.key)),
        **identity,
    }
    issued = {"type": "sigstoreSigned", "pki": {"caRootsData": root, "subjectEmail": MAIL}, **identity}
    docker = {host: [keys], f"{host}/certified": [logged], f"{host}/issued": [issued]}
    return {"default": [{"type": "reject"}], "transports": {"docker": docker}}


def _signatures(name: str, host: str, made: Manifest, other: Manifest) -> list[FoundSignature]:
    """What is to hang on the image of this name; `other`: one that is signed well."""
    full, digest, others = f"{host}/{name}", made.descriptor.digest, other.descriptor.digest
    words = payload(digest, full)
    found: dict[str, Callable[[], FoundSignature]] = {
        "wrong-key": lambda: simple(FORGED, words),
        "other-digest": lambda: simple(KEY, payload(others, full)),
        "other-repository": lambda: simple(KEY, payload(digest, "registry.example.com/app")),
        "copied-signature": lambda: simple(KEY, payload(others, f"{host}/signed")),
        "changed-payload": lambda: simple(KEY, words, sign(KEY, words + b" ")),
        "no-json": lambda: simple(KEY, words[1:]),
        "bundle": lambda: bundle(attestation_bundle(KEY, statement(digest))),
        "bundle-of-ed25519": lambda: bundle(message_bundle(ED25519, made.raw)),
        "bundle-wrong-key": lambda: bundle(attestation_bundle(FORGED, statement(digest))),
        "bundle-other-digest": lambda: bundle(attestation_bundle(KEY, statement(others))),
        "bundle-of-provenance": lambda: bundle(
            attestation_bundle(KEY, statement(digest, predicate_type="https://slsa.dev/provenance/v1"))
        ),
        "bundle-no-json": lambda: FoundSignature("bundle", digest, b"[", digest, "api"),
        "certified/app": lambda: certified(full, digest),
        "certified/bundle": lambda: certified_bundle(digest),
        "certified/alike": lambda: certified(full, digest, mail=f"{MAIL}.evil.example"),
        "certified/other-bytes": lambda: certified(full, digest, logged=b"other bytes"),
        "issued/expired": lambda: certified(full, digest),
    }
    return [] if name == "unsigned" else [found.get(name, lambda: simple(KEY, words))()]


def _fill(served: ServedRegistries) -> dict[str, Manifest]:
    """Put the images at the source, each in a repository of its name."""
    host, images = served.source.host, dict[str, Manifest]()
    for name in (*GOOD, *ATTACKS, "index"):
        content = Content()
        if name == "index":
            made = content.index({each: content.image(each) for each in ("amd64", "arm64")}, "1")
        else:
            made = content.image(name)
            content.tags["1"] = made.descriptor.digest
        images[name] = made
        found = _signatures(name, host, made, images["signed"])
        hang(content, made, *found, by_subject=name == "by-subject")
        if name == "no-payload":
            del content.blobs[found[0].digest]
        load(served.source.store, name, content)
    return images


@pytest.fixture(scope="module")
def registries_of_signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    folder = tmp_path_factory.mktemp("signed")
    with served_registries(folder) as served:
        images = served.call(lambda: _fill(served))
        (folder / "policy.json").write_text(json.dumps(_policy(served.source.host)))
        yield Signed(served, folder, images)


@pytest.fixture
def signed(registries_of_signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "BLOBFLOW_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return registries_of_signed


def sentence(done: Result) -> str:
    """The one sentence that a run ended with."""
    [line] = [line for line in done.stderr.splitlines() if line]
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_signed_right_is_refused_and_nothing_is_put(signed: Signed, attack: str) -> None:
    done = signed.judged(attack)
    assert done.exit_code == 9, done.output
    said = sentence(done)
    assert signed.source(attack) in said
    assert ATTACKS[attack] in said
    assert signed.served.writes == 0
    assert signed.served.named(f"m/{attack}", "1") is None


@pytest.mark.parametrize("name", GOOD)
def test_what_is_signed_right_is_copied_with_its_signature(signed: Signed, name: str) -> None:
    done = signed.judged(name)
    assert done.exit_code == 0, done.output
    digest = signed.images[name].descriptor.digest
    assert signed.served.named(f"m/{name}", "1") == digest
    if name == "signed":
        assert signed.served.named(f"m/{name}", digest.replace(":", "-") + ".sig") is not None


def hung_image(signed: Signed, name: str, how: str) -> Digest:
    """Put an image at the source that is signed well, with another one hung on it, which is not."""
    content = Content()
    made, hung = content.image(name), content.image(f"hung by {name}")
    content.tags["1"] = made.descriptor.digest
    hang(content, made, simple(KEY, payload(made.descriptor.digest, f"{signed.served.source.host}/{name}")))
    if how == "tag":
        content.tags[made.descriptor.digest.replace(":", "-") + ".att"] = hung.descriptor.digest
    else:
        listed = content.index({"amd64": hung}) if how == "index" else hung
        document = {**json.loads(listed.raw), "subject": item_of(made.descriptor)}
        hung = content.manifest(document, listed.descriptor.media_type)
    signed.served.load(name, content)
    return hung.descriptor.digest


@pytest.mark.parametrize("how", ["subject", "index", "tag"])
def test_an_image_that_hangs_on_an_accepted_one_does_not_come_along(
    signed: Signed, tmp_path: Path, how: str
) -> None:
    name, report = f"hung-{how}", tmp_path / "report.json"
    hung = hung_image(signed, name, how)
    done = signed.judged(name, "--report", str(report))
    assert done.exit_code == 0, done.output
    [image] = json.loads(report.read_bytes())["images"]
    [left] = [each for each in image["referrers"] if each["digest"] == hung]
    assert "it is an image, which the signature policy has not accepted" in left["left"]
    assert not signed.served.holds(f"m/{name}", hung)
    assert signed.copy(name, to=f"{name}-unjudged").exit_code == 0
    assert signed.served.holds(f"m/{name}-unjudged", hung)


def test_the_target_s_tag_stays_what_it_was(signed: Signed) -> None:
    assert signed.judged("signed", to="kept").exit_code == 0
    assert signed.judged("wrong-key", to="kept").exit_code == 9
    assert signed.served.writes == 0
    assert signed.served.named("m/kept", "1") == signed.images["signed"].descriptor.digest


def test_the_report_has_the_key_and_the_signature(signed: Signed, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = signed.judged("index", "--report", str(report))
    assert done.exit_code == 0, done.output
    [image] = json.loads(report.read_bytes())["images"]
    [verdict] = image["signatures"]
    assert verdict["digest"] == image["source_digest"] == signed.images["index"].descriptor.digest
    assert verdict["scope"] == signed.served.source.host
    [met] = verdict["acceptances"]
    assert met["requirement"] == "sigstoreSigned"
    assert met["by"]
    assert met["signature"].startswith("sha256:")
    assert met["manifest"].startswith("sha256:")


def test_all_wants_each_platform_signed_too(signed: Signed) -> None:
    done = signed.judged("index", "--policy-for", "all", to="all")
    assert done.exit_code == 9
    assert "no signature was found" in sentence(done)
    assert signed.served.writes == 0


def test_of_a_set_the_rejected_ones_fail_alone(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("signed:1\nunsigned:1\nwrong-key:1\n")
    places = ("--from", signed.served.source.host, "--to", f"{signed.served.target.host}/set")
    arguments = (*places, "--images", str(tmp_path / "list.txt"), "--policy", str(signed.policy))
    planned = signed.run("plan", *arguments, "-v")
    assert planned.exit_code == 3
    assert planned.stdout.count("failed: source: ") == 2
    assert "signed by" in planned.stdout
    assert signed.served.writes == 0

    done = signed.run("sync", *arguments)
    assert done.exit_code == 3
    assert "3 images: 1 done, 2 failed" in done.stdout
    assert signed.served.named("set/signed", "1") is not None
    assert signed.served.named("set/unsigned", "1") is None


def test_unchanged_it_costs_no_request_more_than_without_a_policy(signed: Signed) -> None:
    assert signed.copy("signed", to="often").exit_code == 0
    assert signed.copy("signed", to="often").exit_code == 0
    plain = signed.served.requests
    assert signed.judged("signed", to="often").exit_code == 0
    assert signed.served.requests > plain, "put without the policy, it is judged now"
    assert signed.judged("signed", to="often").exit_code == 0
    assert signed.served.requests == plain


def test_a_dry_run_says_what_would_be_rejected(signed: Signed) -> None:
    done = signed.judged("unsigned", "--dry-run")
    assert done.exit_code == 9
    assert "failed: source: " in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can't read the signature policy"),
        ("{", "policy.json"),
        ('{"default": [{"type": "reject"}], "more": 1}', "more"),
        ('{"default": [{"type": "sigstoreSigned", "keyPath": "/nowhere.pub"}]}', "/nowhere.pub"),
    ],
)
def test_a_policy_that_can_t_be_used_stops_the_run_before_any_request(
    signed: Signed, tmp_path: Path, text: str | None, said: str
) -> None:
    policy = tmp_path / "policy.json"
    if text is not None:
        policy.write_text(text)
    for verb in ("copy", "copy --dry-run", "sync --images -"):
        words = verb.split()
        places = (
            ("--from", signed.served.source.host, "--to", signed.served.target.host)
            if words[0] == "sync"
            else (signed.source("signed"), signed.target("signed"))
        )
        signed.served.forget()
        done = CliRunner().invoke(cli, [*words, *places, "--policy", str(policy)], input="signed:1\n")
        assert done.exit_code == 2, done.output
        assert said in done.stderr
        assert signed.served.requests == 0


def test_options_about_a_policy_need_one(signed: Signed) -> None:
    done = signed.copy("signed", "--policy-for", "all")
    assert (done.exit_code, signed.served.requests) == (2, 0)
    assert "--policy FILE" in done.stderr


@pytest.mark.parametrize("output", ["type=local,dest={}/out", "type=oci,dest={}/out", "type=cacheonly"])
def test_an_export_is_a_copy(signed: Signed, tmp_path: Path, output: str) -> None:
    arguments = ("--output", output.format(tmp_path), "--policy", str(signed.policy))
    done = signed.run("export", signed.source("wrong-key"), *arguments)
    assert done.exit_code == 9, done.output
    assert "it is not by key 1" in sentence(done)
    assert not (tmp_path / "out").exists()


def test_a_bundle_has_only_what_is_accepted(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("signed:1\n")
    bundle_file = tmp_path / "bundle.tar"
    arguments = ("save", "--from", signed.served.source.host, "--images", str(tmp_path / "list.txt"))
    assert signed.run(*arguments, "-o", str(bundle_file), "--policy", str(signed.policy)).exit_code == 0
    bundle_file.unlink()
    (tmp_path / "list.txt").write_text("unsigned:1\n")
    done = signed.run(*arguments, "-o", str(bundle_file), "--policy", str(signed.policy))
    assert done.exit_code == 3
    assert "no signature was found" in done.stderr
    assert not bundle_file.exists()


def test_a_layout_is_judged_by_its_path_and_the_names_that_it_has(signed: Signed, tmp_path: Path) -> None:
    name = f"{signed.served.source.host}/signed:1"
    assert signed.run("copy", signed.source("signed"), f"oci:{tmp_path}/layout:{name}").exit_code == 0
    assert (
        signed.run("copy", signed.source("signed"), f"oci:{tmp_path}/layout:example.com/b:1").exit_code == 0
    )
    policy = _policy(signed.served.source.host)
    keys = policy["transports"]["docker"][signed.served.source.host]
    policy["transports"] = {"oci": {str(tmp_path / "layout"): keys}}
    own = tmp_path / "policy.json"
    own.write_text(json.dumps(policy))
    for called, code in ((name, 0), ("example.com/b:1", 9)):
        done = signed.run(
            "copy", f"oci:{tmp_path}/layout:{called}", signed.target("laid"), "--policy", str(own)
        )
        assert done.exit_code == code, done.output
    assert f'it names "{name[:-2]}", and the policy wants example.com/b' in sentence(done)
    shutil.copytree(tmp_path / "layout", tmp_path / "elsewhere")
    done = signed.run("copy", f"oci:{tmp_path}/elsewhere:{name}", signed.target("laid"), "--policy", str(own))
    assert "(scope default): it rejects every image" in sentence(done)


# Where else it may stand


def _spec(signed: Signed, folder: Path, *images: str, defaults: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    spec = folder / "mirror.yaml"
    head = f"source: {signed.served.source.host}, targets: [{signed.served.target.host}/spec]{defaults}"
    spec.write_text(
        f"version: 1\ndefaults: {{{head}}}\nimages:\n" + "".join(f"- {each}\n" for each in images)
    )
    return spec


def test_a_spec_has_a_policy_for_all_or_for_one_image(signed: Signed, tmp_path: Path) -> None:
    folder = tmp_path / "spec"
    one = _spec(signed, folder, "unsigned:1", "{image: 'wrong-key:1', policy: strict/policy.json}")
    (folder / "strict").mkdir()
    shutil.copy(signed.policy, folder / "strict")
    done = signed.run("sync", str(one))
    assert done.exit_code == 3
    assert "2 images: 1 done, 1 failed" in done.stdout, "relative to the spec, wherever one is"

    both = _spec(signed, folder, "unsigned:1", "signed:1", defaults=", policy: strict/policy.json")
    assert "2 images: 1 done, 1 failed" in signed.run("sync", str(both)).stdout

    anything = tmp_path / "anything.json"
    anything.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    done = signed.run("sync", str(both), "--policy", str(anything))
    assert done.exit_code == 0, "an option goes before the spec"


def test_the_configuration_has_one_where_nothing_else_is_said(signed: Signed, tmp_path: Path) -> None:
    config = tmp_path / "etc" / "config.toml"
    config.parent.mkdir()
    shutil.copy(signed.policy, config.parent)
    config.write_text('[signatures]\npolicy = "policy.json"\n')
    assert signed.copy("unsigned", "--config", str(config), to="configured").exit_code == 9
    assert signed.served.writes == 0
    config.write_text('[signatures]\npolicy = "policy.json"\npolicy-for = "all"\n')
    done = signed.copy("unsigned", "--config", str(config))
    assert done.exit_code == 2
    assert "line 3: signatures: unknown key `policy-for`" in done.stderr


# Saved plans


@pytest.mark.parametrize("option", [False, True])
def test_of_a_plan_made_without_a_policy_all_is_judged_where_the_configuration_wants_all(
    signed: Signed, tmp_path: Path, option: bool
) -> None:
    saved, config = tmp_path / "plan.json", tmp_path / "config.toml"
    spec = _spec(signed, tmp_path / "plan", "index:1")
    assert signed.run("plan", str(spec), "--out", str(saved)).exit_code == 0
    config.write_text(f'[signatures]\npolicy = "{signed.policy}"\npolicy_for = "all"\n')
    more = ("--policy", str(signed.policy)) if option else ()
    done = signed.run("apply", str(saved), "--config", str(config), *more)
    assert done.exit_code == 3, done.output
    assert "no signature was found" in done.stderr
    assert signed.served.writes == 0


def test_a_plan_made_without_a_policy_brings_no_image_along_under_one(signed: Signed, tmp_path: Path) -> None:
    hung, saved = hung_image(signed, "hung-in-plan", "subject"), tmp_path / "plan.json"
    spec = _spec(signed, tmp_path / "plan", "hung-in-plan:1")
    assert signed.run("plan", str(spec), "--out", str(saved)).exit_code == 0
    done = signed.run("apply", str(saved), "--policy", str(signed.policy))
    assert done.exit_code == 3
    assert f"the plan brings the image {hung} along, which the signature policy has not" in done.stderr
    assert signed.served.writes == 0


def test_a_saved_plan_is_judged_again_under_its_policy_as_it_is_now(signed: Signed, tmp_path: Path) -> None:
    policy, saved = tmp_path / "policy.json", tmp_path / "plan.json"
    shutil.copy(signed.policy, policy)
    spec = _spec(signed, tmp_path / "plan", "signed:1", defaults=f", policy: {policy}")
    planned = signed.run("plan", str(spec), "--out", str(saved))
    assert planned.exit_code == 0, planned.output
    policy.write_text('{"default": [{"type": "reject"}]}')
    done = signed.run("apply", str(saved))
    assert done.exit_code == 3
    assert "it rejects every image" in done.stderr
    assert signed.served.writes == 0
    policy.unlink()
    done = signed.run("apply", str(saved))
    assert (done.exit_code, signed.served.requests) == (2, 0)
    done = signed.run("apply", str(saved), "--policy", str(signed.policy), "--policy-for", "all")
    assert done.exit_code == 2
    assert "--policy-for all: the plan was made otherwise" in done.stderr
    report = tmp_path / "report.json"
    done = signed.run("apply", str(saved), "--policy", str(signed.policy), "--report", str(report))
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_bytes())["images"][0]["signatures"]


# Others


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("name", ["signed", "unsigned", "wrong-key", "other-digest"])
def test_skopeo_says_the_same_of_the_same_policy(signed: Signed, tmp_path: Path, name: str) -> None:
    """Of a policy that Debian's can read, from before policies had several keys."""
    (tmp_path / "signer.pub").write_bytes(pem(KEY))
    required: dict[str, object] = {"type": "sigstoreSigned", "keyPath": str(tmp_path / "signer.pub")}
    required |= {"signedIdentity": {"type": "matchRepository"}}
    policy = tmp_path / "policy.json"
    docker = {signed.served.source.host: [required]}
    policy.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": docker}}))
    (tmp_path / "registries.d").mkdir()
    attachments: dict[str, Any] = {signed.served.source.host: {"use-sigstore-attachments": True}}
    (tmp_path / "registries.d" / "all.yaml").write_text(json.dumps({"docker": attachments}))
    theirs = subprocess.run(
        [
            *("skopeo", "--policy", str(policy), "--registries.d", str(tmp_path / "registries.d")),
            *("copy", "--src-tls-verify=false", "--remove-signatures"),
            *(f"docker://{signed.source(name)}", f"dir:{tmp_path / 'copied'}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "sigstore disabled" in theirs.stderr:
        pytest.skip("this skopeo was built without the verification of sigstore's signatures, as Debian's is")
    ours = signed.copy(name, "--policy", str(policy), to=f"skopeo/{name}")
    assert (theirs.returncode == 0) == (ours.exit_code == 0) == (name == "signed"), theirs.stderr
