"""A Kyverno ClusterPolicy that rewrites the images of pods to their places in a mirror.

Nodes then pull from the mirror by its own name: nothing falls back to an image's own registry, and pods show
where their images come from. Each image is first read as its full name (`nginx` is
docker.io/library/nginx:latest to a runtime), then goes through one replacement a rule, the most specific
first. The expressions are RE2's; they have no backslash and no `$(`, which Kyverno and JMESPath would read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from blobflow.mirror_places import PlaceRule
from blobflow.node_files.request import (
    MirroredImage,
    MirroredPrefix,
    NodeFile,
    NodeFiles,
    NodeRequest,
    header,
)
from blobflow.node_files.yaml_text import yaml_text
from blobflow.oci.reference import looks_like_host

_FILE = "kyverno-mirror.yaml"
_NAME = "blobflow-mirror"
_LISTS = ("containers", "initContainers", "ephemeralContainers")

# An image's name in full, but for `:latest`: what is replaced by what, one after the other.
_FULL_NAME = (
    ("^(?:index[.]|registry-1[.])docker[.]io/", "docker.io/"),
    ("^([^/:@]+(?:[:@][^/]*)?)$", "docker.io/library/${1}"),
    ("^([^/.:]+/.*)$", "docker.io/${1}"),
    ("^docker[.]io/([^/]+)$", "docker.io/library/${1}"),
)


def kyverno_files(request: NodeRequest) -> NodeFiles:
    """One ClusterPolicy, for `kubectl apply -f`."""
    first = msgspec.structs.replace(request, mirrors=request.mirrors[:1])
    refused = [
        f"a Kyverno policy rewrites to one mirror, and {mirror.rules[0]} as well"
        for mirror in request.mirrors[1:]
        if mirror.rules
    ]
    rules: list[MirroredImage | MirroredPrefix] = []
    for each in first.places:
        if why := _refusal(each, rules):
            refused.append(why)
        else:
            rules.append(each)
    if not rules:
        return NodeFiles((), (), tuple(refused))
    document = {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {
            "name": _NAME,
            # Pods alone: a controller's own template stays as whoever applied it has it.
            "annotations": {"pod-policies.kyverno.io/autogen-controllers": "none"},
        },
        "spec": {"background": False, "rules": [_rule(each, rules, request) for each in _LISTS]},
    }
    login = "A login is for pods to name, as imagePullSecrets, or for their service accounts; not for here."
    text = header(_FILE, "Apply it with `kubectl apply -f`.", login)
    text += yaml_text([document])
    return NodeFiles((NodeFile(_FILE, text.encode()),), (), tuple(refused), tuple(_notes(first)))


def _refusal(each: MirroredImage | MirroredPrefix, before: Sequence[MirroredImage | MirroredPrefix]) -> str:
    """Why a rule can't be said; "" if it can."""
    host = each.targets[0].partition("/")[0]
    if not looks_like_host(host):
        return (
            f"a name that begins with {host} is docker.io's to Kubernetes, and {each}; give the mirror a name"
            " with a dot or a port"
        )
    if each.source.partition("/")[0] == "localhost":
        return f"to a policy an image of localhost is one that its node has already, and {each}"
    for other in before:
        if _is_for(each, other):
            return f"a Kyverno policy would rewrite what it has rewritten: {other}, and {each}"
    return ""


def _is_for(each: MirroredImage | MirroredPrefix, before: MirroredImage | MirroredPrefix) -> bool:
    """Whether a rule is for what another has rewritten."""
    target = before.targets[0]
    if isinstance(each, MirroredImage):
        return target == each.source
    if isinstance(before, MirroredImage):  # its tag is not of its repository's name
        target = target.rpartition("@")[0] or target.rpartition(":")[0]
    rule = PlaceRule(each.source, each.targets[0], each.exact)
    return rule.target_of(target) is not None


def _rule(
    containers: str, rules: Sequence[MirroredImage | MirroredPrefix], request: NodeRequest
) -> dict[str, Any]:
    """The rule for one list of a pod's containers."""
    places = "|".join(dict.fromkeys(_literal(each.targets[0]) for each in rules))
    checks = {
        "^localhost/": ("element.image", False),
        f"^(?:{places})(?:[/:@]|$)": ("named", False),  # it is in its place already
        "|".join(_pattern(each) for each in rules): ("named", True),
    }
    if request.by_digest:
        checks["@"] = ("named", True)
    new = _replaced("named", [(_pattern(each), _replacement(each)) for each in rules])
    return {
        "name": f"mirror-{containers.lower()}",
        "match": {"any": [{"resources": {"kinds": ["Pod"], "operations": ["CREATE", "UPDATE"]}}]},
        "preconditions": {
            "all": [
                {
                    "key": f"{{{{ request.object.spec.{containers}[] || `[]` | length(@) }}}}",
                    "operator": "GreaterThan",
                    "value": 0,
                }
            ]
        },
        "mutate": {
            "foreach": [
                {
                    "list": f"request.object.spec.{containers}[]",
                    "context": [
                        {
                            "name": "named",
                            "variable": {"value": f"{{{{ {_replaced('element.image', _FULL_NAME)} }}}}"},
                        }
                    ],
                    "preconditions": {
                        "all": [
                            {
                                "key": f"{{{{ regex_match('{pattern}', {name}) }}}}",
                                "operator": "Equals",
                                "value": wanted,
                            }
                            for pattern, (name, wanted) in checks.items()
                        ]
                    },
                    "patchStrategicMerge": {
                        "spec": {containers: [{"name": "{{ element.name }}", "image": f"{{{{ {new} }}}}"}]}
                    },
                }
            ]
        },
    }


def _replaced(name: str, replacements: Sequence[tuple[str, str]]) -> str:
    """The expression that makes the replacements, one after the other."""
    for pattern, by in replacements:
        name = f"regex_replace_all('{pattern}', {name}, '{by}')"
    return name


def _pattern(each: MirroredImage | MirroredPrefix) -> str:
    if isinstance(each, MirroredImage):
        source, _, latest = each.source.rpartition(":latest")
        if source and not latest:
            return f"^{_literal(source)}(?::latest)?(@.*)?$"
        return f"^{_literal(each.source)}(@.*)?$"
    if not each.source:
        return "^[^/]+/(.+)$"
    if not each.path:
        return f"^{_literal(each.source)}/(.+)$"
    return f"^{_literal(each.source)}([:@].*)?$" if each.exact else f"^{_literal(each.source)}([/:@].*)?$"


def _replacement(each: MirroredImage | MirroredPrefix) -> str:
    between = "/" if isinstance(each, MirroredPrefix) and not each.path else ""
    return f"{each.targets[0]}{between}${{1}}"


def _literal(text: str) -> str:
    """An expression for a name as it stands, without backslashes."""
    return "".join(each if each.isalnum() or each in "/:@-_" else f"[{each}]" for each in text)


def _notes(request: NodeRequest) -> Iterator[str]:
    if request.upstream:
        yield "a pod whose image the mirror lacks does not start: the policy names no other place for it"
    for host in request.mirror_hosts:
        access = request.access_to(host)
        if access.insecure or access.ca:
            yield (
                f"how nodes reach {host} (its certificate, or plain HTTP) is no matter of a policy; --format"
                " containerd or crio has that"
            )
