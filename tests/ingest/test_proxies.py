"""The reverse proxies of config/proxies/ are configured as these programs understand it, and let through what is the
world's. Debian's nginx and caddy; without one, its tests are skipped and say so."""

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager

import pytest
import requests

from tests.support.person import inbound
from tests.support.processes import ROOT
from tests.support.waiting import HANG_S, free_port, until

PROXIES = ROOT / "config" / "proxies"
NAME = "sms.example.org"
START_S = 10


def program(name):
    found = shutil.which(name)
    if not found:
        pytest.skip(
            f"{name} is not installed, and config/proxies/ not tested with it: apt-get install {name}"
        )
    return found


def fitted(file, **changes):
    """A file of config/proxies/, with what is an operator's to fit as the test has it."""
    text = (PROXIES / file).read_text()
    for written, fit in changes.values():
        assert written in text
        text = text.replace(written, fit)
    return text


def certificate(folder):
    """The files of a certificate for 127.0.0.1, and of its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={NAME}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", cert, "-keyout", key,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@contextmanager
def running(command, port, log, **environment):
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | environment, start_new_session=True
        )
    try:
        until(lambda: process.poll() is not None or listens(port), START_S, f"{command[0]} listens")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(HANG_S)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def nginx(web_port, port, folder):
    """Its base URL, and a session that trusts it."""
    cert, key = certificate(folder)
    (folder / "parley.conf").write_text(
        fitted(
            "nginx.conf",
            web=("127.0.0.1:8000", f"127.0.0.1:{web_port}"),
            port=("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            cert=(f"/etc/ssl/certs/{NAME}.pem", str(cert)),
            key=(f"/etc/ssl/private/{NAME}.key", str(key)),
        )
    )
    kept = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {kept} include {folder}/parley.conf; }}\n"
    )
    command = [program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr.replace('[warn] the "user" directive', "")
    with running(command, port, folder / "nginx.log"), requests.Session() as http:
        http.trust_env = False  # REQUESTS_CA_BUNDLE goes before what is said here
        http.verify = str(cert)
        yield f"https://127.0.0.1:{port}", http


@contextmanager
def caddy(web_port, port, folder):
    """The same. It would get its certificate from the world, so it has none."""
    file = folder / "Caddyfile"
    file.write_text(
        fitted(
            "Caddyfile",
            web=("127.0.0.1:8000", f"127.0.0.1:{web_port}"),
            address=(f"\n{NAME} {{", f"\nhttp://127.0.0.1:{port} {{"),
            admin=("{\n\tservers {", "{\n\tadmin off\n\tservers {"),
        )
    )
    caddy_folder = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    options = ["--config", str(file), "--adapter", "caddyfile"]
    command = [program("caddy"), "run", *options]
    subprocess.run(
        [command[0], "validate", *options], check=True, capture_output=True, env=os.environ | caddy_folder
    )
    with running(command, port, folder / "caddy.log", **caddy_folder), requests.Session() as http:
        yield f"http://127.0.0.1:{port}", http


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(request, parley, tmp_path):
    program(request.param.__name__)
    parley.spawn("web")
    parley.wait_ready()
    with request.param(parley.port, free_port(), tmp_path) as (base, http):
        yield base, http


def test_what_is_the_worlds_goes_through_a_proxy_and_nothing_else_does(proxied, parley):
    base, http = proxied
    webhook = parley.webhook.replace(parley.base, base)
    for place in range(3):
        body = inbound(f"+3361234567{place}", "START")
        assert http.post(webhook, data=body, timeout=HANG_S).status_code == 200
    assert http.post(webhook.replace("token=", "token=not-"), data=b"{}", timeout=HANG_S).status_code == 403
    lines = {"Content-Type": "application/x-ndjson", "Authorization": "Bearer none"}
    found = {
        "long webhook": http.post(webhook, data=b"x" * 100_000, timeout=HANG_S).status_code,
        "invitations": http.post(
            f"{base}/v1/surveys/clinic/invitations", data=b"{}\n" * 50_000, headers=lines, timeout=HANG_S
        ).status_code,
        "long header": http.get(f"{base}/healthz", headers={"v": "x" * 60_000}, timeout=HANG_S).status_code,
        **{
            path: http.get(base + path, timeout=HANG_S).status_code
            for path in ("/healthz", "/v1/openapi.json", "/metrics", "/readyz", "/simulator/phones/+336", "/")
        },
    }
    assert found.pop("long header") in (400, 431)
    assert found == {
        "long webhook": 413,
        "invitations": 401,
        "/healthz": 200,
        "/v1/openapi.json": 200,
        "/metrics": 404,
        "/readyz": 404,
        "/simulator/phones/+336": 404,
        "/": 404,
    }
