"""Google's credentials for the channel to the real Firestore. Loaded only for it: an emulator needs none of this."""

import threading
from functools import partial
from typing import Any, NamedTuple

import google.auth
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport

from receiver.channel import CHANNEL_OPTIONS, OpenChannel
from receiver.errors import Unavailable

HOST = Transport.DEFAULT_HOST


class Google(NamedTuple):
    """What `find` found.

    Attributes:
        project: the Google Cloud project id.
        credentials: fetch access tokens.
        open_channel: makes a channel to Firestore with the credentials.
    """

    project: str
    credentials: "PatientCredentials"
    open_channel: OpenChannel


class PatientCredentials:
    """Adds access tokens to requests; the refresh of a token that is still valid delays and fails no request.

    google-auth refreshes a token in the last 3 min 45 s of its life, and a request waits for that. With its own
    non-blocking refresh, requests wait again after the first refresh that failed.

    Attributes:
        waiting: how many requests wait for their first token or for the successor of an expired one.
    """

    def __init__(self, wrapped: Credentials) -> None:
        """Initialize."""
        self._wrapped = wrapped
        self._refreshing = threading.Lock()
        self.waiting = 0

    def before_request(self, request: Any, method: str, url: str, headers: dict[str, str]) -> None:
        """Add the access token to the headers; refresh it in a thread while it is valid, and at once when it is not."""
        if self._wrapped.token_state is TokenState.STALE:
            if self._refreshing.acquire(blocking=False):
                threading.Thread(target=self._refresh_quietly, args=(request,), daemon=True).start()
            self._wrapped.apply(headers)
            return
        self.waiting += 1
        try:
            self._wrapped.before_request(request, method, url, headers)
        finally:
            self.waiting -= 1

    def _refresh_quietly(self, request: Any) -> None:
        try:
            self._wrapped.refresh(request)
        except GoogleAuthError:
            pass  # the next request tries again; the log names the credentials once the token has expired
        finally:
            self._refreshing.release()


def find(project: str | None) -> Google:
    """Find the application default credentials.

    Args:
        project: Google Cloud project id; None takes that of the credentials.

    Raises:
        Unavailable: there are no credentials, or no project.
    """
    try:
        credentials, own_project = google.auth.default(scopes=Transport.AUTH_SCOPES)
    except GoogleAuthError as error:
        raise Unavailable(f"no Google Cloud credentials ({type(error).__name__})") from None
    if not (found := project or own_project):
        raise Unavailable("the credentials name no project: set GOOGLE_CLOUD_PROJECT")
    patient: Any = PatientCredentials(credentials)
    return Google(found, patient, partial(Transport.create_channel, HOST, credentials=patient, options=CHANNEL_OPTIONS))
