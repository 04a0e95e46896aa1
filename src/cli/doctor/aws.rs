//! One read-only call to each AWS service that the pipeline uses.

use crate::base::config::schema::Config;
use crate::cli::doctor::{Check, check};
use crate::clients::aws::call::failure;

/// Runs the checks of all services at once.
pub async fn checks(config: &Config) -> Vec<Check> {
    let shared = crate::clients::aws::sdk_config(config).await;
    let ec2 = aws_sdk_ec2::Client::new(&shared);
    let msk = aws_sdk_kafka::Client::new(&shared);
    let connect = aws_sdk_kafkaconnect::Client::new(&shared);
    let s3 = crate::clients::aws::s3(&shared);
    let api = aws_sdk_apigateway::Client::new(&shared);
    let mwaa = crate::clients::aws::mwaa(&shared);
    let (ec2, msk, connect, s3, api, mwaa) = tokio::join!(
        check("ec2", async {
            let response = ec2
                .describe_vpcs()
                .send()
                .await
                .map_err(|error| failure("cannot list VPCs", &error))?;
            Ok(format!("{} VPCs", response.vpcs().len()))
        }),
        check("msk", async {
            let response = msk
                .list_clusters_v2()
                .send()
                .await
                .map_err(|error| failure("cannot list MSK clusters", &error))?;
            Ok(format!("{} clusters", response.cluster_info_list().len()))
        }),
        check("connect", async {
            let response = connect
                .list_connectors()
                .send()
                .await
                .map_err(|error| failure("cannot list MSK Connect connectors", &error))?;
            Ok(format!("{} connectors", response.connectors().len()))
        }),
        check("s3", async {
            let response = s3
                .list_buckets()
                .send()
                .await
                .map_err(|error| failure("cannot list buckets", &error))?;
            Ok(format!("{} buckets", response.buckets().len()))
        }),
        check("api", async {
            let response = api
                .get_rest_apis()
                .send()
                .await
                .map_err(|error| failure("cannot list REST APIs", &error))?;
            Ok(format!("{} REST APIs", response.items().len()))
        }),
        check("mwaa", async {
            let response = mwaa
                .list_environments()
                .send()
                .await
                .map_err(|error| failure("cannot list MWAA environments", &error))?;
            Ok(format!("{} environments", response.environments().len()))
        }),
    );
    vec![ec2, msk, connect, s3, api, mwaa]
}
