"""A stranger who knows all that is public, and forges public-key tokens while a soak runs."""

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from simulator.connector import Connector
from simulator.identity_provider import KEYS_PATH, IdentityProvider
from simulator.sensors import ORGANIZATION_ID, default_device, encode, envelope, event
from simulator.signer import PUBLIC_KEY_HEADER, SECRET_HEADER
from tests import signing
from tests.soak.fault_injector import WORKERS, FaultInjector
from tests.soak.ledger import Account, Ledger
from tests.soak.schedule import KEYS_RETRY

_PAUSE = 0.15  # seconds between two forgeries
_FLOOD = 40  # requests at once with unknown key ids
_REQUESTS = 2  # of a fetch: discovery document and key set
_OTHER_ORGANIZATION = "another0organization"

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Means:
    """What a forger works with.

    Attributes:
        provider: DT's; the forger uses only its public key, and tokens for another organization, which a customer has.
        own: the forger's own identity provider.
    """

    provider: IdentityProvider
    own: IdentityProvider

    def claims(self, body: bytes, **changes: Any) -> dict[str, Any]:
        """Return the claims of a true token."""
        return signing.public_claims_of(body, **({"iss": self.provider.issuer, "sub": ORGANIZATION_ID} | changes))

    def header(self, **changes: Any) -> dict[str, Any]:
        """Return the JOSE header of a true token."""
        return {"alg": "ES256", "kid": self.provider.key.key_id, "typ": "JWT"} | changes

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """DT's public key."""
        return self.provider.key.private_key.public_key()

    def signed(self, body: bytes, **header: Any) -> Headers:
        """Return a token with true claims that the forger's key signs."""
        token = signing.public_token(self.claims(body), self.own.key.private_key, header=self.header(**header))
        return {PUBLIC_KEY_HEADER: token}


def _of_another_organization(means: Means, body: bytes) -> Headers:
    claims = means.claims(body, sub=_OTHER_ORGANIZATION)
    return {PUBLIC_KEY_HEADER: signing.public_token(claims, means.provider.key.private_key, header=means.header())}


def _of_another_issuer(means: Means, body: bytes) -> Headers:
    claims, header = means.claims(body, iss=means.own.issuer), means.header(kid=means.own.key.key_id)
    return {PUBLIC_KEY_HEADER: signing.public_token(claims, means.own.key.private_key, header=header)}


def _with_the_public_key_as_secret(means: Means, body: bytes) -> Headers:
    pem = means.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return {
        PUBLIC_KEY_HEADER: signing.token(means.claims(body), pem, header=means.header(alg="HS256")),
        SECRET_HEADER: signing.sign(body, pem),
    }


def _without_algorithm(means: Means, body: bytes) -> Headers:
    token = signing.token(means.claims(body), header=means.header(alg="none"))
    return {PUBLIC_KEY_HEADER: f"{token.rpartition('.')[0]}."}


def _with_a_certificate(means: Means, body: bytes) -> Headers:
    der = means.own.key.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return means.signed(body, x5c=[base64.b64encode(der).decode()])


@dataclass(frozen=True, slots=True)
class Forgery:
    """A way to forge.

    Attributes:
        headers: returns the headers for a body.
        looks_up: whether only DT's keys tell that the token is forged: without them, the answer is 503.
        times: how many are sent at once.
    """

    headers: Callable[[Means, bytes], Headers]
    looks_up: bool
    times: int = 1


FORGERIES = {
    "another organization": Forgery(_of_another_organization, looks_up=False),
    "another issuer": Forgery(_of_another_issuer, looks_up=False),
    "public key as secret": Forgery(_with_the_public_key_as_secret, looks_up=False),
    "no algorithm": Forgery(_without_algorithm, looks_up=False),
    "another key": Forgery(lambda means, body: means.signed(body), looks_up=True),
    "key in the header": Forgery(
        lambda means, body: means.signed(body, jwk=signing.jwk(means.own.key.private_key)), looks_up=True
    ),
    "certificate in the header": Forgery(_with_a_certificate, looks_up=True),
    "address of keys in the header": Forgery(
        lambda means, body: means.signed(body, kid=means.own.key.key_id, jku=means.own.issuer + KEYS_PATH),
        looks_up=True,
    ),
    "unknown key ids": Forgery(
        lambda means, body: means.signed(body, kid=secrets.token_hex(10)), looks_up=True, times=_FLOOD
    ),
}


@dataclass
class Forger:
    """Sends forged tokens, each kind in turn.

    Attributes:
        connector: sends the requests, which it does not count.
        system: what is attacked, with both identity providers.
        ledger: is told of the bodies.
        rng: draws the values of the events.
        account: the promises that the answers and the fetches of keys have broken.
        sent: the number of forged requests by kind.
    """

    connector: Connector
    system: FaultInjector
    ledger: Ledger
    rng: Random
    account: Account = field(default_factory=Account)
    sent: Counter[str] = field(default_factory=Counter)

    async def attack(self) -> None:
        """Send forgeries until cancelled."""
        while True:
            for kind, forgery in FORGERIES.items():
                await asyncio.sleep(_PAUSE)
                await self._send(kind, forgery)

    async def _send(self, kind: str, forgery: Forgery) -> None:
        provider, start = self.system.provider, asyncio.get_running_loop().time()
        before = provider.requests
        await asyncio.gather(*(self._forge(kind, forgery) for _ in range(forgery.times)))
        seconds = asyncio.get_running_loop().time() - start
        most = WORKERS * (2 + seconds / KEYS_RETRY)  # 2: a process may also be started meanwhile
        if provider.requests - before > most * _REQUESTS:
            self.account.note("keys fetched too often", f"{provider.requests - before} requests in {seconds:.1f} s")

    async def _forge(self, kind: str, forgery: Forgery) -> None:
        content = event("temperature", rng=self.rng, now=datetime.now(UTC))
        body = encode(envelope(content, default_device("temperature")))
        self.ledger.forged(content["eventId"], body)
        self.sent[kind] += 1
        attempt = await self.connector.request(
            body, forgery.headers(Means(self.system.provider, self.system.stranger), body)
        )
        if attempt.acknowledged:
            self.ledger.acknowledged(body)
        elif attempt.status not in (None, 400) and not (
            attempt.status == 503 and forgery.looks_up and self.system.keys_may_be_missing
        ):
            self.account.note("forged and not refused", f"{kind}: {attempt.status}")
