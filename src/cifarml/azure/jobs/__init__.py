"""Training jobs in Azure ML."""
