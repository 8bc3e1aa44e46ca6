"""Model registry in an Azure ML workspace."""
