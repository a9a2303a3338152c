"""The parts of the fake control plane that the scheduled repair needs: Cloud Run jobs built from source, Scheduler."""

import base64
from typing import Any

from tests.control_plane import ControlPlane, Json, operation

Query = dict[str, list[str]]
_JOBS = r"/run/apis/run\.googleapis\.com/v1/namespaces/[^/]+/jobs"
_SCHEDULES = r"/cloudscheduler/v1/projects/[^/]+/locations/[^/]+/jobs"
_BUILD = r"/cloudbuild/v1/projects/[^/]+/(?:locations/[^/]+/)?builds"
_REPOSITORIES = r"/artifactregistry/v1/projects/[^/]+/locations/[^/]+/repositories"
_IMAGE = "europe-west1-docker.pkg.dev/demo-deploy/cloud-run-source-deploy/dataconnector-endpoint-repair"


def jobs(plane: ControlPlane) -> dict[str, Json]:
    """Return the Cloud Run jobs by name, in the form of the API."""
    found: dict[str, Json] = vars(plane.state).setdefault("jobs", {})
    return found


def schedules(plane: ControlPlane) -> dict[str, Json]:
    """Return the jobs of Cloud Scheduler by name, in the form of the API."""
    found: dict[str, Json] = vars(plane.state).setdefault("schedules", {})
    return found


def _enable(plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    plane.state.enabled.append(name)
    return operation(plane)


def _access_latest(plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    versions = plane.state.secrets[name]
    path = f"projects/123456789012/secrets/{name}/versions/{len(versions)}"
    return {"name": path, "payload": {"data": base64.b64encode(versions[-1]).decode()}}


def _repository(*_: Any) -> Json:
    return {"name": "projects/demo-deploy/locations/europe-west1/repositories/cloud-run-source-deploy"}


def _bucket(_plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    return {"name": name, "id": name}


def _buckets(*_: Any) -> Json:
    name = "run-sources-demo-deploy-europe-west1"
    return {"items": [{"name": name, "id": name}]}


def _upload_object(plane: ControlPlane, body: bytes, _query: Query, bucket: str) -> Json:
    """Keep the zip file of a multipart upload, whose first part describes it."""
    boundary, _, rest = body.partition(b"\n")
    plane.state.bundle = rest.partition(b"\n\n")[2].split(b"\n\n", 1)[1].rpartition(b"\n" + boundary)[0]
    return {"name": "source.zip", "bucket": bucket, "generation": "1", "size": str(len(plane.state.bundle))}


def _build(plane: ControlPlane, body: Json, *_: Any) -> Json:
    """Report at once that the image is built; gcloud has first been told that Cloud Run itself does not build."""
    images = [{"name": _IMAGE, "digest": "sha256:" + 64 * "0"}]
    name = f"projects/{plane.project}/locations/global/builds/b1"
    made = {
        "id": "b1",
        "name": name,
        "projectId": plane.project,
        "status": "SUCCESS",
        "logUrl": "https://build.example",
        "results": {"images": images},
    }
    vars(plane.state)["build"] = {**body, **made}
    return _built(plane)


def _built(plane: ControlPlane, *_: Any) -> Json:
    kind, build = "type.googleapis.com/google.devtools.cloudbuild.v1.", vars(plane.state)["build"]
    return {
        "name": f"projects/{plane.project}/locations/global/operations/b1",
        "done": True,
        "metadata": {"@type": f"{kind}BuildOperationMetadata", "build": build},
        "response": {"@type": f"{kind}Build", **build},
    }


def _list_jobs(plane: ControlPlane, *_: Any) -> Json:
    return {"apiVersion": "run.googleapis.com/v1", "kind": "JobList", "items": list(jobs(plane).values())}


def _job(plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    return jobs(plane)[name]


def _put_job(plane: ControlPlane, body: Json, *_: Any) -> Json:
    name = body["metadata"]["name"]
    generation = jobs(plane).get(name, {}).get("metadata", {}).get("generation", 0) + 1
    metadata = {**body["metadata"], "generation": generation, "uid": "u1", "resourceVersion": f"r{generation}"}
    ready = {"type": "Ready", "status": "True"}
    jobs(plane)[name] = {
        **body,
        "metadata": metadata,
        "status": {"observedGeneration": generation, "conditions": [ready]},
    }
    return jobs(plane)[name]


def _delete_job(plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    del jobs(plane)[name]
    return {"status": "Success"}


def _list_schedules(plane: ControlPlane, *_: Any) -> Json:
    return {"jobs": list(schedules(plane).values())}


def _create_schedule(plane: ControlPlane, body: Json, *_: Any) -> Json:
    name = body["name"].rpartition("/")[2]
    schedules(plane)[name] = {**body, "state": "ENABLED"}
    return schedules(plane)[name]


def _update_schedule(plane: ControlPlane, body: Json, _query: Query, name: str) -> Json:
    schedules(plane)[name] |= body
    return schedules(plane)[name]


def _schedule(plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    return schedules(plane)[name]


def _resume_schedule(plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    schedules(plane)[name]["state"] = "ENABLED"
    return schedules(plane)[name]


def _delete_schedule(plane: ControlPlane, _body: Any, _query: Query, name: str) -> Json:
    del schedules(plane)[name]
    return {}


ROUTES: list[tuple[str, str, Any]] = [
    ("POST", r"/serviceusage/v1/projects/[^/]+/services/([^/:]+):enable", _enable),
    ("GET", r"/secretmanager/v1/projects/[^/]+/secrets/([^/]+)/versions/latest:access", _access_latest),
    ("GET", _REPOSITORIES + r"/[^/]+", _repository),
    ("GET", r"/storage/b/([^/]+)", _bucket),
    ("GET", r"/storage/b", _buckets),
    ("POST", r"/upload/storage/v1/b/([^/]+)/o", _upload_object),
    ("POST", _BUILD, _build),
    ("GET", r"/cloudbuild/v1/(?:projects/[^/]+/locations/[^/]+/)?operations/[^/]+", _built),
    ("GET", _JOBS, _list_jobs),
    ("POST", _JOBS, _put_job),
    ("GET", _JOBS + r"/([^/]+)", _job),
    ("PUT", _JOBS + r"/([^/]+)", _put_job),
    ("DELETE", _JOBS + r"/([^/]+)", _delete_job),
    ("GET", _SCHEDULES, _list_schedules),
    ("POST", _SCHEDULES, _create_schedule),
    ("GET", _SCHEDULES + r"/([^/:]+)", _schedule),
    ("PATCH", _SCHEDULES + r"/([^/:]+)", _update_schedule),
    ("POST", _SCHEDULES + r"/([^/:]+):resume", _resume_schedule),
    ("DELETE", _SCHEDULES + r"/([^/:]+)", _delete_schedule),
]
