"""A double of a Databricks workspace: its REST API, and clusters that are real Spark on this
machine.
"""

from .server import Databricks

__all__ = ["Databricks"]
