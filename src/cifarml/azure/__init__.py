"""The Azure ML workspace: what cifarml makes there, what it costs, and how it goes away again.

azure.ai.ml takes seconds to import, so it is imported where it is first used.
"""
