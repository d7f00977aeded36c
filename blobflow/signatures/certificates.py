"""Certificates that sign: whether a CA vouches for one at a time (RFC 5280), and whose it is.

Paths are built and checked by `cryptography`, with the rules of its web profile but for the usage, which has
to be code signing here, of every certificate that says what it is for.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from blobflow.errors import InvalidConfig
from blobflow.printable import first_of, one_line
from blobflow.signatures.proofs import NotProven, Step, refusing, without_warnings

# Certificates that a signature may bring along: roots have signed over one or two others.
MAX_CHAIN = 8
# Those of them that have the same name and key: each more makes the paths that there may be so many times as
# many, at every step. A CA that two others vouch for has two.
MAX_ALIKE = 2
# Bytes of a certificate: Fulcio's have 1 kB.
MAX_CERTIFICATE = 64 * 1024

_FULCIO = "1.3.6.1.4.1.57264.1."
_ISSUER_TEXT = x509.ObjectIdentifier(f"{_FULCIO}1")
_ISSUER_DER = x509.ObjectIdentifier(f"{_FULCIO}8")
_USERNAME = x509.ObjectIdentifier(f"{_FULCIO}7")
_UTF8_STRING = 0x0C
# The keys of CAs that `cryptography` builds paths with.
_CA_KEYS = {PublicKeyAlgorithmOID.EC_PUBLIC_KEY, PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5}
_SIGNING = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


class CertificateRule(msgspec.Struct, frozen=True):
    """Whose certificates sign: `roots` vouch for them, over `intermediates` or what a signature brings along,
    and those of `issuer`, `email` and `hostname` that are not "" have to be in them, exactly.

    `email` is an e-mail address; with "://" in it a URI, as the identities of build jobs are; with "!" in it
    one of Fulcio's user names.
    """

    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...] = ()
    issuer: str = ""
    email: str = ""
    hostname: str = ""

    def check_path(
        self, leaf: x509.Certificate, chain: Sequence[x509.Certificate], at: datetime, why: str
    ) -> None:
        """Raise NotProven unless a root vouches for the certificate at that time. `why`: what says so, in
        words that follow "and"."""
        first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        if not first <= at <= last:
            bound = f"expired at {_shown(last)}" if at > last else f"is valid from {_shown(first)} on"
            raise NotProven(Step.TIME, f"its certificate {bound}, and {why}")
        ca, signer = _extension_policies()
        verifier = (
            PolicyBuilder()
            .store(Store(list(self.roots)))
            .time(at)
            .max_chain_depth(MAX_CHAIN)
            .extension_policies(ca_policy=ca, ee_policy=signer)
            .build_client_verifier()
        )
        try:
            path = verifier.verify(leaf, [*self.intermediates, *few_alike(chain)]).chain
        except (VerificationError, x509.UnsupportedGeneralNameType, ValueError) as error:
            shown = one_line(str(error).rpartition("candidates exhausted: ")[2], 200)
            raise NotProven(
                Step.SIGNER, f"its certificate is not vouched for by the CA of the policy ({shown})"
            ) from error
        check_usage(path[0])
        for each in path[1:]:
            _check_purpose(each)

    def check_subject(self, leaf: x509.Certificate) -> str:
        """Raise NotProven unless the certificate is that of the subject; else who it is, in words."""
        with refusing(Step.READABLE, "its certificate can't be read"):
            issuer = issuer_of(leaf) if self.issuer else ""
            names = list(subjects_of(leaf))
            hostname = not self.hostname or _has_hostname(leaf, self.hostname)
        if issuer != self.issuer:
            raise NotProven(
                Step.SIGNER, f'its certificate is of the issuer "{one_line(issuer, 200)}", not {self.issuer}'
            )
        if self.email and (_kind_of(self.email), self.email) not in names:
            shown = first_of([f'"{one_line(name, 200)}"' for _, name in names], 3) or "nobody"
            raise NotProven(Step.SIGNER, f"its certificate is of {shown}, not of {self.email}")
        if not hostname:
            raise NotProven(Step.SIGNER, f"its certificate is not of the host {self.hostname}")
        return self.words

    @property
    def words(self) -> str:
        subject = " and ".join(each for each in (self.email, self.hostname) if each)
        return f"{subject} (issuer {self.issuer})" if self.issuer else subject


def few_alike(chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The certificates of a chain through which a path may lead: none that vouches for itself, and a few with
    the same name and key."""
    found: list[x509.Certificate] = []
    alike: Counter[bytes] = Counter()
    for each in chain:
        with refusing(Step.READABLE, "its certificate can't be read"):
            subject = each.subject.public_bytes()
            key = each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            is_self_issued = each.issuer.public_bytes() == subject
        alike[subject + key] += 1
        if not is_self_issued and alike[subject + key] <= MAX_ALIKE:
            found.append(each)
    return found


def _kind_of(subject: str) -> str:
    if "://" in subject:
        return "uri"
    return "username" if "!" in subject and "@" not in subject else "email"


def read_certificates(raw: bytes, name: str) -> tuple[x509.Certificate, ...]:
    """Read the certificates of a policy, in PEM. Raises InvalidConfig with `name`."""
    try:
        with without_warnings():
            found = tuple(x509.load_pem_x509_certificates(raw))
    except ValueError:
        found = ()
    if not found:
        raise InvalidConfig(f"{name} holds no certificate in PEM that can be read")
    for each in found:
        if each.public_key_algorithm_oid not in _CA_KEYS:
            raise InvalidConfig(f"{name} holds a certificate whose key is neither ECDSA nor RSA")
    return found


def read_leaf(pem: bytes) -> x509.Certificate:
    """Read the one certificate of a signature. Raises NotProven."""
    found = read_chain(pem)
    if len(found) != 1:
        raise NotProven(Step.READABLE, f"it has {len(found)} certificates where one belongs")
    return found[0]


def read_chain(pem: bytes) -> list[x509.Certificate]:
    """Read what a signature brings along. Raises NotProven."""
    if len(pem) > MAX_CHAIN * MAX_CERTIFICATE or pem.count(b"-----BEGIN ") > MAX_CHAIN:
        raise NotProven(Step.READABLE, f"it has more than {MAX_CHAIN} certificates")
    with refusing(Step.READABLE, "its certificate can't be read"):
        return x509.load_pem_x509_certificates(pem)


def read_der(raw: bytes) -> x509.Certificate:
    """Read a certificate of a bundle. Raises NotProven."""
    if len(raw) > MAX_CERTIFICATE:
        raise NotProven(Step.READABLE, "its certificate is too large")
    with refusing(Step.READABLE, "its certificate can't be read"):
        return x509.load_der_x509_certificate(raw)


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def issuer_of(leaf: x509.Certificate) -> str:
    """Who told Fulcio the subject: the OIDC issuer in its extensions; "" without one. Raises NotProven if the
    old and the new form of it differ."""
    found = set()
    for extension in leaf.extensions:
        if not isinstance(extension.value, x509.UnrecognizedExtension):
            continue
        if extension.oid == _ISSUER_TEXT:
            found.add(extension.value.value.decode())
        elif extension.oid == _ISSUER_DER:
            found.add(_utf8_string(extension.value.value))
    if len(found) > 1:
        raise NotProven(Step.SIGNER, "its certificate has two issuers of its subject")
    return found.pop() if found else ""


def subjects_of(leaf: x509.Certificate) -> Iterator[tuple[str, str]]:
    """The e-mail addresses, URIs and user names of a certificate, each after its kind."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for name in names:
        if isinstance(name, x509.RFC822Name):
            yield "email", name.value
        elif isinstance(name, x509.UniformResourceIdentifier):
            yield "uri", name.value
        elif isinstance(name, x509.OtherName) and name.type_id == _USERNAME:
            yield "username", _utf8_string(name.value)


def _has_hostname(leaf: x509.Certificate, hostname: str) -> bool:
    """RFC 9525, section 6: a wildcard stands for the first label; an address is compared with addresses."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        address = ipaddress.ip_address(hostname.strip("[]"))
    except ValueError:
        wanted = hostname.lower().rstrip(".")
        _, _, domain = wanted.partition(".")
        accepted = {wanted, f"*.{domain}"} if "." in domain else {wanted}
        return any(each.lower().rstrip(".") in accepted for each in names.get_values_for_type(x509.DNSName))
    return address in names.get_values_for_type(x509.IPAddress)


def check_usage(leaf: x509.Certificate) -> None:
    """Raise NotProven if a signer's certificate says that it is for something else than signing code."""
    _check_purpose(leaf)
    with refusing(Step.SIGNER, "its certificate can't be read"):
        try:
            usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            return
        if not usage.digital_signature:
            raise NotProven(Step.SIGNER, "its certificate is not for signatures")


def _check_purpose(certificate: x509.Certificate) -> None:
    with refusing(Step.SIGNER, "its certificate can't be read"):
        try:
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return
        if not _SIGNING & set(usage):
            raise NotProven(Step.SIGNER, "its certificate is not for signing code")


def _extension_policies() -> tuple[ExtensionPolicy, ExtensionPolicy]:
    """Those of the web, but for what RFC 5280 leaves open and CAs of one's own leave out: openssl makes roots
    that don't say what their keys are for."""
    ca, signer = ExtensionPolicy.webpki_defaults_ca(), ExtensionPolicy.webpki_defaults_ee()
    ca = ca.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    ca = ca.may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_may_issue)
    signer = signer.may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, None)
    # Whether it is critical depends on the subject (RFC 5280, 4.2.1.6), which nobody reads here.
    signer = signer.require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    for optional in (x509.ExtendedKeyUsage, x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier):
        ca = ca.may_be_present(optional, Criticality.AGNOSTIC, None)
        signer = signer.may_be_present(optional, Criticality.AGNOSTIC, None)
    return ca, signer


def _check_may_issue(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("a certificate that may not issue others")


def _utf8_string(der: bytes) -> str:
    """A DER UTF8String, and nothing after it. Raises ValueError."""
    if len(der) < 2 or der[0] != _UTF8_STRING:
        raise ValueError("an issuer that is no text")
    length, start = der[1], 2
    if length in (0x81, 0x82):
        start += length & 0x0F
        length = int.from_bytes(der[2:start], "big")
    elif length > 0x7F:
        raise ValueError("an issuer that is too long")
    if len(der) != start + length:
        raise ValueError("an issuer with bytes after it")
    return der[start:].decode()


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
