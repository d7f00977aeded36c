"""Artifacts that cluster tools pull by an address and a version beside it: Flux's sources, charts of k3s'
controller and of Argo CD. Pure.
"""

from __future__ import annotations

import re

from blobflow.deployment_files.findings import Findings, reference_or_reason
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_tree import MappingNode, Scalar, each_mapping
from blobflow.oci.reference import looks_like_host

_OCI = "oci://"
_DIGEST = re.compile(r"sha(?:256|512):[0-9a-f]+\Z")
# One version of a chart: a range has signs, blanks, or a part left open.
_ONE_VERSION = re.compile(r"v?\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?\Z")
_RANGE = "has a range of versions, of which the newest is taken when it runs"


def read_flux_source(findings: Findings, document: MappingNode) -> None:
    """Flux's OCIRepository: `url`, and in `ref` a digest, a range, or a tag, in this order of precedence."""
    spec = document.mapping("spec")
    url = spec.scalar("url") if spec else None
    if spec is None or url is None or document.text("kind") != "OCIRepository":
        return
    ref = spec.mapping("ref")
    digest, semver, tag = (ref.scalar(key) if ref else None for key in ("digest", "semver", "tag"))
    if semver and semver.value and not (digest and digest.value):
        findings.leave(_address(url), "OCIRepository", _RANGE, written=f"{_shown(url)} + {semver.value}")
    else:
        _name(findings, url, digest if digest and digest.value else tag, "OCIRepository")


def read_k3s_chart(findings: Findings, document: MappingNode) -> None:
    """The chart of k3s' and RKE2's HelmChart, where a registry has it."""
    spec = document.mapping("spec")
    chart = spec.scalar("chart") if spec else None
    if spec and chart and chart.value.startswith(_OCI):
        _name_chart(findings, chart, spec.scalar("version"), "", "chart")


def read_argo_source(findings: Findings, document: MappingNode) -> None:
    """The sources of Argo CD's applications that a registry has: of a chart, without a scheme in `repoURL`,
    and of anything, with `oci://`."""

    def visit(mapping: MappingNode) -> None:
        url, revision = mapping.own("repoURL"), mapping.own("targetRevision")
        chart = mapping.text("chart")
        if not isinstance(url, Scalar):
            return
        version = revision if isinstance(revision, Scalar) else None
        if chart and ("://" not in url.value or url.value.startswith(_OCI)):
            host = _shown(url).partition("/")[0]
            if looks_like_host(host):
                _name_chart(findings, url, version, f"/{chart}", "chart")
        elif url.value.startswith(_OCI):
            _name_chart(findings, url, version, "", "source")

    each_mapping(document, visit)


def _name_chart(findings: Findings, url: Scalar, version: Scalar | None, behind: str, field: str) -> None:
    """A chart's version is its tag, with `_` for the `+` that tags can't have."""
    said = version.value.strip() if version and not version.is_null else ""
    written = f"{_shown(url)}{behind} + {said}" if said else f"{_shown(url)}{behind}"
    if not said:
        findings.leave(
            _address(url), field, "has no version: the newest is taken when it runs", written=written
        )
    elif _ONE_VERSION.match(said) or _DIGEST.match(said) or (field == "source" and _is_tag(said)):
        _name(findings, url, version, field, behind=behind)
    else:
        findings.leave(_address(url), field, _RANGE, written=written)


def _is_tag(text: str) -> bool:
    return not isinstance(reference_or_reason(f"example.com/x:{text}"), str)


def _name(findings: Findings, url: Scalar, end: Scalar | None, field: str, *, behind: str = "") -> None:
    """An address without its scheme, and what ends the name: a tag or digest. The address alone can be
    replaced, as there is no place for a digest beside a tag."""
    piece = _address(url)
    said = end.value.strip() if end and not end.is_null else ""
    name = f"{piece.text.rstrip('/')}{behind}"
    text = f"{name}@{said}" if _DIGEST.match(said) else f"{name}:{said.replace('+', '_')}" if said else name
    written = f"{name} + {said}" if said else name
    found = reference_or_reason(text)
    if isinstance(found, str):
        findings.leave(piece, field, found, written=written)
    else:
        findings.add(piece, written, found, field, piece.part("name") if not behind else ())


def _shown(url: Scalar) -> str:
    return url.value.strip().removeprefix(_OCI).rstrip("/")


def _address(url: Scalar) -> Piece:
    return url.piece.strip().without(_OCI)
