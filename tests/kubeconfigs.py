# SPDX-License-Identifier: Apache-2.0
"""Forms of kubeconfig, and what kubectl 1.28 to 1.33 make of each: as whom they reach the API server, or that they do not.

In a text `$SERVER`, `$HOST`, `$CA` and the other names of `Locations` are replaced.
"""

from __future__ import annotations

from typing import NamedTuple

REFUSED = "refused"
TOKEN = "token t0"
JO = "certificate jo"
ANONYMOUS = "anonymous"


class Form(NamedTuple):
    """A kubeconfig's text. `ours` is where we differ from kubectl on purpose, and `why` says why."""

    text: str
    kubectl: str
    ours: str = ""
    why: str = ""


def text(
    cluster: str = "server: $SERVER, certificate-authority-data: $CA",
    user: str = "token: t0",
    context: str = "cluster: here, user: me",
    contexts: str = "",
    clusters: str = "",
    users: str = "",
    top: str = "apiVersion: v1\nkind: Config\ncurrent-context: main",
) -> str:
    """Return a kubeconfig of one context. `contexts`, `clusters` and `users` are more of each."""
    return f"""{top}
contexts:
- {{name: main, context: {{{context}}}}}
{contexts}
clusters:
- {{name: here, cluster: {{{cluster}}}}}
{clusters}
users:
- {{name: me, user: {{{user}}}}}
{users}
"""


def of_cluster(more: str, kubectl: str, ours: str = "", why: str = "") -> Form:
    return Form(text(cluster=more), kubectl, ours, why)


def of_user(more: str, kubectl: str, ours: str = "", why: str = "") -> Form:
    return Form(text(user=more), kubectl, ours, why)


def execs(more: str) -> str:
    return f"exec: {{{more}}}"


V1 = "apiVersion: client.authentication.k8s.io/v1"
ONE_ENTRY = "only the entries of the current context are looked into"
LEVEL_2 = "the security level of Python's OpenSSL"
ASKS = "kubectl asks its user for a name; client-go in other programs is anonymous"
NO_TLS = "client-go forgets the CA where it adds a scheme, and speaks HTTP"
FAILS = execs(f"{V1}, command: ./fails, interactiveMode: Never")
PLAIN = text()
SERVER = "server: $SERVER"
WITH_CA = "certificate-authority-data: $CA"
PAIR = "client-certificate-data: $CERTIFICATE, client-key-data: $KEY"
JSON = """\
{"apiVersion": "v1", "kind": "Config", "current-context": "main",
\t"contexts": [{"name": "main", "context": {"cluster": "here", "user": "me"}}],
\t"clusters": [{"name": "here", "cluster": {"server": "$SERVER", "certificate-authority-data": "$CA"}}],
\t"users": [{"name": "me", "user": {"token": "t0"}}]}"""

DOCUMENTS = {
    "plain": Form(PLAIN, TOKEN),
    "begins with ---": Form(f"---\n{PLAIN}", TOKEN),
    "ends with ---": Form(f"{PLAIN}---\n", TOKEN),
    "ends with ...": Form(f"{PLAIN}...\n", TOKEN),
    "a second document": Form(f"{PLAIN}---\n{text(user='token: t1')}", TOKEN),
    "a second document that is broken": Form(f"{PLAIN}---\na: [}}\n", TOKEN),
    "a second document with a broken token": Form(f"{PLAIN}---\n\ta: %@\n", TOKEN),
    "an empty first document": Form(f"---\n---\n{PLAIN}", REFUSED),
    "a comment first": Form(f"# ours\n---\n{PLAIN}", TOKEN),
    "%YAML 1.1": Form(f"%YAML 1.1\n---\n{PLAIN}", TOKEN),
    "a byte order mark": Form(f"\ufeff{PLAIN}", TOKEN),
    "CRLF": Form(PLAIN.replace("\n", "\r\n"), TOKEN),
    "tabs": Form(PLAIN.replace("- {", "\t- {"), REFUSED),
    "a tab after a value": Form(PLAIN.replace("current-context: main", "current-context: main\t"), TOKEN),
    "nothing": Form("", REFUSED),
    "null": Form("null\n", REFUSED),
    "a list": Form("- a\n", REFUSED),
    "text": Form("kubeconfig\n", REFUSED),
    "a key twice": Form(text(top="apiVersion: v1\nkind: Config\ncurrent-context: other\ncurrent-context: main"), TOKEN),
    "an anchor": Form(text(cluster=f"&a {SERVER}, {WITH_CA}"), TOKEN),
    "an alias": Form(text(user="token: *t", top="kind: Config\ncurrent-context: main\nx: &t t0"), TOKEN),
    "a merge key": Form(text(user="<<: *t", top="kind: Config\ncurrent-context: main\nx: &t {token: t0}"), TOKEN),
    "neither apiVersion nor kind": Form(text(top="current-context: main"), TOKEN),
    "another kind": Form(text(top="apiVersion: v1\nkind: Pod\ncurrent-context: main"), REFUSED),
    "another apiVersion": Form(text(top="apiVersion: v2\nkind: Config\ncurrent-context: main"), REFUSED),
    "unknown keys": Form(text(top="kind: Config\ncurrent-context: main\nfoo: {bar: 1}"), TOKEN),
    "preferences": Form(text(top="kind: Config\npreferences: {colors: true}\ncurrent-context: main"), TOKEN),
    "capitals in a key": Form(text(top="kind: Config\nCurrent-Context: main"), REFUSED),
    "JSON": Form(JSON, TOKEN),
    "JSON and more": Form(f'{JSON}\n{{"kind": "Config"}}', TOKEN),
}

CONTEXTS = {
    "no current-context": Form(text(top="kind: Config"), REFUSED),
    "a current-context that is not there": Form(text(top="current-context: other"), REFUSED),
    "a current-context that is a number": Form(text(top="current-context: 1"), REFUSED),
    "a context without user": Form(text(context="cluster: here"), REFUSED),
    "a context without cluster": Form(text(context="user: me"), REFUSED),
    "a user that is not there": Form(text(context="cluster: here, user: you"), REFUSED),
    "a cluster that is not there": Form(text(context="cluster: there, user: me"), REFUSED),
    "a namespace": Form(text(context="cluster: here, user: me, namespace: web"), TOKEN),
    "two contexts of one name": Form(text(contexts="- {name: main, context: {cluster: here, user: you}}"), REFUSED),
    "two users of one name": Form(text(users="- {name: me, user: {token: t1}}"), REFUSED),
    "another context is broken": Form(text(contexts="- {name: other, context: {cluster: there, user: you}}"), TOKEN),
    "another cluster without server": Form(text(clusters="- {name: there, cluster: {}}"), TOKEN),
    "another cluster whose CA is no base64": Form(
        text(clusters="- {name: there, cluster: {certificate-authority-data: '%'}}"), REFUSED, TOKEN, ONE_ENTRY
    ),
    "another user whose token is a number": Form(text(users="- {name: you, user: {token: 12}}"), REFUSED, TOKEN, ONE_ENTRY),
    "another user with auth-provider": Form(text(users="- {name: you, user: {auth-provider: {name: gcp}}}"), TOKEN),
    "a user without name": Form(text(users="- {user: {token: t1}}"), TOKEN),
    "contexts as a mapping": Form("current-context: main\ncontexts: {main: {cluster: here}}\n", REFUSED),
    "a name that is a number": Form(text(users="- {name: 12, user: {token: t1}}"), REFUSED),
}

CLUSTERS = {
    "certificate-authority": of_cluster(f"{SERVER}, certificate-authority: ca.crt", TOKEN),
    "certificate-authority that is not there": of_cluster(f"{SERVER}, certificate-authority: gone.crt", REFUSED),
    "both forms of certificate-authority": of_cluster(f"{SERVER}, {WITH_CA}, certificate-authority: ca.crt", REFUSED),
    "a CA in lines": of_cluster(f"{SERVER}, certificate-authority-data: '$CA_IN_LINES'", TOKEN),
    "a CA without padding": of_cluster(f"{SERVER}, certificate-authority-data: $CA_UNPADDED", REFUSED),
    "a CA in base64url": of_cluster(f"{SERVER}, certificate-authority-data: $CA_URLSAFE", REFUSED),
    "a CA with blanks": of_cluster(f"{SERVER}, certificate-authority-data: ' $CA '", REFUSED),
    "a CA beside a broken one": of_cluster(f"{SERVER}, certificate-authority-data: $CA_BROKEN", TOKEN),
    "a CA that is none": of_cluster(f"{SERVER}, certificate-authority-data: cnViYmlzaA==", REFUSED),
    "an empty CA": of_cluster(f"{SERVER}, certificate-authority-data: ''", REFUSED),
    "another CA": of_cluster(f"{SERVER}, certificate-authority-data: $OTHER_CA", REFUSED),
    "insecure": of_cluster(f"{SERVER}, insecure-skip-tls-verify: true", TOKEN),
    "insecure with a CA": of_cluster(f"{SERVER}, {WITH_CA}, insecure-skip-tls-verify: true", REFUSED),
    "insecure as text": of_cluster(f"{SERVER}, insecure-skip-tls-verify: 'true'", REFUSED),
    "insecure: yes": of_cluster(f"{SERVER}, insecure-skip-tls-verify: yes", TOKEN),
    "insecure: null": of_cluster(f"{SERVER}, {WITH_CA}, insecure-skip-tls-verify: null", TOKEN),
    "tls-server-name": of_cluster(f"{SERVER}, {WITH_CA}, tls-server-name: kubernetes.test", TOKEN),
    "another tls-server-name": of_cluster(f"{SERVER}, {WITH_CA}, tls-server-name: other.test", REFUSED),
    "no scheme, with a CA": of_cluster(f"server: '$HOST', {WITH_CA}", REFUSED, TOKEN, NO_TLS),
    "no scheme, insecure": of_cluster("server: '$HOST', insecure-skip-tls-verify: true", REFUSED, TOKEN, NO_TLS),
    "no scheme, nor a CA": of_cluster("server: '$PLAIN_HOST'", ANONYMOUS),
    "http": of_cluster("server: http://$PLAIN_HOST", ANONYMOUS),
    "http, with a CA": of_cluster(f"server: http://$PLAIN_HOST, {WITH_CA}", ANONYMOUS),
    "http for a server with TLS": of_cluster(f"server: http://$HOST, {WITH_CA}", REFUSED),
    "a slash at the end": of_cluster(f"server: $SERVER/, {WITH_CA}", TOKEN),
    "a path": of_cluster(f"server: $SERVER/k8s/clusters/c-1, {WITH_CA}", TOKEN),
    "a query": of_cluster(f"server: '$SERVER/?a=b', {WITH_CA}", TOKEN),
    "capitals in the scheme": of_cluster(f"server: HTTPS://$HOST, {WITH_CA}", TOKEN),
    "a user in the URL": of_cluster(f"server: https://jo@$HOST, {WITH_CA}", "basic jo:", TOKEN, "the user's entry says who we are"),
    "blanks around the URL": of_cluster(f"server: ' $SERVER ', {WITH_CA}", REFUSED),
    "another scheme": of_cluster(f"server: ftp://$HOST, {WITH_CA}", REFUSED),
    "no server": of_cluster(WITH_CA, REFUSED),
    "an empty server": of_cluster(f"server: '', {WITH_CA}", REFUSED),
    "proxy-url": of_cluster(f"{SERVER}, {WITH_CA}, proxy-url: $PROXY", TOKEN),
    "an empty proxy-url": of_cluster(f"{SERVER}, {WITH_CA}, proxy-url: ''", TOKEN),
    "proxy-url without scheme": of_cluster(f"{SERVER}, {WITH_CA}, proxy-url: proxy.test", REFUSED),
    "proxy-url of another scheme": of_cluster(f"{SERVER}, {WITH_CA}, proxy-url: ftp://127.0.0.1", REFUSED),
    "disable-compression": of_cluster(f"{SERVER}, {WITH_CA}, disable-compression: true", TOKEN),
    "extensions": of_cluster(f"{SERVER}, {WITH_CA}, extensions: [{{name: minikube.sigs.k8s.io, extension: {{a: 1}}}}]", TOKEN),
}

USERS = {
    "token as a number": of_user("token: 12345", REFUSED),
    "token with a line's end": of_user('token: "t0\\n"', REFUSED, TOKEN, "a line's end is no part of a token, wherever it stands"),
    "an empty token": of_user("token: ''", REFUSED, ANONYMOUS, ASKS),
    "tokenFile": of_user("tokenFile: token", TOKEN),
    "tokenFile and token": of_user("tokenFile: token, token: t1", TOKEN),
    "tokenFile that is not there, and token": of_user("tokenFile: gone, token: t0", TOKEN),
    "tokenFile that is not there": of_user("tokenFile: gone", REFUSED),
    "tokenFile that is empty": of_user("tokenFile: empty", REFUSED),
    "a certificate": of_user(PAIR, JO),
    "a certificate in files": of_user("client-certificate: client.crt, client-key: client.key", JO),
    "a certificate in a file, its key here": of_user("client-certificate: client.crt, client-key-data: $KEY", JO),
    "both forms of client-certificate": of_user(f"client-certificate: client.crt, {PAIR}", REFUSED),
    "both forms of client-key": of_user(f"client-key: client.key, {PAIR}", REFUSED),
    "a certificate without key": of_user("client-certificate-data: $CERTIFICATE", REFUSED),
    "a key without certificate": of_user("client-key-data: $KEY", REFUSED),
    "a certificate and another's key": of_user("client-certificate-data: $CERTIFICATE, client-key-data: $OTHER_KEY", REFUSED),
    "a certificate file that is not there": of_user("client-certificate: gone.crt, client-key: client.key", REFUSED),
    "a certificate and a token": of_user(f"{PAIR}, token: t0", f"{JO}, {TOKEN}"),
    "an RSA key of 1024 bits": of_user("client-certificate-data: $RSA_CERTIFICATE, client-key-data: $RSA_KEY", JO, REFUSED, LEVEL_2),
    "key and certificate in one text": of_user("client-certificate-data: $BOTH, client-key-data: $BOTH", JO),
    "username and password": of_user("username: jo, password: secret", "basic jo:secret"),
    "username alone": of_user("username: jo", "basic jo:"),
    "password alone": of_user("password: secret", REFUSED),
    "password and token": of_user("username: jo, password: secret, token: t0", REFUSED),
    "exec": of_user(execs(f"{V1}, command: ./login, interactiveMode: Never"), TOKEN),
    "exec v1beta1": of_user(execs(f"{V1}beta1, command: ./login-v1beta1"), TOKEN),
    "exec v1alpha1": of_user(execs(f"{V1}alpha1, command: ./login"), REFUSED),
    "exec without interactiveMode": of_user(execs(f"{V1}, command: ./login"), REFUSED, TOKEN, "a plugin never has a terminal"),
    "exec without apiVersion": of_user(execs("command: ./login, interactiveMode: Never"), REFUSED),
    "exec without command": of_user(execs(f"{V1}, interactiveMode: Never"), REFUSED),
    "exec with arguments and variables": of_user(
        execs(f"{V1}, command: ./login, interactiveMode: IfAvailable, args: [a], env: [{{name: A, value: b}}]"), TOKEN
    ),
    "exec with a number as argument": of_user(execs(f"{V1}, command: ./login, interactiveMode: Never, args: [1]"), REFUSED),
    "exec that is not there": of_user(execs(f"{V1}, command: ./gone, interactiveMode: Never"), REFUSED),
    "exec that fails": of_user(FAILS, REFUSED),
    "exec and a token": of_user("token: t0, " + FAILS, TOKEN),
    "exec and a certificate": of_user(f"{PAIR}, " + FAILS, JO),
    "exec and a password": of_user("username: jo, password: secret, " + FAILS, "basic jo:secret"),
    "exec: null": of_user("token: t0, exec: null", TOKEN),
    "auth-provider": of_user("auth-provider: {name: gcp}", REFUSED),
    "impersonation": of_user("token: t0, as: root", "token t0 as root", REFUSED, "a plugin is what it is"),
    "groups without user": of_user("token: t0, as-groups: [a]", REFUSED),
    "no user at all": of_user("", REFUSED, ANONYMOUS, ASKS),
    "unknown keys of a user": of_user("token: t0, foo: bar", TOKEN),
}

FORMS = {
    f"{part}: {name}": form
    for part, forms in {"document": DOCUMENTS, "context": CONTEXTS, "cluster": CLUSTERS, "user": USERS}.items()
    for name, form in forms.items()
}
