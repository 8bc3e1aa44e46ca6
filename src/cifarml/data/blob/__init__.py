"""Images in Azure Blob Storage."""
