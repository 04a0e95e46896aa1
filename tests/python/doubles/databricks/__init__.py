"""A stand-in for a Databricks workspace: its REST interface, and clusters that are real Spark on this machine.

Not called `databricks`, since that is the package of Databricks' own client.
"""

from .server import Databricks

__all__ = ["Databricks"]
