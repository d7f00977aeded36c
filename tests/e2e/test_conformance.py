"""The official conformance suite (opencontainers/distribution-spec, conformance/), where it is on PATH.

Its version 1.1 with sparse content, and what the main branch has beyond it; 0 failures of each. What it asks,
our own tests ask everywhere: see `tests/contract/server/test_conformance.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.processes import blobflow_serve

# What it is called by who builds it: `go build -o oci-conformance`, `go build`, or `go test -c`.
SUITE = next(filter(None, map(shutil.which, ("oci-conformance", "conformance", "conformance.test"))), None)

if SUITE is not None:  # nothing to collect elsewhere

    @pytest.mark.parametrize("version", ["1.1", "dev"])
    def test_the_embedded_registry_conforms(tmp_path: Path, version: str) -> None:
        results = tmp_path / "results"
        with blobflow_serve(tmp_path / "ours", "--sparse", "accept") as registry:
            asked = {
                "OCI_VERSION": version,
                "OCI_REGISTRY": registry.host,
                "OCI_TLS": "disabled",
                "OCI_DATA_SPARSE": "true",
                "OCI_RESULTS_DIR": str(results),
            }
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
            done = subprocess.run(
                [str(SUITE)],
                env={**inherited, **asked},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
        suite = ElementTree.parse(results / "junit.xml").getroot()
        told = f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
        assert int(suite.get("tests", "0")) > 100, told
        assert (suite.get("failures"), suite.get("errors"), done.returncode) == ("0", "0", 0), told
