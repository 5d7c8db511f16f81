"""Languages by code or by name: what a model is told, in English."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from unicodedata import combining, normalize

from babel import Locale

from gateway.errors import InvalidRequestError

#: CLDR's codes for what is no language.
_NONE = frozenset({"mul", "root", "und", "zxx"})


def english_name(language: str, param: str) -> str:
    """The English name of a language given by its ISO 639 code (`pt`, `pt-BR`, `yue`) or by that name.

    Neither case nor accents matter. The names are those of Unicode's CLDR. Raises InvalidRequestError naming `param`
    where there is none.
    """
    wanted = _folded(language.strip()).replace("-", "_")
    names = _names()
    name = names.get(wanted) or names.get(wanted.partition("_")[0])
    if name is None:
        raise InvalidRequestError(
            f"'{param}' is no known language: '{language[:32]}'; give an ISO 639 code such as 'en', or 'English'.",
            param=param,
        )
    return name


@cache
def _names() -> Mapping[str, str]:
    codes = {code: name for code, name in Locale("en").languages.items() if code not in _NONE}
    return {_folded(name): name for name in codes.values()} | {code.lower(): name for code, name in codes.items()}


def _folded(text: str) -> str:
    return "".join(letter for letter in normalize("NFKD", text.casefold()) if not combining(letter))
