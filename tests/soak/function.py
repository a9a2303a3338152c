"""main.py as a soak runs it: the pauses between two fetches of DT's keys are shortened, as those of the sender are."""

from receiver import key_set
from tests.soak.schedule import KEYS_KEPT, KEYS_REFETCH, KEYS_RETRY

key_set.KEPT_SECONDS, key_set.REFETCH_SECONDS, key_set.FIRST_RETRY_SECONDS = KEYS_KEPT, KEYS_REFETCH, KEYS_RETRY

from main import dataconnector_endpoint  # noqa: E402 - after the change

__all__ = ["dataconnector_endpoint"]
