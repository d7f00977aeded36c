"""What is in deploy/: units that systemd takes, manifests that Kubernetes' schemas take, and commands in them
that blobflow takes."""

from __future__ import annotations

import copy
import importlib.util
import os
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
CLUSTER = "DaskCluster"  # of the operator of dask-kubernetes


def unfolded(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A document of Kubernetes; of a DaskCluster what its operator makes of it: deployments and a service."""
    if document["kind"] != CLUSTER:
        yield document
        return
    name = document["metadata"]["name"]
    for part in ("scheduler", "worker"):
        labels = {"dask.org/cluster-name": name, "dask.org/component": part}
        yield {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": f"{name}-{part}", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": document["spec"][part]["spec"]},
            },
        }
    service = {"name": f"{name}-scheduler", "labels": {"dask.org/cluster-name": name}}
    ports = document["spec"]["scheduler"]["service"]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": service, "spec": ports}


WRITTEN: list[dict[str, Any]] = [
    document for file in MANIFESTS for document in yaml.safe_load_all(file.read_text())
]
ALL = [each for document in WRITTEN for each in unfolded(document)]
each_document = pytest.mark.parametrize("document", ALL, ids=lambda each: each["kind"])


def check_scheduler(arguments: Sequence[str]) -> None:
    """Parse the arguments of `dask` as it would, and go no further."""
    from distributed.cli.dask_scheduler import main

    verb, *rest = arguments
    assert verb == "scheduler"
    named = [each for each in rest if not each.startswith("--tls-")]  # which want files that are there
    main.make_context(verb, named)
    known = {option for each in main.params for option in each.opts}
    assert {each.partition("=")[0] for each in rest} <= known


def check_command(arguments: Sequence[str]) -> None:
    """Parse the arguments of `blobflow` as it would, and go no further."""
    verb, *rest = arguments
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None, verb
    command.make_context(verb, list(rest), parent=click.Context(cli, info_name="blobflow"))


def one_of(kind: str, name: str) -> dict[str, Any]:
    """The document of this kind and name."""
    (found,) = (each for each in ALL if (each["kind"], each["metadata"]["name"]) == (kind, name))
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

    document = one_of("CronJob", "blobflow-sync")
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
    if "command" in container:
        assert container["command"] == ["dask"]
        check_scheduler(container["args"])
    else:
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
    service, stateful = one_of("Service", "blobflow"), one_of("StatefulSet", "blobflow")
    assert service["spec"]["selector"] == stateful["spec"]["template"]["metadata"]["labels"]
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("blobflow-sync", ["rancher/pause", "library/alpine"]),
        ("blobflow-large-set", ["library/alpine", "library/python"]),
    ],
)
def test_the_spec_of_a_job_is_one(name: str, paths: list[str]) -> None:
    request = read_spec(one_of("ConfigMap", name)["data"]["mirror.yaml"], "mirror.yaml")
    assert [image.path for image in request.images] == paths


# A cluster of workers


def the_cluster() -> dict[str, Any]:
    (found,) = (each for each in WRITTEN if each["kind"] == CLUSTER)
    return found


def test_a_cluster_is_what_the_operators_own_schema_says() -> None:
    import jsonschema

    schema = dask_cluster_schema()
    jsonschema.validate(the_cluster(), schema)
    wrong = copy.deepcopy(the_cluster())
    wrong["spec"]["worker"]["replicas"] = "four"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)
    assert unknown_keys(the_cluster(), schema) == []


def dask_cluster_schema() -> dict[str, Any]:
    """The schema of the operator's resource, from what it is installed from. Skips where that is not."""
    folder = os.environ.get("DASK_KUBERNETES_CRDS")
    installed = importlib.util.find_spec("dask_kubernetes")
    if folder is None and installed is not None and installed.origin is not None:
        parts = "operator/deployment/helm/dask-kubernetes-operator/crds"
        folder = str(Path(installed.origin).parent / parts)
    if folder is None:
        pytest.skip("dask-kubernetes is not installed; $DASK_KUBERNETES_CRDS names the folder of its schemas")
    definition = yaml.safe_load((Path(folder) / "daskcluster.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def unknown_keys(value: Any, schema: dict[str, Any], at: str = "") -> list[str]:
    """What Kubernetes would drop in silence: keys that a schema with properties does not have."""
    if isinstance(value, list):
        return [key for each in value for key in unknown_keys(each, schema.get("items", {}), at)]
    known = schema.get("properties")
    if not isinstance(value, dict) or known is None:
        return []
    top = () if at else ("apiVersion", "kind", "metadata")
    lost = [f"{at}.{key}" for key in value if key not in known and key not in top]
    return lost + [
        each for key in value if key in known for each in unknown_keys(value[key], known[key], f"{at}.{key}")
    ]


def test_workers_and_the_job_find_the_scheduler_that_the_operator_makes() -> None:
    """By the service's name and the port at which the scheduler listens, over TLS on both sides."""
    cluster = the_cluster()["spec"]
    service = one_of("Service", "blobflow-scheduler")
    (port,) = (each["port"] for each in service["spec"]["ports"] if each["name"] == "tcp-comm")
    (scheduler,) = cluster["scheduler"]["spec"]["containers"]
    assert f"--port={port}" in scheduler["args"] and "--protocol=tls" in scheduler["args"]
    address = f"tls://{service['metadata']['name']}:{port}"
    (worker,) = cluster["worker"]["spec"]["containers"]
    (job,) = one_of("Job", "blobflow-large-set")["spec"]["template"]["spec"]["containers"]
    assert worker["args"][:2] == ["worker", address]
    assert f"--engine={address}" in job["args"]
    # The operator deletes the deployments of the workers that the scheduler has retired, by these names.
    assert "--name=$(DASK_WORKER_NAME)" in worker["args"]


def test_a_network_policy_lets_the_job_and_the_operator_in_and_nobody_else() -> None:
    rules = one_of("NetworkPolicy", "blobflow-cluster")["spec"]
    job = one_of("Job", "blobflow-large-set")["spec"]["template"]["metadata"]["labels"]
    cluster = {"dask.org/cluster-name": the_cluster()["metadata"]["name"]}
    assert rules["podSelector"] == {"matchLabels": cluster} and rules["policyTypes"] == ["Ingress"]
    inside, operator = rules["ingress"]
    assert inside == {"from": [{"podSelector": {"matchLabels": labels}} for labels in (cluster, job)]}
    (port,) = operator["ports"]
    service = one_of("Service", "blobflow-scheduler")
    assert port["port"] == next(p["port"] for p in service["spec"]["ports"] if p["name"] == "http-dashboard")


def test_nothing_secret_stands_in_a_manifest() -> None:
    """Neither a Secret, nor a value of what is called a password, a token or a key."""
    assert [each["kind"] for each in WRITTEN if each["kind"] == "Secret"] == []
    secret = re.compile(r"(?i)\b(password|passwd|token|api_?key)\s*[:=]|BEGIN [A-Z ]*PRIVATE KEY")
    assert [file.name for file in MANIFESTS if secret.search(file.read_text())] == []


# The image


def test_the_image_has_no_root_and_says_where_it_writes() -> None:
    said = (DEPLOY / "Containerfile").read_text()
    assert re.search(r"(?m)^USER 1000:1000$", said) and re.search(r'(?m)^ENTRYPOINT \["blobflow"\]$', said)
    assert "XDG_CACHE_HOME=/cache" in said and "XDG_DATA_HOME=/data" in said
