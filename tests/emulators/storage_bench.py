"""Azure Storage for tests: Azurite under the real host names, emulated Entra ID, fault-injecting proxy."""

from __future__ import annotations

import base64
import secrets
import ssl
import urllib.parse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import trustme
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from tests.emulators import entra
from tests.emulators.azurite_server import Azurite, install
from tests.emulators.connect_proxy import ConnectProxy
from tests.emulators.fault_proxy import FaultProxy

Mode = Literal["key", "sas", "oauth", "connection-string"]


class StorageBench:
    """Emulated storage account that unmodified clients reach by its real host name."""

    account = "cifarmltest"
    host = f"{account}.blob.core.windows.net"
    url = f"https://{host}"

    def __init__(self, folder: Path) -> None:
        """Start all servers; write the certificates to ``folder``."""
        install()
        authority = trustme.CA()
        leaf = authority.issue_cert(
            *("localhost", "127.0.0.1", "*.blob.core.windows.net", entra.HOST, "management.azure.com"),
            *("*.api.azureml.ms", "*.eastus.inference.ml.azure.com", "*.ml.azure.com", "prices.azure.com"),
            "mcr.microsoft.com",
        )
        self.ca_path = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_path)
        certificate, private_key = folder / "cert.pem", folder / "key.pem"
        certificate.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(private_key)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        leaf.configure_cert(tls)

        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.sas = self._account_sas()
        self.azurite = Azurite(self.account, self.key, certificate, private_key)
        self.port = self.azurite.port
        self.local_url = f"https://127.0.0.1:{self.port}/{self.account}"
        self.faults = FaultProxy(self.port, tls, ssl.create_default_context(cafile=self.ca_path))
        self.entra = entra.Entra(tls)
        self.proxy = ConnectProxy({self.host: self.port, entra.HOST: self.entra.port})

    def _account_sas(self) -> str:
        return generate_account_sas(
            self.account,
            self.key,
            ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True),
            datetime.now(UTC) + timedelta(hours=2),
        )

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=https;AccountName={self.account};AccountKey={self.key};"
            "EndpointSuffix=core.windows.net"
        )

    def env(self, mode: Mode) -> dict[str, str]:
        """Return environment variables for clients: proxy, certificates and the credential of a mode."""
        network = {
            "HTTPS_PROXY": self.proxy.url,
            "HTTP_PROXY": self.proxy.url,
            "NO_PROXY": "localhost,127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.ca_path),
            "SSL_CERT_FILE": str(self.ca_path),
        }
        account = {"AZURE_STORAGE_ACCOUNT": self.account}
        credentials = {
            "key": account | {"AZURE_STORAGE_KEY": self.key},
            "sas": account | {"AZURE_STORAGE_SAS_TOKEN": self.sas},
            "oauth": account
            | {
                "AZURE_TENANT_ID": self.entra.tenant_id,
                "AZURE_CLIENT_ID": self.entra.client_id,
                "AZURE_CLIENT_SECRET": self.entra.client_secret,
            },
            "connection-string": account | {"AZURE_STORAGE_CONNECTION_STRING": self.connection_string},
        }
        return network | credentials[mode]

    def secrets(self) -> list[str]:
        """Return all strings that must not occur in any output."""
        signature = urllib.parse.parse_qs(self.sas)["sig"][0]
        return [
            self.key,
            signature,
            urllib.parse.quote(signature),  # as in the SDK's URLs
            urllib.parse.quote(signature, safe=""),
            self.entra.client_secret,
            self.connection_string,
            *self.entra.tokens,
        ]

    def route(self, faulty: bool) -> None:
        """Route new connections to the account through ``faults``, or directly to Azurite."""
        self.proxy.hosts[self.host] = self.faults.port if faulty else self.port

    def close(self) -> None:
        for server in (self.proxy, self.faults, self.entra):
            server.close()
        self.azurite.close()
