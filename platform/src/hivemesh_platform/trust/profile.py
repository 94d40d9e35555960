"""How long certificates are valid, and the certificates themselves. Pure; the authority signs.

What they look like is `hivemesh_sdk.trust.profile`, so that the tests' throw-away authority
builds the same ones.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import PrivateKey
from hivemesh_sdk.trust.profile import (
    PublicKey,
    Signer,
    Validity,
    issuer_certificate,
    leaf_certificate,
    root_certificate,
)

from hivemesh_platform.settings import TrustSettings

BACKDATE = timedelta(seconds=60)  # clocks of one installation may differ by a minute
SIGNER_BACKDATE = timedelta(days=1)  # a clock that is set back must not lie before all that signs


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long each kind of certificate is valid."""

    root: timedelta = timedelta(days=3650)
    issuer: timedelta = timedelta(days=7)
    svid: timedelta = timedelta(hours=1)


_LEAST = Lifetimes(root=timedelta(days=30), issuer=timedelta(hours=1), svid=timedelta(minutes=5))
_LEAST_LOCAL = Lifetimes(
    root=timedelta(days=1), issuer=timedelta(seconds=60), svid=timedelta(seconds=10)
)
_LONGEST_SVID = timedelta(hours=24)


def lifetimes_of(settings: TrustSettings, *, local: bool) -> Lifetimes:
    """The lifetimes that the settings name; raises as `check_lifetimes`."""
    lifetimes = Lifetimes(
        root=timedelta(seconds=settings.root_lifetime_s),
        issuer=timedelta(seconds=settings.issuer_lifetime_s),
        svid=timedelta(seconds=settings.svid_lifetime_s),
    )
    return check_lifetimes(lifetimes, local=local)


def check_lifetimes(lifetimes: Lifetimes, *, local: bool) -> Lifetimes:
    """Return the lifetimes unchanged.

    Raises:
        ConfigurationError: one is too short for the mode, too long, or outlives its signer.
    """
    least = _LEAST_LOCAL if local else _LEAST
    for name in ("root", "issuer", "svid"):
        given, bound = getattr(lifetimes, name), getattr(least, name)
        if given < bound:
            message = f"a lifetime of {given} for {name} is too short; the least is {bound}"
            raise ConfigurationError(message)
    if lifetimes.svid > _LONGEST_SVID:
        message = f"a lifetime of {lifetimes.svid} for svid is too long; at most {_LONGEST_SVID}"
        raise ConfigurationError(message)
    if not 2 * lifetimes.svid <= lifetimes.issuer <= lifetimes.root / 2:
        message = "an issuer must live at least twice as long as what it signs, a root likewise"
        raise ConfigurationError(message)
    return lifetimes


def build_root(trust_domain: str, key: PrivateKey, now: datetime, life: Lifetimes) -> Signer:
    """The self-signed root."""
    validity = Validity(now - SIGNER_BACKDATE, now + life.root)
    return Signer(root_certificate(trust_domain, key, validity), key)


def build_issuer(
    trust_domain: str, key: PrivateKey, root: Signer, now: datetime, life: Lifetimes
) -> Signer:
    """The issuer, which never outlives its root."""
    validity = _within(root.certificate, now, life.issuer, SIGNER_BACKDATE)
    return Signer(issuer_certificate(trust_domain, key.public_key(), root, validity), key)


def build_leaf(
    identity: SpiffeId, public_key: PublicKey, issuer: Signer, now: datetime, life: Lifetimes
) -> x509.Certificate:
    """The certificate of one process or person, which never outlives its issuer."""
    validity = _within(issuer.certificate, now, life.svid)
    return leaf_certificate(identity, public_key, issuer, validity)


def half_life(certificate: x509.Certificate, life: timedelta) -> datetime:
    """When a certificate's successor is due."""
    return certificate.not_valid_after_utc - life / 2


def _within(
    signer: x509.Certificate, now: datetime, life: timedelta, backdate: timedelta = BACKDATE
) -> Validity:
    return Validity(
        max(now - backdate, signer.not_valid_before_utc),
        min(now + life, signer.not_valid_after_utc),
    )
