"""Plain values that YAML 1.1 takes for a number which is written in another way again. Pure.

Helm, Kustomize and Ansible read a tag so: `1.10` is 1.1 to them, `0123` is 83, `1_000` is 1000. The rules are
those of YAML 1.1's int and float types (yaml.org/type), as go-yaml has them.
"""

from __future__ import annotations

import math
import re

from blobflow.deployment_files.yaml_tree import Scalar

_LONGEST = 64  # characters; a tag that is longer is no number
_WHOLE = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"[-+]?0o?[0-7]+\Z")
_OTHER_RADIX = re.compile(r"[-+]?0(?:x[0-9a-fA-F]+|b[01]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


def read_as_another(scalar: Scalar) -> str:
    """Why the reader of a file gets another text than stands there; "" if it gets that."""
    text = scalar.value.strip()
    if scalar.style or scalar.tag or len(text) > _LONGEST:
        return ""
    number = _number(text.replace("_", "") if text[:1] != "_" else text)
    if not number or number == text:
        return ""
    return f"has a tag that YAML reads as the number {number}; quote it: '{text}'"


def _number(text: str) -> str:
    """The number that a text is, as it is written shortest; "" if it is none."""
    if _OCTAL.match(text):
        return str(int(text.replace("o", ""), 8))
    if _WHOLE.match(text):
        return str(int(text))
    if _OTHER_RADIX.match(text):
        return str(int(text, 0))
    if not _FLOAT.match(text):
        return ""
    value = float(text)
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
