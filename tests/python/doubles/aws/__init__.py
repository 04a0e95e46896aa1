"""A double of AWS for tests: moto where it suffices, own services elsewhere, and faults on demand.

    with AwsDouble() as aws:
        subprocess.run([...], env={**os.environ, **aws.environment})
        assert not aws.problems          # requests that the models of AWS do not allow
        assert aws.count("RunInstances") == 1
        before = aws.snapshot()          # everything that exists, without random values

Settings: `settle_reads`, `page_size`, `profile_delay_calls`, `role_delay_calls`, `bootstrap`,
`taken_buckets`.
Hooks: `before_call`, `after_call`, `on_call`, `run_command`, `outcome`, `airflow`.
Faults: `fail`, `fail_operation`, `throttle`, `stale_reads`, `deny`, `expired_credentials`.
"""

import os

# Read by moto when it is first imported.
os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

from .aws import AwsDouble
from .errors import Drop, Fault
from .wire import Call

__all__ = ["AwsDouble", "Call", "Drop", "Fault"]
