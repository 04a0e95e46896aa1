//! One harmless question to each AWS service that the pipeline uses.

use crate::base::config::schema::Config;
use crate::cli::doctor::{Check, check};
use crate::clients::aws::call::failure;

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
            let found = ec2
                .describe_vpcs()
                .send()
                .await
                .map_err(|error| failure("cannot list VPCs", &error))?;
            Ok(format!("{} VPCs", found.vpcs().len()))
        }),
        check("msk", async {
            let found = msk
                .list_clusters_v2()
                .send()
                .await
                .map_err(|error| failure("cannot list MSK clusters", &error))?;
            Ok(format!("{} clusters", found.cluster_info_list().len()))
        }),
        check("connect", async {
            let found = connect
                .list_connectors()
                .send()
                .await
                .map_err(|error| failure("cannot list MSK Connect connectors", &error))?;
            Ok(format!("{} connectors", found.connectors().len()))
        }),
        check("s3", async {
            let found = s3
                .list_buckets()
                .send()
                .await
                .map_err(|error| failure("cannot list buckets", &error))?;
            Ok(format!("{} buckets", found.buckets().len()))
        }),
        check("api", async {
            let found = api
                .get_rest_apis()
                .send()
                .await
                .map_err(|error| failure("cannot list REST APIs", &error))?;
            Ok(format!("{} REST APIs", found.items().len()))
        }),
        check("mwaa", async {
            let found = mwaa
                .list_environments()
                .send()
                .await
                .map_err(|error| failure("cannot list MWAA environments", &error))?;
            Ok(format!("{} environments", found.environments().len()))
        }),
    );
    vec![ec2, msk, connect, s3, api, mwaa]
}
