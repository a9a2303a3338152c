"""The parts of the fake control plane that build, run and serve functions: Cloud Functions and Cloud Run.

Each revision of a function is a process on this machine. An `Endpoint` is the stable URL of a service: it lets everyone
in or nobody, as the service's IAM policy says, and passes deliveries to the revision that the traffic goes to.
"""

import contextlib
import copy
import http.client
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.control_plane import ROUTES, ControlPlane, ErrorResponse, Json, State, operation
from tests.json_server import LocalServer

_NUMBER = "123456789012"
_INVOKER_CHECK = "run.googleapis.com/invoker-iam-disabled"
_BUILD_ROLES = {"roles/storage.objectViewer", "roles/artifactregistry.writer", "roles/logging.logWriter"}
_ANY_BUILD_ROLES = ({"roles/cloudbuild.builds.builder"}, {"roles/editor"}, {"roles/owner"}, _BUILD_ROLES)


Deploy = Callable[[bytes, Json, dict[str, list[bytes]]], str]


class GoogleCloud(ControlPlane):
    """A fake of Google Cloud whose functions run on this machine.

    Attributes:
        faulty: the revisions that answer every delivery with 500.
        old_instances: how many deliveries the revision before the present one still answers.
        endpoints: of services, by name.
        urls: of the processes of revisions, by name.
        replaced: by service, the revision before the one that serves.
        made: the number of revisions.
    """

    def __init__(self, project: str, emulator_host: str, deploy: Deploy) -> None:
        """Start with an empty project.

        Args:
            project: the id of the project.
            emulator_host: of the Firestore that the functions use.
            deploy: starts an uploaded bundle with the function's configuration and the versions of all secrets, and
                returns its URL.
        """
        self.deploy = deploy
        self.faulty: set[str] = set()
        self.old_instances = 0
        self.endpoints: dict[str, Endpoint] = {}
        self.urls: dict[str, str] = {}
        self.replaced: dict[str, str] = {}
        self.made = 0
        super().__init__(project, emulator_host)

    def reset(self, state: State) -> None:
        """Take a state, and behave without errors."""
        super().reset(state)
        self.faulty, self.old_instances = set(), 0

    def stop(self) -> None:
        """Stop listening."""
        super().stop()
        for endpoint in self.endpoints.values():
            endpoint.stop()


class Endpoint(LocalServer):
    """The URL of a service, which stays the same over all revisions.

    Attributes:
        statuses: the status of each response.
    """

    def __init__(self, plane: GoogleCloud, name: str) -> None:
        """Listen on a free port."""
        self._plane, self._name = plane, name
        self.statuses: list[int] = []
        super().__init__(_Handler)

    def deliver(self, method: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        """Pass a request to the revision that serves, and return status and body of its response."""
        status, text = self._respond(method, headers, body)
        self.statuses.append(status)
        return status, text

    def _respond(self, method: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        state = self._plane.state
        service = state.services.get(self._name)
        if service is None:
            return 404, b"not found"
        if not _is_public(self._plane, service):
            return 403, b"forbidden"
        revision = self._revision(service)
        if revision in self._plane.faulty:
            return 500, b"a fault of the fake"
        if not _may_write(self._plane, state.revisions[revision]["spec"]):
            return 503, b"Firestore: PERMISSION_DENIED"
        url = urlsplit(self._plane.urls[revision])
        with contextlib.closing(http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)) as connection:
            connection.request(method, "/", body, dict(headers.items()))
            response = connection.getresponse()
            return response.status, response.read()

    def _revision(self, service: Json) -> str:
        """Return the revision that serves; for the first requests after a change an old instance may answer."""
        if self._plane.old_instances and (old := self._plane.replaced.get(self._name)):
            self._plane.old_instances -= 1
            return old
        return str(service["status"]["traffic"][0]["revisionName"])


class _Handler(BaseHTTPRequestHandler):
    owner: Endpoint

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, text = self.owner.deliver(self.command, self.headers, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = handle_any  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


def _is_public(plane: GoogleCloud, service: Json) -> bool:
    if service["metadata"]["annotations"].get(_INVOKER_CHECK, "").lower() == "true":
        return True
    policy = plane.state.policies.get(_service_path(plane, service["metadata"]["name"]), {})
    return any("allUsers" in binding["members"] for binding in policy.get("bindings", []))


def _service_path(plane: GoogleCloud, name: str) -> str:
    return f"projects/{plane.project}/locations/europe-west1/services/{name}"


def _may_write(plane: GoogleCloud, spec: Json) -> bool:
    """Return whether the role of a revision's account suffices for what the revision does."""
    environment = {each["name"]: each.get("value", "") for each in spec["containers"][0]["env"]}
    database = f"projects/{plane.project}/databases/{environment['FIRESTORE_DATABASE']}"
    needed = {"datastore.entities.create"}
    if environment.get("DEVICES_COLLECTION"):
        needed |= {"datastore.entities.get", "datastore.entities.update"}
    granted: set[str] = set()
    for role, condition in _roles_of(plane, spec["serviceAccountName"]):
        if condition in (None, f'resource.name=="{database}"') and role in plane.state.roles:
            granted |= set(plane.state.roles[role]["includedPermissions"])
    return needed <= granted


def _roles_of(plane: GoogleCloud, email: str) -> list[tuple[str, str | None]]:
    bindings = plane.state.policies.get(f"projects/{plane.project}", {}).get("bindings", [])
    prefix = f"projects/{plane.project}/roles/"
    return [
        (binding["role"].removeprefix(prefix), binding.get("condition", {}).get("expression"))
        for binding in bindings
        if f"serviceAccount:{email}" in binding["members"]
    ]


# --- Cloud Functions -------------------------------------------------------------------------------------------------


def _build_account(plane: GoogleCloud, *_: Any) -> Json:
    email = f"{_NUMBER}-compute@developer.gserviceaccount.com"
    return {"serviceAccountEmail": f"projects/{plane.project}/serviceAccounts/{email}"}


def _runtimes(*_: Any) -> Json:
    runtimes = [{"name": name, "environment": "GEN_2", "stage": "GA"} for name in ("python312", "python313")]
    return {"runtimes": runtimes}


def _functions(plane: GoogleCloud, *_: Any) -> Json:
    return {"functions": list(plane.state.functions.values())}


def _function(plane: GoogleCloud, _body: Any, _query: Any, path: str) -> Json:
    """Return a function; a deployment that is in progress ends after one look at it."""
    function = plane.state.functions[path]
    if function["state"] == "DEPLOYING":
        plane.state.functions[path] = {**function, "state": "ACTIVE"}
    return function


def _upload_url(plane: GoogleCloud, *_: Any) -> Json:
    return {"uploadUrl": f"{plane.url}/upload", "storageSource": {"bucket": "sources", "object": "bundle.zip"}}


def _upload(plane: GoogleCloud, body: bytes, *_: Any) -> Json:
    plane.state.bundle = body
    return {}


def _create_function(plane: GoogleCloud, body: Json, query: dict[str, list[str]], parent: str) -> Json:
    return _deploy(plane, f"{parent}/functions/{query['functionId'][0]}", body)


def _update_function(plane: GoogleCloud, body: Json, query: dict[str, list[str]], path: str) -> Json:
    function = copy.deepcopy(plane.state.functions[path])
    for field in query["updateMask"][0].split(","):
        part: Json = function
        given: Json = body
        *parents, name = (re.sub("_(.)", lambda match: match[1].upper(), each) for each in field.split("."))
        for parent in parents:
            part, given = part.setdefault(parent, {}), given.get(parent, {})
        part.pop(name, None)
        if name in given:
            part[name] = given[name]
    return _deploy(plane, path, function)


def _deploy(plane: GoogleCloud, path: str, function: Json) -> Json:
    """Build and start a revision; a deployment that fails changes the function, but not its service."""
    name = path.rpartition("/")[2]
    url = _endpoint(plane, name).url
    service = {"uri": url, "service": _service_path(plane, name)}
    function = {**function, "name": path, "environment": "GEN_2", "state": "ACTIVE", "url": url}
    function["serviceConfig"] = {"maxInstanceCount": 100, **function["serviceConfig"], **service}
    plane.state.functions[path] = function
    parent = path.partition("/functions")[0]
    if error := _deployment_error(plane, function):
        function["state"] = "ACTIVE" if name in plane.state.services else "FAILED"
        return operation(plane, parent=parent, error=error)
    revision = _add_revision(plane, name, _container(function["serviceConfig"]))
    plane.urls[revision] = plane.deploy(plane.state.bundle, function, plane.state.secrets)
    plane.state.repositories.add("gcf-artifacts")
    plane.state.buckets |= {f"gcf-v2-{kind}-{_NUMBER}-europe-west1" for kind in ("sources", "uploads")}
    _serve(plane, name, revision, [{"latestRevision": True, "percent": 100}])
    return operation(plane, function, parent)


def _endpoint(plane: GoogleCloud, name: str) -> Endpoint:
    if name not in plane.endpoints:
        plane.endpoints[name] = Endpoint(plane, name)
    return plane.endpoints[name]


def _deployment_error(plane: GoogleCloud, function: Json) -> str:
    """Return why a deployment fails, as the operation says it."""
    config, state = function["serviceConfig"], plane.state
    builder = function["buildConfig"].get("serviceAccount", "").rpartition("/")[2]
    roles = {role for role, _ in _roles_of(plane, builder)}
    if not any(needed <= roles for needed in _ANY_BUILD_ROLES):
        return (
            f"Build failed: {builder or 'the default account'} does not have storage.objects.get access to the source"
        )
    if config.get("maxInstanceCount", 100) > state.quota:
        return f"Max instances must be set to {state.quota} or fewer in order to set the requested total CPU."
    email = config["serviceAccountEmail"]
    if email not in {account["email"] for account in state.accounts}:
        return f"Service account {email} does not exist."
    for secret in config.get("secretEnvironmentVariables", []):
        policy = state.policies.get(f"projects/{plane.project}/secrets/{secret['secret']}", {})
        if not any(f"serviceAccount:{email}" in binding["members"] for binding in policy.get("bindings", [])):
            return f"Permission denied on secret: {secret['secret']} for Revision service account {email}."
        if (secret["secret"], int(secret["version"])) in state.disabled:
            return f"Secret {secret['secret']}, version {secret['version']} is in DISABLED state."
    return ""


def _container(config: Json) -> Json:
    """Return the specification of a revision in the form of Cloud Run."""
    environment: list[Json] = [{"name": name, "value": value} for name, value in config["environmentVariables"].items()]
    environment += [
        {"name": each["key"], "valueFrom": {"secretKeyRef": {"name": each["secret"], "key": each["version"]}}}
        for each in config.get("secretEnvironmentVariables", [])
    ]
    limits = {"cpu": config.get("availableCpu", "1"), "memory": config["availableMemory"]}
    return {
        "containerConcurrency": config["maxInstanceRequestConcurrency"],
        "timeoutSeconds": config["timeoutSeconds"],
        "serviceAccountName": config["serviceAccountEmail"],
        "containers": [{"image": "image", "env": environment, "resources": {"limits": limits}}],
    }


def _delete_function(plane: GoogleCloud, _body: Any, _query: Any, path: str) -> Json:
    name = path.rpartition("/")[2]
    del plane.state.functions[path]
    plane.state.services.pop(name, None)
    plane.state.policies.pop(_service_path(plane, name), None)
    return operation(plane, parent=path.partition("/functions")[0])


# --- Cloud Run -------------------------------------------------------------------------------------------------------


def _add_revision(plane: GoogleCloud, name: str, spec: Json) -> str:
    plane.made += 1
    revision = f"{name}-{plane.made:05}-abc"
    plane.state.revisions[revision] = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": revision,
            "namespace": _NUMBER,
            "creationTimestamp": f"2026-01-01T00:{plane.made // 60:02}:{plane.made % 60:02}.000000Z",
            "labels": {"serving.knative.dev/service": name},
            "annotations": {},
        },
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    return revision


def _serve(plane: GoogleCloud, name: str, newest: str, traffic: list[Json]) -> None:
    old = plane.state.services.get(name, {})
    annotations = old.get("metadata", {}).get("annotations", {"run.googleapis.com/ingress": "all"})
    generation = old.get("metadata", {}).get("generation", 0) + 1
    if old:
        plane.replaced[name] = old["status"]["traffic"][0]["revisionName"]
    plane.state.services[name] = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": _NUMBER,
            "labels": {"cloud.googleapis.com/location": "europe-west1"},
            "annotations": annotations,
            "generation": generation,
        },
        "spec": {
            "template": {"metadata": {"name": newest}, "spec": plane.state.revisions[newest]["spec"]},
            "traffic": traffic,
        },
        "status": {
            "observedGeneration": generation,
            "conditions": [
                {"type": kind, "status": "True"} for kind in ("Ready", "ConfigurationsReady", "RoutesReady")
            ],
            "latestCreatedRevisionName": newest,
            "latestReadyRevisionName": newest,
            "traffic": [{"revisionName": newest, **each} for each in traffic],
            "url": _endpoint(plane, name).url,
        },
    }


def _run_service(plane: GoogleCloud, _body: Any, _query: Any, name: str) -> Json:
    return plane.state.services[name]


def _run_services(plane: GoogleCloud, *_: Any) -> Json:
    items = list(plane.state.services.values())
    return {"apiVersion": "serving.knative.dev/v1", "kind": "ServiceList", "metadata": {}, "items": items}


def _replace_service(plane: GoogleCloud, body: Json, _query: Any, name: str) -> Json:
    """Change traffic or annotations; both leave the newest revision as it is."""
    annotations = body["metadata"]["annotations"]
    if annotations.get(_INVOKER_CHECK, "").lower() == "true" and "requireInvokerIam" in plane.state.constraints:
        raise ErrorResponse(400, "Constraint constraints/run.managed.requireInvokerIam violated.")
    newest = plane.state.services[name]["status"]["latestCreatedRevisionName"]
    plane.state.services[name]["metadata"]["annotations"] = annotations
    _serve(plane, name, newest, body["spec"]["traffic"])
    return plane.state.services[name]


def _revisions(plane: GoogleCloud, _body: Any, query: dict[str, list[str]]) -> Json:
    label, _, name = query["labelSelector"][0].partition(" = ")
    items = [each for each in plane.state.revisions.values() if each["metadata"]["labels"].get(label) == name]
    return {"apiVersion": "serving.knative.dev/v1", "kind": "RevisionList", "metadata": {}, "items": items[::-1]}


def _run_revision(plane: GoogleCloud, _body: Any, _query: Any, name: str) -> Json:
    return plane.state.revisions[name]


_FUNCTIONS = r"/cloudfunctions/v2/(projects/[^/]+/locations/[^/]+)"
_FUNCTION = r"/cloudfunctions/v2/(projects/[^/]+/locations/[^/]+/functions/[^/]+)"
_SERVING = r"/run/apis/serving.knative.dev/v1/namespaces/[^/]+"
ROUTES += [
    ("GET", r"/cloudbuild/v1/projects/[^/]+/locations/[^/]+/defaultServiceAccount", _build_account),
    ("GET", _FUNCTIONS + r"/runtimes", _runtimes),
    ("GET", _FUNCTIONS + r"/functions", _functions),
    ("GET", _FUNCTION, _function),
    ("POST", _FUNCTIONS + r"/functions:generateUploadUrl", _upload_url),
    ("PUT", r"/upload", _upload),
    ("POST", _FUNCTIONS + r"/functions", _create_function),
    ("PATCH", _FUNCTION, _update_function),
    ("DELETE", _FUNCTION, _delete_function),
    ("GET", r"/run/v1/projects/[^/]+/locations/-/services", _run_services),
    ("GET", _SERVING + r"/services/([^/]+)", _run_service),
    ("PUT", _SERVING + r"/services/([^/]+)", _replace_service),
    ("GET", _SERVING + r"/revisions", _revisions),
    ("GET", _SERVING + r"/revisions/([^/]+)", _run_revision),
]
