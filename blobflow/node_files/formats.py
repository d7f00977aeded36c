"""The table of formats. Light: what the options import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from blobflow.node_files.request import NodeFiles, NodeRequest

Format = Literal["containerd", "crio", "podman", "k3s", "rke2", "docker", "openshift", "kyverno"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Which resources of OpenShift: for pulls by digest, by tag, by both; or by digest as clusters before 4.13
# have it.
OpenshiftKind = Literal["both", "idms", "itms", "icsp"]
OPENSHIFT_KINDS: tuple[OpenshiftKind, ...] = get_args(OpenshiftKind)

# The module of each, imported when it is asked for.
_MODULES: Mapping[Format, str] = {
    "containerd": "containerd",
    "crio": "registries_conf",
    "podman": "registries_conf",
    "k3s": "rancher",
    "rke2": "rancher",
    "docker": "docker",
    "openshift": "openshift",
    "kyverno": "kyverno",
}


def node_files(form: Format, request: NodeRequest) -> NodeFiles:
    """The files of a format. Never raises: what it can't say is in `refused`."""
    module = import_module(f"blobflow.node_files.{_MODULES[form]}")
    make: Callable[[NodeRequest], NodeFiles] = getattr(module, f"{form}_files")
    return make(request)
