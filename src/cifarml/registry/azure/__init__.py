"""Models and runs in an Azure ML workspace."""
