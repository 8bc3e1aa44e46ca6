"""Azure ML workspace: compute clusters, datastores, jobs, prices, permissions and error translation.

azure.ai.ml takes seconds to import, so it is imported on first use.
"""
