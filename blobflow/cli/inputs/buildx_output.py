"""What `docker buildx build --output` takes: `type=TYPE,key=value,…`. Pure."""

from __future__ import annotations

import csv

import msgspec

from blobflow.errors import UsageError
from blobflow.oci.local_reference import STREAM

# The keys that each type takes. `image` is there for what it says.
_KEYS = {
    "oci": ("dest", "name", "platform", "tar"),
    "docker": ("dest", "name", "platform"),
    "tar": ("dest", "platform"),
    "local": ("dest", "platform", "devices"),
    "registry": ("name", "platform"),
    "image": ("name", "platform", "push"),
    "cacheonly": ("platform",),
}
_BOOLEANS = {"true": True, "1": True, "": True, "false": False, "0": False}


class ExportOutput(msgspec.Struct, frozen=True):
    """What `--output` says."""

    type: str
    dest: str = ""
    name: str = ""
    platforms: tuple[str, ...] = ()
    tar: bool = True
    devices: bool = False


def parse_output(text: str) -> ExportOutput:
    """Read `type=TYPE,key=value,…` in buildx's form; DIR alone is type=local, - alone type=tar.

    Raises UsageError with what would be right.
    """
    if text == STREAM:
        return ExportOutput("tar", dest=text)
    if "=" not in text:
        return ExportOutput("local", dest=text)
    said: dict[str, list[str]] = {}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        if not equals and said.get("platform") and "/" in field:
            said["platform"].append(field)  # platform=a,b: what follows it belongs to it
        else:
            said.setdefault(key.strip().lower(), []).append(value.strip())
    kind = said.pop("type", [""])[-1]
    if kind not in _KEYS:
        raise UsageError(f"--output {text!r} has no type that there is; it is one of {', '.join(_KEYS)}")
    for key in said:
        if key not in _KEYS[kind]:
            raise UsageError(f"--output type={kind} has no {key}; it takes {', '.join(_KEYS[kind])}")
    found = ExportOutput(
        kind,
        dest=said.get("dest", [""])[-1],
        name=said.get("name", [""])[-1],
        platforms=tuple(said.get("platform", ())),
        tar=_parse_bool(said, "tar", True),
        devices=_parse_bool(said, "devices", False),
    )
    return _check_output(found, pushes=_parse_bool(said, "push", False))


def _parse_bool(said: dict[str, list[str]], key: str, otherwise: bool) -> bool:
    value = said.get(key, [""])[-1].lower()
    if value not in _BOOLEANS:
        raise UsageError(f"{key}={value} is neither true nor false")
    return _BOOLEANS[value] if key in said else otherwise


def _check_output(output: ExportOutput, *, pushes: bool) -> ExportOutput:
    """The output, complete. Raises UsageError for what lacks something, and says what."""
    kind = output.type
    if kind == "image" and not pushes:
        raise UsageError(
            "type=image would put the image into an engine's own store; use type=docker,dest=- with "
            "`docker load`, or type=registry,name=HOST/REPOSITORY:TAG"
        )
    if kind in ("image", "registry"):
        if not output.name:
            raise UsageError(f"type={kind} needs name=HOST/REPOSITORY:TAG")
        return msgspec.structs.replace(output, type="registry")
    if kind == "docker" and not output.dest:
        raise UsageError("type=docker needs dest=FILE, or dest=- to pipe it into `docker load`")
    if (kind == "local" or not output.tar) and output.dest in ("", STREAM):
        raise UsageError(f"type={kind} needs dest=DIR, a folder")
    if kind in ("oci", "tar") and not output.dest:
        return msgspec.structs.replace(output, dest=STREAM)
    return output
