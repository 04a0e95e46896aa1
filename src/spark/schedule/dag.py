"""Runs pinpipe's batch on Databricks. `pinpipe batch schedule` writes this file: what is changed here is lost."""

from datetime import datetime, timedelta, timezone

from airflow import DAG
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

with DAG(
    dag_id=@DAG_ID@,
    description=@DESCRIPTION@,
    schedule=@CRON@,
    start_date=datetime(@START_DATE@, tzinfo=timezone.utc),
    catchup=@CATCHUP@,
    max_active_runs=1,
    default_args={"owner": @OWNER@, "retries": @RETRIES@, "retry_delay": timedelta(seconds=@RETRY_DELAY_SECONDS@)},
    tags=["pinpipe"],
) as dag:
    DatabricksSubmitRunOperator(
        task_id="batch",
        databricks_conn_id=@CONNECTION@,
        polling_period_seconds=@POLL_SECONDS@,
        json=@SUBMISSION@,
    )
