"""What the claims of a good token make of its caller: the name, the grant, and the models."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import claims
from gateway.access.callers import Caller
from gateway.errors import PermissionDeniedError
from gateway.settings import Grant, JwtSettings, Limits

ISSUER = "https://id.example.com"
SMALL = Grant(models=("gemma-3-1b",), limits=Limits(requests_per_minute=5))
LARGE = Grant(models=("gemma-*",))
REST = Grant(models=())


def named(content: dict[str, Any], **settings: Any) -> Caller:
    content = {"sub": "ada"} | content
    return claims.caller("company", JwtSettings(issuer=ISSUER, audience=("gemma",), **settings), content)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["students", "staff"], LARGE),
        (["students"], SMALL),
        ("students", SMALL),
        ("openid students email", SMALL),
        ("students-of-old", REST),
        ([], REST),
        ([7, None, {"staff": True}], REST),
        ({"staff": True}, REST),
        (None, REST),
        (["*"], REST),
    ],
)
def test_first_of_the_grants_that_a_token_has_counts(value: object, expected: Grant) -> None:
    grants = {"*": REST, "staff": LARGE, "students": SMALL}
    assert named({"groups": value}, grant_claim="groups", grants=grants).grant is expected


def test_tokens_may_do_everything_where_no_grants_are_configured() -> None:
    assert named({}).grant == Grant()


def test_star_alone_is_for_every_token() -> None:
    assert named({}, grants={"*": SMALL}).grant is SMALL


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["staff"]}}),
        ("https://example.com/roles", {"https://example.com/roles": ["staff"]}),
        ("a.b", {"a.b": ["staff"], "a": {"b": ["students"]}}),
        ("resource_access.my.client.roles", {"resource_access": {"my.client": {"roles": ["staff"]}}}),
        ("https://example.com/app.roles", {"https://example.com/app": {"roles": ["staff"]}}),
    ],
)
def test_claim_is_found_by_its_whole_name_and_inside_others(name: str, content: dict[str, Any]) -> None:
    assert named(content, grant_claim=name, grants={"staff": LARGE}).grant is LARGE


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"a": {"c": ["staff"]}}, {"a": {"b": None}}, {"b": ["staff"]}])
def test_claim_that_is_not_there_is_none(content: dict[str, object]) -> None:
    assert claims.lookup(content, "a.b") is None


def test_name_and_subject_are_taken_from_the_claims_that_are_configured() -> None:
    caller = named({"uid": {"n": "007"}, "email": "ada@example.com"}, subject_claim="uid.n", name_claim="email")
    assert (caller.id, caller.name, caller.label) == ("company:007", "ada@example.com", "company")


@pytest.mark.parametrize("name", [None, 7, "", "ada\nforged"])
def test_callers_without_a_name_are_called_by_their_subject(name: object) -> None:
    assert named({"email": name}, name_claim="email").name == "ada"


@pytest.mark.parametrize(
    ("granted", "claimed", "expected"),
    [
        (None, ["gemma-3-*", "x"], ("gemma-3-*", "x")),
        (("*",), "gemma-3-1b other", ("gemma-3-1b", "other")),
        (("gemma-*",), ["gemma-3-1b", "gpt"], ("gemma-3-1b",)),
        (("gemma-3-1b", "gemma-3-4b"), ["gemma-*"], ("gemma-3-1b", "gemma-3-4b")),
        (("gemma-*",), ["*-it"], ()),
        (("gemma-?",), ["gemma-*"], ("gemma-?",)),
        (("gemma-?",), ["gemma-[12]"], ()),
        (("gemma-*", "gemma-3-*"), ["gemma-3-1b"], ("gemma-3-1b",)),
    ],
)
def test_claimed_models_narrow_the_grant(
    granted: tuple[str, ...] | None, claimed: object, expected: tuple[str, ...]
) -> None:
    grants = {"*": Grant(models=granted, limits=Limits(requests_per_minute=5))}
    grant = named({"models": claimed}, models_claim="models", grants=grants).grant
    assert grant.models == expected
    assert grant.limits.requests_per_minute == 5


PATTERNS = st.lists(st.text("ab*?[]!", min_size=1, max_size=4), max_size=3)


@given(PATTERNS, PATTERNS, st.text("ab*?[]", min_size=1, max_size=5))
def test_narrowed_models_are_allowed_by_both_sides(some: list[str], others: list[str], name: str) -> None:
    def allowed(patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    if allowed(list(claims.in_both(some, others))):
        assert allowed(some)
        assert allowed(others)


@pytest.mark.parametrize("content", [{}, {"models": []}, {"models": ""}, {"models": 7}])
def test_token_that_names_no_models_where_it_should_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(PermissionDeniedError, match="no models in its claim 'models'"):
        named(content, models_claim="models")
