"""Policies on the command line: what is not signed as they want does not get to a target, and says why."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.oci import Digest, Manifest
from tests.scenarios.signed_images import Content
from tests.scenarios.signed_registries import (
    ServedRegistries,
    Signer,
    key_policy,
    load,
    payload_for,
    served_registries,
)

pytest.importorskip("cryptography", reason="signatures are verified by the extra [verify]")


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


# What is wrong with an image, and what is said of it.
ATTACKS = {
    "unsigned": "no signature was found",
    "wrong-key": "does not count",
    "other-digest": "does not count",
    "other-repository": "does not count",
    "copied-signature": "does not count",
    "changed-payload": "does not count",
    "no-json": "does not count",
    "no-payload": "no signature was found",
}


def _fill(served: ServedRegistries, signer: Signer, stranger: Signer) -> dict[str, Manifest]:
    images: dict[str, Manifest] = {}

    def image(name: str) -> tuple[Content, Manifest, bytes]:
        content = Content()
        made = content.image(name)
        content.tags["1"] = made.descriptor.digest
        images[name] = made
        return content, made, payload_for(f"{served.source.host}/{name}", made.descriptor.digest)

    content, made, payload = image("signed")
    signer.sign(content, made, payload)
    load(served.source.store, "signed", content)
    signed_digest = made.descriptor.digest

    index = Content()
    images["index"] = whole = index.index({each: index.image(each) for each in ("amd64", "arm64")}, "1")
    signer.sign(index, whole, payload_for(f"{served.source.host}/index", whole.descriptor.digest))
    load(served.source.store, "index", index)

    for name in ATTACKS:
        content, made, payload = image(name)
        match name:
            case "unsigned":
                pass
            case "wrong-key":
                stranger.sign(content, made, payload)
            case "other-digest":
                signer.sign(content, made, payload_for(f"{served.source.host}/{name}", signed_digest))
            case "other-repository":
                signer.sign(content, made, payload_for("registry.example.com/app", made.descriptor.digest))
            case "copied-signature":
                signer.sign(content, made, payload_for(f"{served.source.host}/signed", signed_digest))
            case "changed-payload":
                signer.sign(content, made, payload, over=payload.replace(b"null", b"{}"))
            case "no-json":
                signer.sign(content, made, b"{" + payload)
            case "no-payload":
                signer.sign(content, made, payload)
                for digest in [digest for digest, blob in content.blobs.items() if blob == payload]:
                    del content.blobs[digest]
        load(served.source.store, name, content)
    return images


@pytest.fixture(scope="module")
def registries_of_signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    folder = tmp_path_factory.mktemp("signed")
    signer, stranger = Signer(), Signer()
    (folder / "signer.pub").write_bytes(signer.public)
    with served_registries(folder) as served:
        images = served.call(lambda: _fill(served, signer, stranger))
        policy = key_policy(folder / "signer.pub", served.source.host)
        (folder / "policy.json").write_text(json.dumps(policy))
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
    (tmp_path / "registries.d").mkdir()
    attachments: dict[str, Any] = {signed.served.source.host: {"use-sigstore-attachments": True}}
    (tmp_path / "registries.d" / "all.yaml").write_text(json.dumps({"docker": attachments}))
    theirs = subprocess.run(
        [
            *("skopeo", "--policy", str(signed.policy), "--registries.d", str(tmp_path / "registries.d")),
            *("copy", "--src-tls-verify=false", "--remove-signatures"),
            *(f"docker://{signed.source(name)}", f"dir:{tmp_path / 'copied'}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "sigstore disabled" in theirs.stderr:
        pytest.skip("this skopeo was built without the verification of sigstore's signatures, as Debian's is")
    ours = signed.judged(name, to=f"skopeo/{name}")
    assert (theirs.returncode == 0) == (ours.exit_code == 0) == (name == "signed"), theirs.stderr


def test_what_is_mirrored_carries_its_signature_for_who_verifies_there(signed: Signed) -> None:
    assert signed.judged("signed", to="carried").exit_code == 0
    tag = signed.images["signed"].descriptor.digest.replace(":", "-") + ".sig"
    found: Digest | None = signed.served.named("m/carried", tag)
    assert found is not None
