"""What counts as authentic: one of the proofs that are switched on verifies in full, checksums included."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from receiver.errors import Refusal, Unavailable, Unverified
from receiver.settings import Settings
from receiver.signature import Claims, check_checksums, verify_token

Headers = Mapping[str, str]
Proof = Callable[[Headers], Awaitable[Claims]]


class Authentic(NamedTuple):
    """A request whose origin and integrity are proved.

    Attributes:
        body: the raw body.
        proof: the name of the proof that verified.
        seconds: how long the tokens took to verify: with a fetch of keys, up to 3 s.
    """

    body: bytes
    proof: str
    seconds: float


def proofs(settings: Settings) -> dict[str, Proof]:
    """Return the proofs that are switched on, in the order in which they are tried: the secret needs no fetch."""
    switched_on: dict[str, Proof] = {}
    if settings.secrets:
        switched_on["secret"] = _by_secret(settings)
    if settings.organizations:
        switched_on["public_key"] = _by_public_key(settings)
    return switched_on


async def authenticate(
    headers: Headers, read_body: Callable[[], Awaitable[bytes]], proofs: Mapping[str, Proof]
) -> Authentic:
    """Verify the tokens, then read the body, then compare the checksums.

    Args:
        headers: of the request.
        read_body: is called once, after a token has verified.
        proofs: as `proofs` returns them; one of them suffices.

    Raises:
        Unverified: no proof verifies.
        Unavailable: no proof verifies, and one could not be examined for want of a key.
        Refusal: as raised by `read_body`.
    """
    refusals: list[Refusal] = []
    body: bytes | None = None
    seconds = 0.0
    for name, verify in proofs.items():
        started = time.monotonic()
        try:
            claims = await verify(headers)
        except (Unverified, Unavailable) as refusal:
            refusals.append(refusal)
            continue
        finally:
            seconds += time.monotonic() - started
        body = await read_body() if body is None else body
        try:
            check_checksums(claims, body)
        except Unverified as refusal:
            refusals.append(refusal)
        else:
            return Authentic(body, name, seconds)
    raise _refusal(refusals)


def _refusal(refusals: list[Refusal]) -> Refusal:
    unavailable = next((refusal for refusal in refusals if isinstance(refusal, Unavailable)), None)
    return unavailable or Unverified("; ".join(refusal.reason for refusal in refusals))


def _by_secret(settings: Settings) -> Proof:
    async def verify(headers: Headers) -> Claims:
        token = headers.get("x-dt-signature")
        return verify_token(token, secrets=settings.secrets, leeway=settings.leeway, now=time.time())

    return verify


def _by_public_key(settings: Settings) -> Proof:
    from receiver.key_set import KeySet  # noqa: PLC0415 - a cold start without this proof does not load them
    from receiver.public_key import parse_token, verify_signature  # noqa: PLC0415

    keys = KeySet(settings.issuer)

    async def verify(headers: Headers) -> Claims:
        token = parse_token(
            headers.get("dt-asymmetric-signature"),
            issuer=settings.issuer,
            organizations=settings.organizations,
            leeway=settings.leeway,
            now=time.time(),
        )
        return verify_signature(token, await keys.key(token.key_id))

    return verify
