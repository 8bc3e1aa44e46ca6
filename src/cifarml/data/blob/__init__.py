"""Pictures in Azure Blob Storage."""

from cifarml.data.address import BlobAddress
from cifarml.data.blob.copy import Download, download_path, upload_path
from cifarml.data.blob.info import BlobInfo
from cifarml.data.blob.rights import check_rights
from cifarml.data.blob.source import BlobTree, open_blobs
from cifarml.data.blob.store import BlobStore, Upload

__all__ = [
    "BlobAddress",
    "BlobInfo",
    "BlobStore",
    "BlobTree",
    "Download",
    "Upload",
    "check_rights",
    "download_path",
    "open_blobs",
    "upload_path",
]
