"""Emulator of Entra ID (login.microsoftonline.com) for one tenant and one client secret."""

from __future__ import annotations

import http.server
import json
import secrets
import ssl
import time
import urllib.parse
import uuid

import jwt

from tests.emulators.loopback_servers import LoopbackServer

HOST = "login.microsoftonline.com"


class Entra(LoopbackServer):
    """Token endpoint for azure.identity; ``tokens`` lists the issued bearer tokens."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.tenant_id = str(uuid.uuid4())
        self.client_id = str(uuid.uuid4())
        self.client_secret = secrets.token_urlsafe(32)
        self.tokens: list[str] = []
        self.lifetime_s = 3600
        super().__init__(_Login, tls)

    def discovery(self) -> dict[str, object]:
        return {
            "tenant_discovery_endpoint": f"https://{HOST}/{self.tenant_id}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [
                {
                    "preferred_network": HOST,
                    "preferred_cache": "login.windows.net",
                    "aliases": [HOST, "login.windows.net", "login.microsoft.com", "sts.windows.net"],
                }
            ],
        }

    def configuration(self) -> dict[str, object]:
        base = f"https://{HOST}/{self.tenant_id}"
        return {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
        }

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        """Handle a token request; return the status and the JSON body."""
        if form.get("grant_type") != "client_credentials":
            return 400, _error("unsupported_grant_type", "AADSTS70003: The grant type is not supported.")
        if form.get("client_id") != self.client_id:
            return 400, _error("unauthorized_client", "AADSTS700016: The application was not found.")
        if form.get("client_secret") != self.client_secret:
            return 401, _error("invalid_client", "AADSTS7000215: Invalid client secret provided.")
        now = int(time.time())
        claims = {
            "aud": form.get("scope", "").removesuffix("/.default"),
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "iat": now,
            "nbf": now - 60,
            "exp": now + self.lifetime_s,
            "appid": self.client_id,
            "oid": self.client_id,
            "tid": self.tenant_id,
            "jti": secrets.token_hex(16),
        }
        token = jwt.encode(claims, secrets.token_bytes(32), algorithm="HS256")
        self.tokens.append(token)
        return 200, {
            "token_type": "Bearer",
            "expires_in": self.lifetime_s,
            "ext_expires_in": self.lifetime_s,
            "access_token": token,
        }


def _error(code: str, description: str) -> dict[str, object]:
    return {"error": code, "error_description": description}


class _Login(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Entra

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/common/discovery/instance":
            self._reply(200, self.server.discovery())
        elif path == f"/{self.server.tenant_id}/v2.0/.well-known/openid-configuration":
            self._reply(200, self.server.configuration())
        else:
            self._reply(400, _error("invalid_tenant", "AADSTS90002: The tenant was not found."))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == f"/{self.server.tenant_id}/oauth2/v2.0/token":
            self._reply(*self.server.token(dict(urllib.parse.parse_qsl(body))))
        else:
            self._reply(400, _error("invalid_tenant", "AADSTS90002: The tenant was not found."))

    def _reply(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.connection.sendall(head.encode() + body)

    def log_message(self, *arguments: object) -> None:
        pass
