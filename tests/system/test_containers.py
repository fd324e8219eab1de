"""Image and manifests: linters find nothing wrong, and the job runs where nothing can be written.

No image is built here. The wheel runs as the manifests say: as process 1, as nobody, without a
home, a shell's environment or a capability, on a root file system that is read-only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import kubernetes_validate
import pytest
import yaml

from etl.errors import LockedError
from etl.jobs.migrate import migrate
from etl.sandbox import Fault, running_sandbox
from etl.settings import load_settings
from etl.store.engine import make_engine
from tests.system.installed import CHECKOUT, install, rooted
from tests.system.server import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.sandbox import Sandbox
    from tests.system.installed import Machine
    from tests.system.server import Server

CONTAINERFILE = (CHECKOUT / "Containerfile").read_text()
KUBERNETES = CHECKOUT / "deploy/kubernetes"
CONFIG_MAP, CRON_JOB = yaml.safe_load_all((KUBERNETES / "cronjob.yaml").read_text())
MIGRATION = yaml.safe_load((KUBERNETES / "migrate.yaml").read_text())
JOB = CRON_JOB["spec"]["jobTemplate"]
# The oldest that takes a rule on exit codes alone, and the newest that the linter knows.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]


# --- as they are written


def linted(folder: Path, text: str) -> str:
    """What hadolint finds."""
    file = folder / "Containerfile"
    file.write_text(text)
    hadolint = Path(sys.executable).with_name("hadolint")
    return subprocess.run([hadolint, file], capture_output=True, text=True, check=False).stdout


def test_hadolint_finds_nothing(tmp_path):
    assert linted(tmp_path, CONTAINERFILE) == ""


@pytest.mark.parametrize(
    ("change", "instead", "rule"),
    [
        (":3.13-slim\n", "\n", "DL3006"),
        ("# hadolint ignore=DL3013\n", "", "DL3013"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ("RUN python -m venv", "RUN cd /opt && python -m venv", "DL3003"),
    ],
)
def test_hadolint_finds_what_is_wrong(change, instead, rule, tmp_path):
    assert rule in linted(tmp_path, CONTAINERFILE.replace(change, instead))


def test_a_build_is_sent_what_the_containerfile_copies_and_no_more():
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    sent = re.findall(r"^!(.*)$", (CHECKOUT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(sent)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", [CONFIG_MAP, CRON_JOB, MIGRATION], ids=lambda it: it["kind"])
def test_kubernetes_takes_the_manifests(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


def test_kubernetes_would_not_take_a_mistake():
    mistaken = CRON_JOB | {"spec": CRON_JOB["spec"] | {"concurencyPolicy": "Forbid"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(mistaken, VERSIONS[0], strict=True)


def test_the_settings_in_the_config_map_are_ours(tmp_path):
    settings = load_settings({"ANAM_API_KEY": "a-key"}, written(tmp_path))
    # Told to stop by itself, with the wait before it, a run ends before the job is ended.
    (wait,) = (int(word) for word in container(JOB)["args"] if word.isdigit())
    deadline = settings.safety.run_deadline_seconds
    assert deadline
    assert wait + deadline < JOB["spec"]["activeDeadlineSeconds"]


def test_only_a_busy_run_and_a_lost_node_are_no_failure():
    on_code, on_node = JOB["spec"]["podFailurePolicy"]["rules"]
    assert on_code["action"] == on_node["action"] == "Ignore"
    assert on_code["onExitCodes"]["values"] == [LockedError.exit_code]
    assert on_code["onExitCodes"]["containerName"] == container(JOB)["name"]


@pytest.mark.parametrize("job", [JOB, MIGRATION], ids=["sync", "migrate"])
def test_a_pod_runs_as_the_user_of_the_image(job):
    (user,) = re.findall(r"^USER (.*)$", CONTAINERFILE, re.MULTILINE)
    said = pod(job)["securityContext"]
    assert f"{said['runAsUser']}:{said['runAsGroup']}" == user


@pytest.mark.parametrize("job", [JOB, MIGRATION], ids=["sync", "migrate"])
def test_a_pod_keeps_to_the_restricted_profile_of_pod_security(job):
    assert pod(job)["securityContext"]["runAsNonRoot"] is True
    assert pod(job)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container(job)["securityContext"]
    assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["ALL"]})
    assert {kind for volume in pod(job)["volumes"] for kind in volume} <= {
        "name",
        "configMap",
        "secret",
    }


def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def container(job: dict[str, Any]) -> dict[str, Any]:
    """The only container of a job's pod."""
    (only,) = pod(job)["containers"]
    return dict(only)


def written(folder: Path) -> Path:
    """The ConfigMap's file, as a mount shows it."""
    ((name, text),) = CONFIG_MAP["data"].items()
    file: Path = folder / name
    file.write_text(text)
    return file


# --- as they run


@pytest.fixture(scope="module")
def api() -> Iterator[Sandbox]:
    with running_sandbox(count=3, moving=False) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def layer(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("layer")
    install(folder)
    return folder


@pytest.fixture
def volumes(server: Server, database, api: Sandbox, tmp_path) -> dict[str, Path]:
    """What is mounted, by the name of its volume. Files of secrets are as `fsGroup` makes them."""
    folders = {name: tmp_path / name for name in ("settings", "secrets")}
    for folder in folders.values():
        folder.mkdir()
    written(folders["settings"]).chmod(0o644)
    secrets = {
        "api-key": f"{api.key}\n",
        "pg_service.conf": f"[persona-etl]\nhost=127.0.0.1\nport={server.port}\n"
        f"dbname={database.name}\nuser=postgres\npassword={PASSWORD}\n",
    }
    for name, text in secrets.items():
        file = folders["secrets"] / name
        file.write_text(text)
        os.chown(file, 0, pod(JOB)["securityContext"]["fsGroup"])
        file.chmod(0o440)
    return folders


@contextmanager
def started(
    job: dict[str, Any], layer: Path, volumes: dict[str, Path], api: Sandbox
) -> Iterator[Machine]:
    """The pod of a job, whose process 1 is the program."""
    said, ran = pod(job)["securityContext"], container(job)
    become = ["setpriv", f"--reuid={said['runAsUser']}", f"--regid={said['runAsGroup']}"]
    become += [f"--groups={said['fsGroup']}", "--no-new-privs", "--bounding-set=-all"]
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", CONTAINERFILE, re.MULTILINE)
    (folder,) = re.findall(r"^WORKDIR (/etc.*)$", CONTAINERFILE, re.MULTILINE)
    environ = {"PATH": "/opt/persona-etl/bin", "ANAM_API_URL": api.url}
    environ |= {variable["name"]: variable["value"] for variable in ran["env"]}
    named = [f"{name}={value}" for name, value in environ.items()]
    read_only = "for place in / /tmp /run /dev; do mount -o remount,ro $place; done"
    shell = ["sh", "-euc", f'{read_only}; cd {folder}; exec "$@"', "sh"]
    command = [*shell, *become, "env", "-i", *named, *json.loads(entry), *ran["args"]]
    binds = {volumes[mount["name"]]: mount["mountPath"] for mount in ran["volumeMounts"]}
    (layer / folder[1:]).mkdir(exist_ok=True)
    with rooted(layer, command, binds=binds) as machine:
        yield machine


def ended(machine: Machine) -> tuple[int, str, str]:
    """How it ended, and what it printed."""
    stdout, stderr = machine.process.communicate(timeout=60)
    return machine.process.returncode, stdout, stderr


def test_the_jobs_need_no_place_to_write_and_no_user_of_a_name(layer, volumes, api):
    with started(MIGRATION, layer, volumes, api) as machine:
        code, stdout, stderr = ended(machine)
        assert (code, stderr) == (0, "")
        assert "schema anam had no tables" in stdout
    with started(JOB, layer, volumes, api) as machine:
        code, stdout, _ = ended(machine)
        assert code == 0
        assert yaml.safe_load(stdout)["counts"]["created"] == 3


def test_as_process_1_it_hears_sigterm(layer, volumes, api, server, database):
    migrate(make_engine(server.url(quote(database.name)), "anam"), "anam")
    api.order(Fault(delay_seconds=60))
    running = "SELECT count(*) FROM anam.runs WHERE status = 'running'"
    try:
        with started(JOB, layer, volumes, api) as machine:
            while database.execute(running) == [(0,)]:
                assert machine.process.poll() is None, ended(machine)
                time.sleep(0.05)
            os.kill(machine.first, signal.SIGTERM)
            code, stdout, _ = ended(machine)
    finally:
        api.clear_faults()
    assert code == 143
    assert yaml.safe_load(stdout)["status"] == "interrupted"
