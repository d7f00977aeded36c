"""What is in deploy/: units that systemd takes, manifests that Kubernetes' schemas take, and commands in them
that blobflow takes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from blobflow.cli import cli
from blobflow.cli.inputs.spec_formats import read_spec
from blobflow.version import __version__
from tests.deadlines import HANGS_AFTER
from tools.checkout import TOP

DEPLOY = TOP / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())
ALL: list[dict[str, Any]] = [
    document for file in MANIFESTS for document in yaml.safe_load_all(file.read_text())
]
each_document = pytest.mark.parametrize("document", ALL, ids=lambda each: each["kind"])


def check_command(arguments: Sequence[str]) -> None:
    """Parse the arguments of `blobflow` as it would, and go no further."""
    verb, *rest = arguments
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None, verb
    command.make_context(verb, list(rest), parent=click.Context(cli, info_name="blobflow"))


def one_of(kind: str) -> dict[str, Any]:
    """The one document of this kind."""
    (found,) = (each for each in ALL if each["kind"] == kind)
    return found


def workload(document: dict[str, Any]) -> dict[str, Any] | None:
    """The specification of a document's pods; None if it has none."""
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: dict[str, Any] | None = spec.get("template", {}).get("spec")
    return found


# systemd


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """The units as they are at a machine that has blobflow elsewhere."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(
            unit.read_text().replace(
                "/usr/local/bin/blobflow", str(Path(sys.executable).with_name("blobflow"))
            )
        )
    yield tmp_path


def analyze(*arguments: str | Path) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=HANGS_AFTER
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_systemd_has_nothing_to_say_against_the_units(installed: Path) -> None:
    assert analyze("verify", "--man=no", *(installed / unit.name for unit in UNITS)) == ""


def test_the_timer_runs_at_moments_that_systemd_knows() -> None:
    (said,) = re.findall(r"(?m)^OnCalendar=(.*)$", (DEPLOY / "systemd" / "blobflow-sync.timer").read_text())
    analyze("calendar", said)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_that_there_is(unit: Path) -> None:
    (line,) = re.findall(r"(?m)^ExecStart=(.*)$", unit.read_text())
    options = re.search(r'BLOBFLOW_SERVE_OPTIONS=(.*)"$', unit.read_text(), re.MULTILINE)
    line = line.replace("$BLOBFLOW_SERVE_OPTIONS", options[1] if options else "")
    program, *arguments = shlex.split(line.replace("${STATE_DIRECTORY}", "/var/lib/blobflow-sync"))
    assert program == "/usr/local/bin/blobflow"
    check_command(arguments)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_unit_runs_as_nobody_in_particular_with_little_to_reach(unit: Path) -> None:
    said = unit.read_text()
    for line in ("DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet="):
        assert f"\n{line}\n" in said


# Kubernetes


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@each_document
def test_a_manifest_is_what_the_schema_says(document: dict[str, Any], version: str) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_find_what_is_wrong() -> None:
    import kubernetes_validate

    document = one_of("CronJob")
    wrong = {**document, "spec": {**document["spec"], "concurrencyPolicies": "Forbid"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@each_document
def test_a_pod_runs_blobflow_without_root_on_a_read_only_root(document: dict[str, Any]) -> None:
    pod = workload(document)
    if pod is None:
        return
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["image"].endswith(f"blobflow:{__version__}")
    check_command(container["args"])
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    claims = document["spec"].get("volumeClaimTemplates", ())
    volumes = {each["name"] for each in pod["volumes"]} | {each["metadata"]["name"] for each in claims}
    assert {each["name"] for each in container["volumeMounts"]} == volumes


def test_pods_and_what_they_refer_to_have_one_name() -> None:
    """A service that selects no pod serves nothing, and a pod whose claim is not there waits for ever."""
    named = {(each["kind"], each["metadata"]["name"]) for each in ALL}
    for pod in filter(None, map(workload, ALL)):
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in named
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in named
    service, stateful = one_of("Service"), one_of("StatefulSet")
    assert service["spec"]["selector"] == stateful["spec"]["template"]["metadata"]["labels"]
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]


def test_the_spec_of_the_job_is_one() -> None:
    request = read_spec(one_of("ConfigMap")["data"]["mirror.yaml"], "mirror.yaml")
    assert [image.path for image in request.images] == ["rancher/pause", "library/alpine"]


# The image


def test_the_image_has_no_root_and_says_where_it_writes() -> None:
    said = (DEPLOY / "Containerfile").read_text()
    assert re.search(r"(?m)^USER 1000:1000$", said) and re.search(r'(?m)^ENTRYPOINT \["blobflow"\]$', said)
    assert "XDG_CACHE_HOME=/cache" in said and "XDG_DATA_HOME=/data" in said
