"""Signs the true events of a soak: by secret, by public key, or by both."""

import hashlib
from collections.abc import Mapping

from dtcloud import signature
from simulator.signer import PUBLIC_KEY_HEADER, SECRET_HEADER, Signer

SECRET, PUBLIC_KEY, BOTH, OTHER_SECRET = "secret", "public key", "both", "public key and another secret"
PROOFS = (SECRET, PUBLIC_KEY, BOTH, OTHER_SECRET)


def proof_of(body: bytes) -> str:
    """Return how a body is signed: always in the same way, also in a retry."""
    return PROOFS[hashlib.sha256(body).digest()[0] % len(PROOFS)]


class MixedSigner(Signer):
    """Signs each body in one of the ways of `PROOFS`.

    "public key and another secret" is a request during the rotation of a secret: the token by public key proves it,
    whatever the other one is.
    """

    def headers(self, body: bytes, *, now: float, lifetime: float | None = None) -> Mapping[str, str]:
        """Return the headers of a body, as `Signer.headers` does."""
        headers = dict(super().headers(body, now=now, lifetime=lifetime))
        proof = proof_of(body)
        if proof == SECRET:
            del headers[PUBLIC_KEY_HEADER]
        elif proof == PUBLIC_KEY:
            del headers[SECRET_HEADER]
        elif proof == OTHER_SECRET:
            headers[SECRET_HEADER] = signature.sign(body, f"not {self.secret}", now=now)
        return headers
