"""What a verified token's claims say about its caller. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from gateway.access.callers import EVERYTHING, Caller
from gateway.errors import AuthenticationError, PermissionDeniedError
from gateway.settings import Grant, JwtSettings

#: Under `grants`, what tokens may do that have none of the other values.
_OTHERS = "*"

#: Characters. OpenID Connect Core, section 2, allows subjects of 255.
_LONGEST_SUBJECT = 256


def caller(provider: str, settings: JwtSettings, claims: Mapping[str, object]) -> Caller:
    """Who has sent a token with these claims.

    Raises AuthenticationError where they name nobody, PermissionDeniedError where no grant is meant for them.
    """
    subject = _subject(settings.subject_claim, claims)
    name = lookup(claims, settings.name_claim) if settings.name_claim else None
    shown = name[:_LONGEST_SUBJECT] if isinstance(name, str) and name and name.isprintable() else subject
    return Caller(f"{provider}:{subject}", shown, _narrowed(_grant(settings, claims), settings, claims), provider)


def lookup(claims: Mapping[str, object], name: str) -> object:
    """The claim of that name; else, where it has dots, the one inside another. None where there is neither.

    Names may themselves hold dots, as those that are URLs do, inside of others too: the longest come first.
    """
    if name in claims:
        return claims[name]
    end = name.rfind(".")
    while end > 0:
        outer = claims.get(name[:end])
        found = lookup(outer, name[end + 1 :]) if isinstance(outer, dict) else None
        if found is not None:
            return found
        end = name.rfind(".", 0, end)
    return None


def _subject(claim: str, claims: Mapping[str, object]) -> str:
    subject = lookup(claims, claim)
    if not isinstance(subject, str) or not subject:
        raise AuthenticationError(f"The token has no claim {claim!r} to tell whose it is.", code="invalid_token")
    if len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        raise AuthenticationError(
            f"The token's claim {claim!r} is longer than {_LONGEST_SUBJECT} characters or has unprintable ones.",
            code="invalid_token",
        )
    return subject


def _grant(settings: JwtSettings, claims: Mapping[str, object]) -> Grant:
    grants = settings.grants
    if not grants:
        return EVERYTHING
    held = set(_values(lookup(claims, settings.grant_claim))) if settings.grant_claim else set()
    for value, grant in grants.items():
        if value in held and value != _OTHERS:
            return grant
    if _OTHERS in grants:
        return grants[_OTHERS]
    raise _not_allowed("no value that this gateway grants anything", settings.grant_claim)


def _narrowed(grant: Grant, settings: JwtSettings, claims: Mapping[str, object]) -> Grant:
    if settings.models_claim is None:
        return grant
    named = tuple(_values(lookup(claims, settings.models_claim)))
    if not named:
        # Were it taken for no narrowing, another client of the provider could get everything by leaving it out.
        raise _not_allowed("no models", settings.models_claim)
    return grant.model_copy(update={"models": named if grant.models is None else in_both(grant.models, named)})


def _not_allowed(lack: str, claim: str | None) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"The token is good, but has {lack} in its claim {claim!r}. Ask whoever runs this gateway.",
        code="token_not_allowed",
    )


def _values(claim: object) -> Iterator[str]:
    """The text of a claim: each of a list, or of a text with blanks."""
    if isinstance(claim, str):
        yield from claim.split()
    elif isinstance(claim, list):
        yield from (value for value in claim if isinstance(value, str) and value)


def in_both(some: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Patterns of the names that match both one of `some` and one of `others`, as far as patterns can say it.

    Of two patterns the narrower is taken. Two that merely overlap, such as `gemma-*` and `*-it`, allow nothing
    together: too little rather than too much.
    """
    both = (_narrower(one, other) for one in some for other in others)
    return tuple(dict.fromkeys(name for name in both if name is not None))


def _narrower(one: str, other: str) -> str | None:
    if _covers(one, other):
        return other
    return one if _covers(other, one) else None


def _covers(wide: str, narrow: str) -> bool:
    """Whether every name that `narrow` matches is matched by `wide`; False where that is hard to tell.

    Read as a name, `narrow` has its wildcards matched by wildcards of `wide`. A `*` there also matches whatever they
    stand for; a `?` need not, nor can a set in brackets be read so.
    """
    if wide in (narrow, "*"):
        return True
    if _has(narrow, "*?[") and (_has(narrow, "[") or _has(wide, "?[")):
        return False
    return fnmatchcase(narrow, wide)


def _has(pattern: str, wildcards: str) -> bool:
    return any(wildcard in pattern for wildcard in wildcards)
