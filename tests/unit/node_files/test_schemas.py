"""What clusters are told has the form that their own schemas ask for.

Written down here, as far as our files go, from the published ones: OpenShift's custom resource definitions
(openshift/api, config/v1 and operator/v1alpha1, as of 4.18), the structs of k3s' registries.yaml
(rancher/wharfie 0.6.2, pkg/registries), and Kyverno's ClusterPolicy (kyverno.io/v1, as of 1.12).
"""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
import yaml

from blobflow.engine.pairs import Pair
from blobflow.mirror_places import MirrorPlaces, places_of_pairs, places_under
from blobflow.node_files.formats import Format, OpenshiftKind
from blobflow.node_files.render import node_files
from blobflow.node_files.request import NodeRequest, RegistryAccess
from blobflow.oci import parse_reference

_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_PLACE = rf"({_LABEL}(?:(?:\.{_LABEL})+)?(?::[0-9]+)?)(?:(?:/[a-z0-9]+(?:(?:(?:[._]|__|[-]*)[a-z0-9]+)+)?)+)?"
_SOURCE = rf"^\*(?:\.{_LABEL})+$|^{_PLACE}$"


def _object(required: tuple[str, ...] = (), /, **properties: Any) -> dict[str, Any]:
    """An object of these properties, and no others: a cluster would drop or refuse them."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def _resource(api: str, kind: str, **spec: Any) -> dict[str, Any]:
    name = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 253}
    return _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": api},
        kind={"const": kind},
        metadata=_object(("name",), name=name, annotations={"type": "object"}),
        spec=_object((), **spec),
    )


_TEXT = {"type": "string"}
_MIRRORS = _list(
    _object(
        ("source",),
        source={"type": "string", "pattern": _SOURCE},
        mirrors=_list({"type": "string", "pattern": f"^{_PLACE}$"}, uniqueItems=True),
        mirrorSourcePolicy={"enum": ["NeverContactSource", "AllowContactingSource"]},
    )
)
OPENSHIFT = {
    "ImageDigestMirrorSet": _resource(
        "config.openshift.io/v1", "ImageDigestMirrorSet", imageDigestMirrors=_MIRRORS
    ),
    "ImageTagMirrorSet": _resource("config.openshift.io/v1", "ImageTagMirrorSet", imageTagMirrors=_MIRRORS),
    "ImageContentSourcePolicy": _resource(
        "operator.openshift.io/v1alpha1",
        "ImageContentSourcePolicy",
        repositoryDigestMirrors=_list(_object(("source",), source=_TEXT, mirrors=_list(_TEXT))),
    ),
    "ConfigMap": _object(
        ("apiVersion", "kind", "metadata"),
        apiVersion={"const": "v1"},
        kind={"const": "ConfigMap"},
        metadata=_object((), name=_TEXT, namespace={"const": "openshift-config"}),
        data={
            "type": "object",
            "propertyNames": {"pattern": "^[-._a-zA-Z0-9]+$"},
            "additionalProperties": _TEXT,
        },
    ),
}
_AUTH = _object((), username=_TEXT, password=_TEXT, auth=_TEXT, identity_token=_TEXT)
_TLS = _object((), ca_file=_TEXT, cert_file=_TEXT, key_file=_TEXT, insecure_skip_verify={"type": "boolean"})
REGISTRIES_YAML = _object(
    (),
    mirrors={
        "type": "object",
        "additionalProperties": _object(
            (), endpoint=_list(_TEXT), rewrite={"type": "object", "additionalProperties": _TEXT}
        ),
    },
    configs={"type": "object", "additionalProperties": _object((), auth=_AUTH, tls=_TLS)},
    auths={"type": "object"},
)
_CONDITIONS = _object(
    (), all=_list(_object((), key={}, operator={"enum": ["Equals", "GreaterThan"]}, value={}, message=_TEXT))
)
CLUSTER_POLICY = _resource(
    "kyverno.io/v1",
    "ClusterPolicy",
    background={"type": "boolean"},
    rules=_list(
        _object(
            ("name", "match"),
            name={"type": "string", "maxLength": 63},
            match=_object(
                (),
                any=_list(
                    _object(
                        (),
                        resources=_object(
                            (),
                            kinds=_list(_TEXT),
                            operations=_list({"enum": ["CREATE", "CONNECT", "UPDATE", "DELETE"]}),
                        ),
                    )
                ),
            ),
            preconditions=_CONDITIONS,
            mutate=_object(
                (),
                foreach=_list(
                    _object(
                        (),
                        list=_TEXT,
                        context=_list(
                            _object(("name",), name=_TEXT, variable=_object((), value={}, jmesPath=_TEXT))
                        ),
                        preconditions=_CONDITIONS,
                        patchStrategicMerge={"type": "object"},
                    )
                ),
            ),
        )
    ),
)
# How Kyverno finds variables in a policy: at most one more pair of braces inside.
_VARIABLE = re.compile(r"\{\{(?:\{[^{}]*\}|[^{}])*\}\}")

HUB = places_under("docker.io", "one.example.com:5000/mirror")
OTHER = places_under("docker.io", "two.example.com")
MOVED = places_of_pairs(
    [
        Pair(parse_reference("nginx:1"), parse_reference("one.example.com/base/nginx:1")),
        Pair(parse_reference("quay.io:8443/a/b:1"), parse_reference("one.example.com/c:1")),
    ]
)
ACCESS = {
    "one.example.com:5000": RegistryAccess(ca=b"-----BEGIN CERTIFICATE-----\nAA==\n"),
    "one.example.com": RegistryAccess(plain_http=True),
    "two.example.com": RegistryAccess(skip_verify=True),
}


def documents(form: Format, *mirrors: MirrorPlaces, **said: Any) -> list[dict[str, Any]]:
    made = node_files(form, NodeRequest(mirrors, ACCESS, **said))
    assert not made.refused
    return list(yaml.safe_load_all(made.files[0].content))


@pytest.mark.parametrize("mirrors", [(HUB, OTHER), (MOVED,)])
@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        ("both", ["ImageDigestMirrorSet", "ImageTagMirrorSet"]),
        ("idms", ["ImageDigestMirrorSet"]),
        ("itms", ["ImageTagMirrorSet"]),
        ("icsp", ["ImageContentSourcePolicy"]),
    ],
)
def test_mirror_sets_are_as_openshift_has_them(
    kind: OpenshiftKind, kinds: list[str], mirrors: tuple[MirrorPlaces, ...]
) -> None:
    for upstream in (True, False) if kind != "icsp" else (True,):
        made = documents("openshift", *mirrors, openshift_kind=kind, upstream=upstream)
        trusted = ["ConfigMap"] if HUB in mirrors else []
        assert [each["kind"] for each in made] == [*kinds, *trusted]
        for each in made:
            jsonschema.validate(each, OPENSHIFT[each["kind"]])


def test_a_certificate_is_named_as_openshift_names_registries_with_ports() -> None:
    *_, certificates = documents("openshift", HUB)
    assert list(certificates["data"]) == ["one.example.com..5000"]


@pytest.mark.parametrize("mirrors", [(HUB, OTHER), (HUB,), (MOVED,)])
@pytest.mark.parametrize("form", ["k3s", "rke2"])
def test_registries_yaml_is_as_k3s_has_it(form: Format, mirrors: tuple[MirrorPlaces, ...]) -> None:
    [made] = documents(form, *mirrors)
    jsonschema.validate(made, REGISTRIES_YAML)
    if HUB in mirrors:
        assert made["configs"]["one.example.com:5000"] == {
            "tls": {"ca_file": f"/etc/rancher/{form}/certs.d/one.example.com:5000/ca.crt"}
        }


@pytest.mark.parametrize("mirror", [HUB, MOVED])
def test_a_policy_is_as_kyverno_has_it(mirror: MirrorPlaces) -> None:
    [made] = documents("kyverno", mirror)
    jsonschema.validate(made, CLUSTER_POLICY)
    for text in _texts(made):
        assert "{{" not in text or _VARIABLE.fullmatch(text)


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []
