"""The KubeRay example against what it runs: the pinned Ray, the job's options, KubeRay's field names."""

import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import __version__ as ray_version

from ctnet_ray.cluster.capacity import workers_held
from ctnet_ray.config import ComputeConfig, JobConfig
from ctnet_ray.orchestration import continual
from jobs.command import run

FILE = Path(__file__).parents[2] / "docs" / "kuberay_rayjob.yaml"

# Fields that the file uses, as KubeRay (ray-project/kuberay, ray-operator/apis/ray/v1/rayjob_types.go and
# raycluster_types.go; https://docs.ray.io/en/master/kuberay/references/api.html, v1.7.1) and Kubernetes
# (core/v1 PodSpec, Container, Volume) name them. "*": any name.
POD = {
    "spec": {
        "serviceAccountName": str,
        "automountServiceAccountToken": bool,
        "restartPolicy": str,
        "nodeSelector": {"*": str},
        "terminationGracePeriodSeconds": int,
        "tolerations": [{"key": str, "operator": str, "effect": str}],
        "securityContext": {
            "runAsNonRoot": bool,
            "runAsUser": int,
            "runAsGroup": int,
            "fsGroup": int,
            "seccompProfile": {"type": str},
        },
        "containers": [
            {
                "name": str,
                "image": str,
                "ports": [{"containerPort": int, "name": str}],
                "resources": {"requests": {"*": str}, "limits": {"*": str}},
                "securityContext": {
                    "runAsNonRoot": bool,
                    "allowPrivilegeEscalation": bool,
                    "capabilities": {"drop": [str]},
                },
                "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
            }
        ],
        "volumes": [{"name": str, "configMap": {"name": str}, "emptyDir": {"sizeLimit": str}}],
    }
}
CONTAINER = POD["spec"]["containers"][0]
FIELDS = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "submissionMode": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "submitterPodTemplate": POD,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": str},
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {
                "idleTimeoutSeconds": int,
                "upscalingMode": str,
                "resources": CONTAINER["resources"],
                "securityContext": CONTAINER["securityContext"],
            },
            "headGroupSpec": {"serviceType": str, "rayStartParams": {"*": str}, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "rayStartParams": {"*": str},
                    "template": POD,
                }
            ],
        },
    },
}


@pytest.fixture
def documents() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for document in yaml.safe_load_all(FILE.read_text()):
        found.setdefault(document["kind"], []).append(document)
    return found


@pytest.fixture
def spec(documents: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    (job,) = documents["RayJob"]
    return job["spec"]


@pytest.fixture
def templates(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = spec["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    return {
        "head": cluster["headGroupSpec"]["template"]["spec"],
        "worker": group["template"]["spec"],
        "submitter": spec["submitterPodTemplate"]["spec"],
    }


@pytest.fixture
def asked(
    documents: dict[str, list[dict[str, Any]]],
    spec: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> JobConfig:
    """What the entrypoint would run, as its own parser reads it with the mounted file."""
    (config,) = documents["ConfigMap"]
    for name, content in config["data"].items():
        (tmp_path / name).write_text(content)
    python, dash_m, module, *options = shlex.split(spec["entrypoint"].replace("/etc/ctnet", str(tmp_path)))
    assert (python, dash_m) == ("python", "-m")
    job = import_module(module)
    run_with: list[tuple[Any, ...]] = []
    monkeypatch.setattr(continual, "train_series", lambda *given: run_with.append(given))
    with pytest.raises(SystemExit) as ended:
        run(job.main, "", options)
    assert ended.value.code == 0
    ((found, *asked),) = run_with
    assert asked == ["source", False, "", None]
    return found


def unknown(value: Any, known: Any, path: str = "") -> list[str]:
    """Return the paths of fields that have another name or type than they may."""
    if isinstance(known, dict) and isinstance(value, dict):
        return [
            wrong
            for key, entry in value.items()
            for wrong in (
                unknown(entry, known.get(key, known.get("*")), f"{path}.{key}")
                if key in known or "*" in known
                else [f"{path}.{key}"]
            )
        ]
    if isinstance(known, list) and isinstance(value, list):
        return [
            wrong
            for index, entry in enumerate(value)
            for wrong in unknown(entry, known[0], f"{path}[{index}]")
        ]
    return [] if isinstance(known, type) and type(value) is known else [path]


def test_every_field_is_known(documents: dict[str, list[dict[str, Any]]]) -> None:
    (job,) = documents["RayJob"]
    assert unknown(job, FIELDS) == []
    assert (job["apiVersion"], job["spec"]["submissionMode"]) == ("ray.io/v1", "K8sJobMode")
    misspelt = {**job, "spec": {**job["spec"], "shutdownAfterJobFinish": True, "backoffLimit": "2"}}
    assert unknown(misspelt, FIELDS) == [".spec.backoffLimit", ".spec.shutdownAfterJobFinish"]


def test_versions_are_the_pinned_ray_s(spec: dict[str, Any], templates: dict[str, dict[str, Any]]) -> None:
    assert spec["rayClusterSpec"]["rayVersion"] == ray_version
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    images = {name: template["containers"][0]["image"] for name, template in templates.items()}
    assert images["worker"].endswith(f":{ray_version}-{python}-gpu")
    assert images["head"].endswith(f":{ray_version}-{python}-cpu")
    assert images["submitter"] == images["head"]


def test_entrypoint_is_a_job_with_its_options(asked: JobConfig) -> None:
    assert asked.compute == ComputeConfig(workers=8, min_workers=4, cpus_per_worker=6, gpu=True)
    for uri in (asked.data.store, asked.data.schema, asked.tracking.models):
        assert uri.startswith("s3://")
    assert asked.tracking.mlflow_uri.startswith("http://")


def test_workers_fit_the_pods(
    asked: JobConfig, spec: dict[str, Any], templates: dict[str, dict[str, Any]]
) -> None:
    limits = templates["worker"]["containers"][0]["resources"]["limits"]
    node = {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert workers_held([node] * group["maxReplicas"], asked.compute) == asked.compute.workers
    assert workers_held([node], asked.compute) == asked.compute.min_workers
    assert group["minReplicas"] == group["replicas"] == 0
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_requests_are_limits_where_ray_counts_on_them(templates: dict[str, dict[str, Any]]) -> None:
    for name in ("head", "worker"):
        resources = templates[name]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]


def test_only_holders_of_the_token_submit_work_and_nobody_is_root(
    spec: dict[str, Any], templates: dict[str, dict[str, Any]]
) -> None:
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    contexts = [spec["rayClusterSpec"]["autoscalerOptions"]["securityContext"]]
    for template in templates.values():
        assert template["securityContext"]["runAsNonRoot"]
        assert template["securityContext"]["runAsUser"] > 0
        assert template["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts += [container["securityContext"] for container in template["containers"]]
    for context in contexts:
        assert context["runAsNonRoot"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_nothing_secret_stands_in_the_file(documents: dict[str, list[dict[str, Any]]]) -> None:
    assert set(documents) == {"ConfigMap", "ServiceAccount", "RayJob"}
    text = FILE.read_text().lower()
    for word in ("password", "aws_access_key", "aws_secret", "ray_auth_token", "://user"):
        assert word not in text


def test_what_is_named_is_there(
    documents: dict[str, list[dict[str, Any]]], templates: dict[str, dict[str, Any]]
) -> None:
    accounts = {account["metadata"]["name"] for account in documents["ServiceAccount"]}
    assert {templates[name]["serviceAccountName"] for name in ("head", "worker")} == accounts
    for template in templates.values():
        volumes = {volume["name"] for volume in template.get("volumes", [])}
        mounts = template["containers"][0].get("volumeMounts", [])
        assert {mount["name"] for mount in mounts} == volumes
    (config,) = documents["ConfigMap"]
    (mounted,) = (volume for volume in templates["head"]["volumes"] if "configMap" in volume)
    assert mounted["configMap"]["name"] == config["metadata"]["name"]


def test_options_stand_once(spec: dict[str, Any]) -> None:
    options = [word for word in shlex.split(spec["entrypoint"]) if word.startswith("--")]
    assert len(options) == len(set(options))
