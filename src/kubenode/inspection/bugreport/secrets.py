# SPDX-License-Identifier: Apache-2.0
"""PURE. Texts and objects without their secrets.

Known secrets (tokens and keys of kubeconfigs, variables of the environment) are removed everywhere; other texts are removed if their name
or form is that of a secret. In doubt a text is removed.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from kubenode.base.jsontext import JSONTextError, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEFT_OUT = "[left out]"
SHORTEST = 6  # characters of a known secret: a shorter one may be a usual word
SECRET = re.compile(r"token|passw|passphrase|secret|credential|auth|key|cert|cookie|bearer|private|signature|session|pwd", re.IGNORECASE)
NAMES = frozenset(["username", "as", "as-groups", "as-uid", "as-user-extra"])  # of a kubeconfig's user: not secret
# A name's beginning does not matter, and its end has a bound: a line of such words must not take for ever.
_WORD = r"(?:token|passw(?:or)?d|passphrase|pwd|secret|credential|api[_-]?key|access[_-]?key|private[_-]?key|key-data|cookie)"
_NAME = rf"{_WORD}[\w.-]{{0,100}}"
_OPTION = rf"--[\w.-]{{0,40}}{_NAME}"
FORMS = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL), LEFT_OUT),
    (re.compile(r"\A(?:(?!-----BEGIN ).)*-----END [A-Z0-9 ]+-----", re.DOTALL), LEFT_OUT),  # one that began before
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"), LEFT_OUT),  # a JSON Web Token
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}"), rf"\1 {LEFT_OUT}"),
    (re.compile(r"://[^/\s\"']+@"), f"://{LEFT_OUT}@"),  # to the last @: a password may have one, too
    # To the quote that is like the first: with as many backslashes before it.
    (re.compile(rf"(?i)((?:{_NAME}\\*[\"']?\s*[:=]|{_OPTION}\s)\s*)(\\*)([\"'])(?:(?!(?<!\\)\2\3).)*"), rf"\1\2\3{LEFT_OUT}"),
    (re.compile(rf"(?i)({_NAME}\s*[:=]\s*)(?![\"'\\\[])([^\s,;&]+)"), rf"\1{LEFT_OUT}"),
    (re.compile(rf"(?i)({_OPTION}\s+)([^\s\"']+)"), rf"\1{LEFT_OUT}"),
)
RUN = re.compile(r"[A-Za-z0-9+/_=-]{40,}")  # long enough to be random


class Scrubber:
    """Remover of secrets; `known` are values that are secret everywhere."""

    def __init__(self, known: Iterable[str]) -> None:
        values = {value for one in known for value in _forms(one) if len(value) >= SHORTEST}
        longest_first = sorted(values, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if values else None

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        if self._known:
            text = self._known.sub(LEFT_OUT, text)
        for form, instead in FORMS:
            text = form.sub(instead, text)
        return RUN.sub(_random, text)

    def object(self, value: Any, name: str = "") -> Any:
        """Return a JSON value without secrets; also inside an object in a string, such as a definition's configuration."""
        if SECRET.search(name) and value is not None and not isinstance(value, bool):
            return LEFT_OUT
        if isinstance(value, dict):
            return {self.text(str(key)): self.object(one, str(key)) for key, one in value.items()}
        if isinstance(value, list):
            # The argument after `--token` is a secret.
            return [
                self.object(one, str(before) if str(before).startswith("-") else "")
                for before, one in zip(["", *value], value, strict=False)
            ]
        if not isinstance(value, str):
            return value
        if value.lstrip()[:1] in {"{", "["}:
            try:
                return dumps(self.object(loads(value)))
            except JSONTextError:
                pass
        return self.text(value)


def of_kubeconfig(content: Any) -> Iterator[str]:
    """Yield the secrets of a kubeconfig: all values of its users but paths and the command of an exec plugin."""
    for entry in (content.get("users") or ()) if isinstance(content, dict) else ():
        user = (entry.get("user") or {}) if isinstance(entry, dict) else {}
        for key, value in user.items() if isinstance(user, dict) else ():
            if key == "exec":
                variables = (value.get("env") or ()) if isinstance(value, dict) else ()
                yield from (str(one.get("value")) for one in variables if isinstance(one, dict))
            elif key not in NAMES:
                yield from (text for text in _leaves(value) if not text.startswith("/"))


def shape_of_kubeconfig(content: Any) -> Any:
    """Return a kubeconfig's structure: names, servers, and the kinds of its users' credentials."""
    if not isinstance(content, dict):
        return None
    users = [one for one in content.get("users") or () if isinstance(one, dict)]
    return {
        "current-context": content.get("current-context"),
        "contexts": [one for one in content.get("contexts") or () if isinstance(one, dict)],
        "clusters": [
            {"name": one.get("name"), "server": (one.get("cluster") or {}).get("server"), "has": sorted(map(str, one.get("cluster") or {}))}
            for one in content.get("clusters") or ()
            if isinstance(one, dict)
        ],
        "users": [{"name": one.get("name"), "has": sorted(map(str, one.get("user") or {}))} for one in users],
    }


def _forms(value: str) -> Iterator[str]:
    """Yield a value, and its text decoded from base64; of several lines each line."""
    lines = [line.strip() for line in value.splitlines()]
    yield from lines
    try:
        decoded = b64decode(value, validate=True).decode()
    except ValueError:
        return
    yield from (line.strip() for line in decoded.splitlines())


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield str(value)


def _random(found: re.Match[str]) -> str:
    """Leave out a long run that mixes small and capital letters with digits: container IDs, digests and paths do not."""
    text = found[0]
    for part in [text] if "/" not in text or not text.startswith("/") else text.split("/"):
        if len(part) >= 40 and all(re.search(kind, part) for kind in ("[a-z]", "[A-Z]", "[0-9]")):  # noqa: PLR2004 -- as RUN has it
            return LEFT_OUT
    return text
