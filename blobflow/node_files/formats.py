"""The words for formats, light: the options of the command line import them."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["containerd", "crio", "podman", "k3s", "rke2", "docker", "openshift", "kyverno"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Which resources of OpenShift: for pulls by digest, by tag, by both; or by digest as clusters before 4.13
# have it.
OpenshiftKind = Literal["both", "idms", "itms", "icsp"]
OPENSHIFT_KINDS: tuple[OpenshiftKind, ...] = get_args(OpenshiftKind)
