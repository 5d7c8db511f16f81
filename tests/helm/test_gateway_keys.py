"""Where the gateway chart's keys and passwords come from, and that upgrades keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.access.keys import KeyStore
from gateway.settings import AuthSettings
from tests.helm.kubernetes_api import cluster, stored
from tests.helm.rendering import Object, helm_template, of_kind, only

LEAST: dict[str, Any] = {
    "config": {"engines": {"default": {"url": "http://e:8000"}}, "models": {"gemma": {"served_name": "g"}}}
}


def render(values: dict[str, Any], **options: str | bool) -> list[Object]:
    return helm_template("gateway", LEAST | values, **options)


def store(secret: Object, folder: Path) -> KeyStore:
    (folder / "keys.yaml").write_text(secret["stringData"]["keys.yaml"])
    return KeyStore.load(AuthSettings(keys_directory=folder))


def sources(objects: list[Object]) -> Any:
    volumes = only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    return next((volume["projected"]["sources"] for volume in volumes if volume["name"] == "keys"), None)


def test_the_generated_key_is_let_in_by_the_file_beside_it(tmp_path: Path) -> None:
    secret = only(render({}), "Secret")
    assert store(secret, tmp_path).authenticate(secret["stringData"]["key"]).name == "first"


def test_every_install_has_a_key_of_its_own() -> None:
    first, second = (only(render({}, release=name), "Secret")["stringData"]["key"] for name in ("one", "two"))
    assert first != second


def test_the_gateway_sees_the_hash_alone() -> None:
    secret = only(render({}), "Secret")
    assert secret["stringData"]["key"] not in secret["stringData"]["keys.yaml"]
    assert sources(render({})) == [
        {"secret": {"name": secret["metadata"]["name"], "items": [{"key": "keys.yaml", "path": "keys.yaml"}]}}
    ]


def test_records_are_keys_of_the_gateway(tmp_path: Path) -> None:
    record = {"id": "a", "name": "team", "sha256": "0" * 64, "created": "2026-01-01T00:00:00Z", "models": ["gemma-*"]}
    secret = only(render({"keys": {"source": "records", "records": [record]}}), "Secret")
    assert "key" not in secret["stringData"]
    assert store(secret, tmp_path).entries["a"].caller.grant.models == ("gemma-*",)


def test_several_secrets_become_one_folder_of_key_files() -> None:
    several = {"source": "existing", "existing": [{"secret": "a"}, {"secret": "b", "key": "team.yml"}]}
    objects = render({"keys": several})
    assert of_kind(objects, "Secret") == []
    paths = [source["secret"]["items"][0]["path"] for source in sources(objects)]
    assert paths == ["a.keys.yaml", "b.team.yml"]


def test_the_operator_fetches_into_the_secret_that_is_mounted() -> None:
    external = {"secretStoreRef": {"name": "vault"}, "remoteRef": {"key": "k"}}
    objects = render({"keys": {"source": "external", "external": external}})
    assert only(objects, "ExternalSecret")["spec"]["target"]["name"] == sources(objects)[0]["secret"]["name"]


def test_without_keys_nothing_is_mounted() -> None:
    token = {"auth": {"jwt": {"a": {"issuer": "https://login.example.com", "audience": ["gemma"]}}}}
    objects = render({"keys": {"source": "none"}, "config": LEAST["config"] | token})
    assert sources(objects) is None
    (written,) = of_kind(objects, "ConfigMap")
    assert "keys_directory" not in written["data"]["config.yaml"]


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({}, {"name": "gemma-gateway-keys", "key": "key"}),
        ({"keys": {"source": "existing", "existing": [{"secret": "a"}]}}, None),
        ({"test": {"keySecret": {"name": "client"}}}, {"name": "client", "key": "key"}),
    ],
    ids=["generated", "existing", "told"],
)
def test_helm_test_asks_by_a_key_where_one_is_known(keys: dict[str, Any], where: object) -> None:
    variables = only(render(keys), "Pod")["spec"]["containers"][0]["env"]
    found = [each["valueFrom"]["secretKeyRef"] for each in variables if each["name"] == "API_KEY"]
    assert found == ([where] if where else [])


def test_an_upgrade_keeps_the_key_and_the_password() -> None:
    with_valkey = {"valkey": {"enabled": True}}
    before = of_kind(render(with_valkey), "Secret")
    with cluster(*before) as address:
        after = render(with_valkey, is_upgrade=True, dry_run="server", kube_apiserver=address)
    assert [stored(each)["data"] for each in of_kind(after, "Secret")] == [stored(each)["data"] for each in before]


def test_a_secret_that_holds_no_key_of_ours_gets_one(tmp_path: Path) -> None:
    records = {"keys": {"source": "records", "records": [{"id": "a", "name": "a", "sha256": "0" * 64}]}}
    with cluster(only(render(records), "Secret")) as address:
        secret = only(render({}, is_upgrade=True, dry_run="server", kube_apiserver=address), "Secret")
    assert store(secret, tmp_path).authenticate(secret["stringData"]["key"]).name == "first"


def test_a_password_of_ones_own_is_used_by_both_sides() -> None:
    objects = render({"valkey": {"enabled": True, "passwordSecret": {"name": "mine", "key": "pass"}}})
    assert [each["metadata"]["name"] for each in of_kind(objects, "Secret")] == ["gemma-gateway-keys"]
    workloads = of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet")
    mounted = [
        volume["secret"]
        for workload in workloads
        for volume in workload["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    ]
    assert mounted == [{"secretName": "mine", "items": [{"key": "pass", "path": "password"}]}] * 2


def test_valkeys_password_is_in_no_argument() -> None:
    objects = render({"valkey": {"enabled": True}})
    (password,) = [
        each["data"]["password"] for each in of_kind(objects, "Secret") if "password" in each.get("data", {})
    ]
    workloads = yaml.safe_dump(of_kind(objects, "StatefulSet") + of_kind(objects, "Deployment"))
    assert password not in workloads
