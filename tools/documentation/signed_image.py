"""Signs an image of the documentation's world as cosign does, in the form that it had before version 3.

Everybody can have the key: it is one point of P-256 that the number below makes. Its public half stands in
the documentation as `cosign.pub`.
"""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blobflow.oci import digest_of, media
from blobflow.transports.store import Store

_NUMBER = 20
_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"


def public_key() -> str:
    """The key in PEM, as `cosign generate-key-pair` writes cosign.pub."""
    public = _private_key().public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(store: Store, host: str, repository: str, tag: str) -> None:
    """Put a signature of what the tag names beside it."""
    digest = store.repositories.resolve(repository, tag)
    assert digest is not None
    payload = json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": f"{host}/{repository}"},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    ).encode()
    signature = _private_key().sign(payload, ec.ECDSA(hashes.SHA256()))
    layer = _put(store, repository, payload, _PAYLOAD)
    layer["annotations"] = {_SIGNATURE: base64.b64encode(signature).decode()}
    config = _put(store, repository, b"{}", media.OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": config,
        "layers": [layer],
    }
    raw = json.dumps(manifest).encode()
    store.blobs.write_small(raw, digest_of(raw))
    store.repositories.add(repository, digest_of(raw), media.OCI_MANIFEST)
    store.repositories.set_tag(repository, f"{digest.replace(':', '-')}.sig", digest_of(raw))


def _private_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(_NUMBER, ec.SECP256R1())


def _put(store: Store, repository: str, content: bytes, media_type: str) -> dict[str, object]:
    """A blob, and its descriptor."""
    digest = digest_of(content)
    store.blobs.write_small(content, digest)
    store.repositories.add(repository, digest)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}
