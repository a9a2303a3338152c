"""DT's public keys: discovered, fetched when they are needed, and kept."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from receiver.errors import Unavailable, Unverified
from receiver.fetch import FetchError, fetch
from receiver.settings import is_loopback

FETCH_SECONDS = 3.0  # for discovery and key set together
KEPT_SECONDS = 3600.0
REFETCH_SECONDS = 30.0  # from one fetch to the next, for an unknown key id or a renewal
FIRST_RETRY_SECONDS = 5.0  # the same, as long as there are no keys
RENEWAL_SECONDS = 1.0  # how long the one delivery that starts a renewal waits for it

_OPTIONAL = {"use": "sig", "alg": "ES256"}  # what a key may say of itself


class KeySet:
    """The public keys of an issuer.

    Every delivery that needs a new key waits for the same fetch; a delivery that is cancelled does not end it for the
    others. A set that cannot be read never replaces the keys that are held. After an hour they are renewed. Only the
    delivery that starts the renewal waits for it, and only for a short time, because the keys that are held stay in
    use. It has to wait a little: Cloud Run may withdraw the CPU after the last answer.
    """

    def __init__(self, issuer: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Initialize; nothing is fetched yet.

        Args:
            issuer: URL below which the discovery document is.
            clock: returns seconds; for the age of the keys.
        """
        self._issuer = issuer
        self._clock = clock
        self._keys: Mapping[str, EllipticCurvePublicKey] = {}
        self._fetched = -math.inf  # start of the fetch of these keys
        self._attempted = -math.inf  # start of the last fetch
        self._problem: str | None = None  # of the last fetch
        self._task: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> EllipticCurvePublicKey:
        """Return a key of the issuer, after at most `FETCH_SECONDS`.

        Raises:
            Unverified: the issuer has no such key.
            Unavailable: there is no such key among those that are held, if any, and the issuer's cannot be fetched.
        """
        if key_id not in self._keys:
            await self._wait(self._running() or self._start(), None)
        elif self._clock() - self._fetched >= KEPT_SECONDS and not self._running():
            await self._wait(self._start(), RENEWAL_SECONDS)
        if key_id in self._keys:
            return self._keys[key_id]
        if self._problem is None:
            raise Unverified("the issuer has no key with the id that the token names")
        raise Unavailable(f"no public key from the identity provider {self._issuer}: {self._problem}")

    @staticmethod
    async def _wait(task: asyncio.Task[None] | None, seconds: float | None) -> None:
        if task:
            await asyncio.wait({task}, timeout=seconds)

    def _running(self) -> asyncio.Task[None] | None:
        """Return the fetch that is under way in this event loop: another loop may have been closed before its end."""
        task = self._task
        return task if task and not task.done() and task.get_loop() is asyncio.get_running_loop() else None

    def _start(self) -> asyncio.Task[None] | None:
        """Start a fetch, unless the last one is too recent."""
        now = self._clock()
        if now - self._attempted < (REFETCH_SECONDS if self._keys else FIRST_RETRY_SECONDS):
            return None
        self._attempted = now
        self._problem = "the fetch was interrupted"
        self._task = asyncio.create_task(self._fetch(now))
        return self._task

    async def _fetch(self, now: float) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = await fetch_keys(self._issuer)
        except TimeoutError:
            self._problem = f"no complete answer within {FETCH_SECONDS:g} s"
        except FetchError as error:
            self._problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the answer, there are no new keys
            self._problem = type(error).__name__
        else:
            self._keys, self._fetched, self._problem = keys, now, None


async def fetch_keys(issuer: str) -> dict[str, EllipticCurvePublicKey]:
    """Fetch the usable keys of an issuer, by id.

    Raises:
        FetchError: the discovery document or the key set is not valid.
        Exception: as `fetch` and `json.loads` raise them.
    """
    discovery = json.loads(await fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
    return usable_keys(json.loads(await fetch(key_set_url(discovery, issuer))))


def key_set_url(discovery: Any, issuer: str) -> str:
    """Return the URL of the key set: `https`, or `http` if both it and the issuer are on this machine.

    Args:
        discovery: the discovery document, as of OpenID Connect Discovery 1.0.
        issuer: the issuer, from whose URL it comes; it must name no other one.

    Raises:
        FetchError: the discovery document is not valid.
    """
    if not isinstance(discovery, dict) or discovery.get("issuer", issuer) != issuer:
        raise FetchError("the discovery document is of another issuer")
    url = discovery.get("jwks_uri")
    if isinstance(url, str):
        local = url.startswith("http://") and is_loopback(url) and is_loopback(issuer)
        if local or url.startswith("https://"):
            return url
    raise FetchError("the discovery document names no key set by https")


def usable_keys(key_set: Any) -> dict[str, EllipticCurvePublicKey]:
    """Return the keys of a JSON Web Key Set that can verify ES256, by id; others are skipped.

    Raises:
        FetchError: there are none.
    """
    entries = key_set.get("keys") if isinstance(key_set, dict) else None
    keys: dict[str, EllipticCurvePublicKey] = {}
    for entry in entries if isinstance(entries, list) else ():
        if key := _usable_key(entry):
            keys.setdefault(entry["kid"], key)
    if not keys:
        raise FetchError("the key set has no usable key")
    return keys


def _usable_key(entry: Any) -> EllipticCurvePublicKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    if any(entry.get(name, value) != value for name, value in _OPTIONAL.items()) or entry.get("crv") != "P-256":
        return None
    try:
        key = jwt.PyJWK(entry, "ES256").key
    except jwt.PyJWTError:
        return None
    return key if isinstance(key, EllipticCurvePublicKey) else None
