//! IAM authentication for Amazon MSK.
//!
//! librdkafka requests a token through an event in the client's queue, and only a poll serves that
//! queue. A client that is never polled (metadata, topic administration) would wait for its first
//! token until the request times out. Therefore each client gets a token when it is created, and a
//! client that only reads metadata is polled on a separate thread, which renews its token. See
//! issues 3556 and 3871 of librdkafka.

use std::ffi::CString;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::bindings::rd_kafka_oauthbearer_set_token;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::BaseConsumer;
use rdkafka::types::RDKafkaRespErr;

use crate::base::config::schema::{Config, KafkaAuth};
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::kafka::context::Context;

/// Interval at which a client that reads no records is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Sets the first token of a client. Does nothing if the brokers do not use IAM.
///
/// # Errors
/// No usable AWS credentials exist; librdkafka rejects the token.
pub fn authenticate(config: &Config, client: &Client<Context>) -> Result<()> {
    if config.kafka.auth != KafkaAuth::Iam {
        return Ok(());
    }
    let action = || "cannot sign a token for Amazon MSK".to_string();
    let hint =
        "set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID, or authenticate with `aws sso login`";
    let token = client.context().generate_oauth_token(None);
    let token =
        token.map_err(|error| Error::failed(action()).with_source(error.to_string()).hint(hint))?;
    let (token_value, principal) = (
        CString::new(token.token).context(action)?,
        CString::new(token.principal_name).context(action)?,
    );
    let mut reason = [0u8; 512];
    // SAFETY: the client outlives the call, the strings are NUL-terminated and copied by the call,
    // no extensions are passed, and the call writes at most the given length of `reason`. rdkafka
    // itself makes this call in the same way, but has no public function for it.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token_value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            reason.as_mut_ptr().cast(),
            reason.len(),
        )
    };
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&reason).trim_end_matches('\0').to_string();
    Err(Error::failed("librdkafka rejected the IAM token for Amazon MSK").with_source(reason))
}

/// Renews the tokens of a consumer that reads no records, until the consumer is dropped.
pub fn refresh_tokens_in_background(config: &Config, consumer: &Arc<BaseConsumer<Context>>) {
    if config.kafka.auth != KafkaAuth::Iam {
        return;
    }
    let consumer: Weak<BaseConsumer<Context>> = Arc::downgrade(consumer);
    std::thread::spawn(move || {
        loop {
            match consumer.upgrade() {
                // No partition is assigned, so the poll cannot lose a record.
                Some(consumer) => drop(consumer.poll(Duration::ZERO)),
                None => return,
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    });
}
