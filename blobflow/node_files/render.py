"""The table of formats: which module makes the files of which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from blobflow.node_files.formats import Format
from blobflow.node_files.request import NodeFiles, NodeRequest

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
