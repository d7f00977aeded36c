"""YAML as people write it: keys in their order, and no line broken."""

from __future__ import annotations

from collections.abc import Sequence


def yaml_text(documents: Sequence[object]) -> str:
    """The documents of a file. By libyaml where it is: thousands of rules take PyYAML seconds."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump_all(
        documents, Dumper=dumper, sort_keys=False, width=1_000_000, default_flow_style=False
    )
    return text
