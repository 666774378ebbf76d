"""Checks the rendered Kubernetes manifests, named as the only argument, and the other files of this folder.

What a schema can say is left to the schemas of the Kubernetes release; the rest is what the gateway relies on.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

import bicep

DEPLOY = Path(__file__).parent
ROOT = DEPLOY.parent
KUBERNETES = "1.32"
CAPABILITIES = {"BPF", "NET_ADMIN", "PERFMON"}
METRIC = re.compile(r"\b(?:aoai|gateway)_[a-z_]+")
# What Prometheus's text format appends to the name that the program registers.
SUFFIX = re.compile(r"_(?:total|bucket|sum|count)$")

problems: list[str] = []


def require(holds: bool, problem: str) -> None:
    if not holds:
        problems.append(problem)


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def check_schema(manifests: list[dict]) -> None:
    for manifest in manifests:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{name}: {error.message}")


def check_daemonset(daemonset: dict, config: dict, names: set[tuple[str, str]]) -> None:
    pod = daemonset["spec"]["template"]["spec"]
    metadata = daemonset["spec"]["template"]["metadata"]
    (container,) = pod["containers"]
    security = container["securityContext"]

    require(pod["hostNetwork"], "the gateway must be on the node's network")
    require(security["readOnlyRootFilesystem"], "the root file system must be read-only")
    require(security["capabilities"]["drop"] == ["ALL"], "all capabilities must be dropped")
    require(set(security["capabilities"]["add"]) == CAPABILITIES, f"capabilities must be {sorted(CAPABILITIES)}")
    require(not security.get("privileged") and not security["allowPrivilegeEscalation"], "no further privileges")

    leaving = seconds(config["listen"].get("lame_duck", "0s")) + seconds(config["listen"]["drain_timeout"])
    stop = container["lifecycle"]["preStop"]["sleep"]["seconds"] + leaving
    grace = pod["terminationGracePeriodSeconds"]
    require(grace > stop, f"terminationGracePeriodSeconds is {grace}, preStop, lame_duck and drain_timeout take {stop}")

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for section, port in (("listen", "https"), ("admin", "admin")):
        configured = int(config[section]["address"].rpartition(":")[2])
        require(ports[port] == configured, f"port {port} is {ports[port]}, {section}.address says {configured}")
    require(metadata["annotations"]["prometheus.io/port"] == str(ports["admin"]), "Prometheus scrapes another port")
    require(metadata["labels"]["azure.workload.identity/use"] == "true", "the pod gets no identity")
    require(("ServiceAccount", pod["serviceAccountName"]) in names, "the service account is missing")

    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    files = [config["listen"]["certificate"], config["listen"]["private_key"], config["tenants"]["file"]]
    if config["store"]["url"].startswith("file:"):
        files.append(config["store"]["url"].removeprefix("file:") + "/")
    for file in files:
        require(any(file.startswith(f"{mount}/") for mount in mounts), f"{file} lies on no volume")


def check_service(service: dict, daemonset: dict) -> None:
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    require(service["spec"]["selector"].items() <= labels.items(), "the service selects no pod")
    require(service["spec"]["externalTrafficPolicy"] == "Local", "the service hides its callers' addresses")
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for port in service["spec"]["ports"]:
        same = port["port"] == ports[port["targetPort"]]
        require(same, f"the kernel programs would not see service port {port['port']}")


def check_manifests(rendered: Path) -> None:
    manifests = [manifest for manifest in yaml.safe_load_all(rendered.read_text()) if manifest]
    check_schema(manifests)
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    config = tomllib.loads(by_kind["ConfigMap"]["data"]["gateway.toml"])
    check_daemonset(by_kind["DaemonSet"], config, names)
    check_service(by_kind["Service"], by_kind["DaemonSet"])
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            namespace = manifest["metadata"].get("namespace")
            require(namespace == "aoai-gateway", f"{manifest['kind']} is in namespace {namespace}")


def check_metric_names() -> None:
    """Every metric that a rule or a panel asks for is one that the gateway registers."""
    source = "\n".join(file.read_text() for file in (ROOT / "gateway-user/src").rglob("*.rs"))
    for file in (DEPLOY / "prometheus/rules.yaml", DEPLOY / "grafana/spend.json"):
        for name in sorted(set(METRIC.findall("\n".join(expressions(file))))):
            registered = f'"{SUFFIX.sub("", name)}"' in source or f'"{name}"' in source
            require(registered, f"{file.name} asks for {name}, which the gateway does not have")


def expressions(file: Path) -> list[str]:
    """The PromQL in a rules file or a dashboard: whatever stands under the key `expr`."""
    found = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "expr":
                    found.append(inner)
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(json.loads(file.read_text()) if file.suffix == ".json" else yaml.safe_load(file.read_text()))
    require(bool(found), f"{file.name} has no expressions")
    # Recorded series have colons in their names; what they are made of is checked where it is recorded.
    return [re.sub(r"[a-z_0-9]*:[a-z_0-9:]+", "", expression) for expression in found]


def check_prometheus() -> None:
    """Debian's promtool is built without Kubernetes discovery and refuses this file, so it is read here."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    for file in config["rule_files"]:
        require((DEPLOY / "prometheus" / file).is_file(), f"prometheus.yml names {file}, which is missing")
    (job,) = config["scrape_configs"]
    rules = (DEPLOY / "prometheus/rules.yaml").read_text()
    for named in set(re.findall(r'job="([^"]+)"', rules)):
        require(named == job["job_name"], f"rules.yaml asks for job {named}, prometheus.yml has {job['job_name']}")


def check_dashboard() -> None:
    dashboard = json.loads((DEPLOY / "grafana/spend.json").read_text())
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    require(len(ids) == len(set(ids)), "two panels of the dashboard have one id")
    for panel in panels:
        require(bool(panel["title"]), f"panel {panel['id']} has no title")


def check_bicep() -> None:
    """The files are checked by `bicep`; that there are no keys is a promise of the gateway's."""
    account = (DEPLOY / "azure/modules/openai.bicep").read_text()
    require("disableLocalAuth: true" in account, "the Azure OpenAI account must have no keys")
    bicep.check(DEPLOY / "azure", require)


def check_image() -> None:
    """The image is built with the compiler that the workspace asks for, from files that the build context has."""
    text = (DEPLOY / "Dockerfile").read_text()
    asked = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    base = re.search(r"^ARG RUST=rust:(\d+\.\d+)", text, re.MULTILINE)[1]
    require(base == asked, f"the image is built with Rust {base}, Cargo.toml asks for {asked}")
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    for source in ["Cargo.toml", "Cargo.lock", *sorted({member.partition("/")[0] for member in members})]:
        require(f"!{source}" in ignored, f".dockerignore keeps {source} from the image's build")


def main() -> int:
    check_manifests(Path(sys.argv[1]))
    check_metric_names()
    check_prometheus()
    check_dashboard()
    check_bicep()
    check_image()
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
