"""The settings are read once; a wrong value stops the start with one line that does not repeat it."""

import json
import os
import subprocess
import sys

import pytest
from functions_framework.aio import create_asgi_app

from receiver.settings import Settings, SettingsError, read_settings
from tests.conftest import ROOT

GOOD = {"DT_SIGNATURE_SECRET": "s3cret"}


def test_defaults() -> None:
    """With only a secret, every other setting has its default of the contract."""
    settings = read_settings(GOOD)

    assert settings == Settings(
        secrets=(b"s3cret",),
        organizations=frozenset(),
        issuer="https://identity.disruptive-technologies.com/data-connector",
        leeway=10,
        project=None,
        database="(default)",
        collection="events",
        retention_days=None,
        log_level=20,
        emulator_host=None,
    )


def test_blank_is_unset() -> None:
    """A variable that is set but blank has its default."""
    names = [name for name, _value in WRONG if name != "DT_SIGNATURE_SECRET"]

    assert read_settings(GOOD | dict.fromkeys(names, " ")) == read_settings(GOOD)


def test_every_setting_is_read() -> None:
    """Each variable of the contract reaches its setting."""
    environ = {
        "DT_SIGNATURE_SECRET": "\n new \r\n\n\told\n",
        "DT_ORGANIZATION_ID": " one,two \n\nthree,",
        "DT_IDENTITY_ISSUER": "http://127.0.0.1:9000/dc/",
        "SIGNATURE_LEEWAY_SECONDS": "0",
        "GOOGLE_CLOUD_PROJECT": "my-project",
        "FIRESTORE_DATABASE": "dt-events",
        "EVENTS_COLLECTION": "Ereignisse",
        "RETENTION_DAYS": "2",
        "LOG_LEVEL": "warning",
        "FIRESTORE_EMULATOR_HOST": "[::1]:8080",
    }

    settings = read_settings(environ)

    assert settings == Settings(
        (b"new", b"old"),
        frozenset({"one", "two", "three"}),
        "http://127.0.0.1:9000/dc/",
        0,
        "my-project",
        "dt-events",
        "Ereignisse",
        2,
        30,
        "[::1]:8080",
    )


def test_secrets_do_not_show() -> None:
    """The settings can be printed without a secret."""
    assert "s3cret" not in repr(read_settings(GOOD))


WRONG = [
    ("DT_SIGNATURE_SECRET", " \n\t\n"),
    ("SIGNATURE_LEEWAY_SECONDS", "-1"),
    ("SIGNATURE_LEEWAY_SECONDS", "2.5"),
    ("SIGNATURE_LEEWAY_SECONDS", "1_0"),
    ("SIGNATURE_LEEWAY_SECONDS", "٣"),
    ("FIRESTORE_DATABASE", "Upper"),
    ("FIRESTORE_DATABASE", "a/b/c/d"),
    ("DEVICES_COLLECTION", "a/b"),
    ("DEVICES_COLLECTION", "events"),
    ("DEVICES_COLLECTION", "events_quarantine"),
    ("EVENTS_COLLECTION", "a/b"),
    ("EVENTS_COLLECTION", ".."),
    ("EVENTS_COLLECTION", "__x__"),
    ("RETENTION_DAYS", "1"),
    ("RETENTION_DAYS", "0"),
    ("RETENTION_DAYS", "2.5"),
    ("RETENTION_DAYS", "never"),
    ("RETENTION_DAYS", "9" * 19),
    ("RETENTION_DAYS", "1000001"),
    ("EVENTS_COLLECTION", "/"),
    ("FIRESTORE_EMULATOR_HOST", "http://"),
    ("FIRESTORE_EMULATOR_HOST", "8080"),
    ("FIRESTORE_EMULATOR_HOST", ":8080"),
    ("FIRESTORE_EMULATOR_HOST", "[::1]"),
    ("FIRESTORE_EMULATOR_HOST", "::1"),
    ("DT_IDENTITY_ISSUER", "https://"),
    ("DT_IDENTITY_ISSUER", "http://"),
    ("LOG_LEVEL", "LOUD"),
    ("GOOGLE_CLOUD_PROJECT", "a b"),
    ("FIRESTORE_EMULATOR_HOST", "http://localhost:8080"),
    ("FIRESTORE_EMULATOR_HOST", "localhost"),
    ("FIRESTORE_EMULATOR_HOST", "::1:8080"),
    ("FIRESTORE_EMULATOR_HOST", "localhost:0"),
    ("FIRESTORE_EMULATOR_HOST", "localhost:65536"),
    ("GOOGLE_CLOUD_PROJECT", "prøject"),
    ("EVENTS_COLLECTION", "a\udcff"),
    ("FIRESTORE_EMULATOR_HOST", "[::2]"),
    ("DT_SIGNATURE_SECRET", '"4f0c1b7e52a94cd09d2a"'),
    ("DT_SIGNATURE_SECRET", "'4f0c1b7e52a94cd09d2a'"),
    ("DT_SIGNATURE_SECRET", '"4f0c1b7e52a94cd09d2a\n8d1e3c5a7b904f6e"'),
    ("DT_SIGNATURE_SECRET", 'plain\n"4f0c1b7e52a94cd09d2a"'),
    ("SIGNATURE_LEEWAY_SECONDS", "1000001"),
    ("DT_ORGANIZATION_ID", "organizations/c0md3pm0p7"),
    ("DT_ORGANIZATION_ID", '"c0md3pm0p7bet3vico8g"'),
    ("DT_IDENTITY_ISSUER", "http://identity.example.com"),
    ("DT_IDENTITY_ISSUER", "identity.example.com"),
    ("DT_IDENTITY_ISSUER", "https://:443"),
    ("DT_IDENTITY_ISSUER", "https://identity.example.com:port"),
    ("DT_IDENTITY_ISSUER", "https://[::1"),
    ("DT_IDENTITY_ISSUER", "https://user@identity.example.com"),
    ("DT_IDENTITY_ISSUER", "https://identity.example.com/?tenant=1"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_value_is_refused(name: str, value: str) -> None:
    """A wrong value is refused in one line that names the variable, never its value."""
    with pytest.raises(SettingsError) as refusal:
        read_settings(GOOD | {name: value})

    text = str(refusal.value)
    assert name in text
    assert "\n" not in text
    assert value.strip() == "" or value not in text


def test_retention_beyond_its_bound_names_the_bound() -> None:
    """The error for a retention that is too long says what is allowed."""
    with pytest.raises(SettingsError, match="a whole number of days, two or more, at most a million"):
        read_settings(GOOD | {"RETENTION_DAYS": "1000001"})


def test_leeway_beyond_its_bound_names_the_bound() -> None:
    """The error for a leeway that is too large says what is allowed."""
    with pytest.raises(SettingsError, match="a whole number of seconds, at most 1,000,000"):
        read_settings(GOOD | {"SIGNATURE_LEEWAY_SECONDS": "1000001"})


@pytest.mark.parametrize("host", ["[::1]:8080", "127.0.0.1:8080", "localhost:8080", "emulator.local:1", "x:65535"])
def test_emulator_host_that_can_connect_is_accepted(host: str) -> None:
    """FIRESTORE_EMULATOR_HOST is a name, an IPv4 address, or an IPv6 address in brackets, with a port."""
    assert read_settings(GOOD | {"FIRESTORE_EMULATOR_HOST": host}).emulator_host == host


@pytest.mark.parametrize("value", ["\ufeffone\r\n\n \ttwo \n", "one\n\ufefftwo", "\udcef\udcbb\udcbfone\ntwo"])
def test_secrets_as_people_paste_them(value: str) -> None:
    """A byte order mark, blank lines and surrounding white space are not part of a secret."""
    assert read_settings({"DT_SIGNATURE_SECRET": value}).secrets == (b"one", b"two")


@pytest.mark.parametrize("secret", ['"', "it's", "'x", 'x"y"'])
def test_quotes_within_a_secret_are_kept(secret: str) -> None:
    """Only a value that is enclosed in quotes is refused."""
    assert read_settings({"DT_SIGNATURE_SECRET": secret + "x"}).secrets == ((secret + "x").encode(),)


def test_missing_secret_is_refused() -> None:
    """Without a proof that is switched on, the process does not start, and both settings are named."""
    with pytest.raises(SettingsError, match=r"DT_SIGNATURE_SECRET.*DT_ORGANIZATION_ID"):
        read_settings({})


def test_emulator_is_refused_on_cloud_run() -> None:
    """On Cloud Run an emulator host, which would make the client anonymous and unencrypted, is refused."""
    with pytest.raises(SettingsError, match="FIRESTORE_EMULATOR_HOST"):
        read_settings(GOOD | {"K_SERVICE": "dt", "FIRESTORE_EMULATOR_HOST": "localhost:8080"})


@pytest.mark.parametrize("issuer", ["http://localhost:1/x", "http://127.0.0.2", "http://[::1]:8080", "https://x.org"])
def test_issuer_by_http_is_for_this_machine(issuer: str) -> None:
    """An issuer by http:// must be on a loopback host, and is refused on Cloud Run."""
    assert read_settings(GOOD | {"DT_IDENTITY_ISSUER": issuer}).issuer == issuer

    if issuer.startswith("http://"):
        with pytest.raises(SettingsError, match="DT_IDENTITY_ISSUER"):
            read_settings(GOOD | {"DT_IDENTITY_ISSUER": issuer, "K_SERVICE": "dt"})


def test_organization_without_a_secret_suffices() -> None:
    """With only DT_ORGANIZATION_ID the process starts."""
    settings = read_settings({"DT_ORGANIZATION_ID": "c0md3pm0p7bet3vico8g"})

    assert settings.secrets == ()
    assert settings.organizations == {"c0md3pm0p7bet3vico8g"}


def test_short_secrets_are_reported_at_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A short secret is one line of JSON at start, and not on standard output, which has one line a request."""
    monkeypatch.setenv("DT_SIGNATURE_SECRET", "short\n" + "long" * 8)

    create_asgi_app(target="dataconnector_endpoint", source=str(ROOT / "main.py"))

    output, errors = capfd.readouterr()
    line = json.loads(errors)
    assert line["severity"] == "WARNING"
    assert line["message"].startswith("DT_SIGNATURE_SECRET: 1 of the secrets is shorter than 32 bytes")
    assert output == ""


def test_module_does_not_load_with_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading main.py with a wrong setting ends the process with the reason."""
    monkeypatch.setenv("DT_SIGNATURE_SECRET", "")

    with pytest.raises(SystemExit, match="DT_SIGNATURE_SECRET and DT_ORGANIZATION_ID are missing"):
        create_asgi_app(target="dataconnector_endpoint", source=str(ROOT / "main.py"))


@pytest.mark.parametrize("asgi", ["", "true"])
def test_process_does_not_start_with_a_wrong_value(asgi: str) -> None:
    """functions-framework ends with one line on standard error, not with a traceback."""
    environ = {**os.environ, "DT_SIGNATURE_SECRET": "hush-hush", "RETENTION_DAYS": "17.5", "FUNCTION_USE_ASGI": asgi}
    command = [sys.executable, "-m", "functions_framework", "--target=dataconnector_endpoint", "--port=0"]

    process = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert process.returncode == 1
    assert process.stderr == "RETENTION_DAYS must be a whole number of days, two or more, at most a million\n"
    assert "hush-hush" not in process.stdout + process.stderr
