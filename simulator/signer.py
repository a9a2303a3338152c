"""Signs bodies as DT Cloud does: a header for each kind of proof."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dtcloud import signature
from simulator import public_key
from simulator.public_key import SigningKey, new_key

SECRET_HEADER = signature.HEADER
PUBLIC_KEY_HEADER = "DT-Asymmetric-Signature"


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes the signature headers of a body: of each proof whose means it has.

    Attributes:
        secret: the signature secret, as of a Data Connector; None makes no `X-Dt-Signature`.
        key: returns the key that the identity provider signs with at present; None makes no `DT-Asymmetric-Signature`.
        organization: id of the DT organization that a public-key token names.
    """

    secret: str | None = field(default=None, repr=False)
    key: Callable[[], SigningKey] | None = None
    organization: str = ""

    @property
    def signs(self) -> bool:
        """Whether there is anything to sign with."""
        return bool(self.secret or self.key)

    def headers(self, body: bytes, *, now: float, lifetime: float | None = None) -> Mapping[str, str]:
        """Return the headers, each with a new token.

        Args:
            body: the raw body.
            now: the time, in seconds since the epoch.
            lifetime: seconds until the tokens expire; None is as long as DT Cloud's, negative has expired.
        """
        headers = {}
        if self.secret:
            seconds = signature.LIFETIME if lifetime is None else lifetime
            headers[SECRET_HEADER] = signature.sign(body, self.secret, now=now, lifetime=seconds)
        if self.key:
            seconds = public_key.LIFETIME if lifetime is None else lifetime
            headers[PUBLIC_KEY_HEADER] = public_key.sign(
                body, self.key(), organization=self.organization, now=now, lifetime=seconds
            )
        return headers

    def forger(self) -> "Signer":
        """Return a signer of the same kinds that has another secret, and another key under the true one's id."""
        secret = self.secret[::-1] + "?" if self.secret else None
        if self.key is None:
            return Signer(secret)
        true = self.key()
        false = replace(new_key(true.issuer, 0.0), key_id=true.key_id)
        return Signer(secret, lambda: false, self.organization)


def first_id(organizations: str) -> str:
    """Return the first id of a `DT_ORGANIZATION_ID`, for which the simulator signs; "" if there is none."""
    return next(filter(None, re.split(r"[,\s]+", organizations)), "")
