"""Loading of labelled images from folders, archives and Azure Blob Storage."""
