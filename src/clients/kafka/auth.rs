//! Logging in to Amazon MSK with IAM.
//!
//! librdkafka asks for a token through an event of the client's queue, which is served only
//! while somebody polls. A client that is asked questions and never polled (metadata, making
//! topics) would wait for its first token until it gives up: so each client is handed a token
//! when it is made, and one that is only asked is polled on a thread of its own, so that the
//! token is renewed. Known upstream: librdkafka issues 3556 and 3871.

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

/// How often a client that is only asked is polled.
const POLL_PAUSE: Duration = Duration::from_millis(500);

/// Hands a client its first token. Does nothing where the brokers ask for none.
///
/// # Errors
/// There are no usable AWS credentials.
pub fn authenticate(config: &Config, client: &Client<Context>) -> Result<()> {
    if config.kafka.auth != KafkaAuth::Iam {
        return Ok(());
    }
    let action = || "cannot sign a token for Amazon MSK".to_string();
    let hint = "set AWS_PROFILE, `aws.profile` or AWS_ACCESS_KEY_ID, or log in (`aws sso login`)";
    let made = client.context().generate_oauth_token(None);
    let made = made.map_err(|error| {
        Error::failed(action())
            .with_source(error.to_string())
            .hint(hint)
    })?;
    let (token, principal) = (
        CString::new(made.token).context(action)?,
        CString::new(made.principal_name).context(action)?,
    );
    let mut reason = [0u8; 512];
    // SAFETY: the client outlives the call, the texts are NUL-terminated and copied by it, no
    // extensions are passed, and it writes at most the given length of `reason`. rdkafka itself
    // makes this call the same way, but offers no function for it.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            made.lifetime_ms,
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
    let reason = String::from_utf8_lossy(&reason)
        .trim_end_matches('\0')
        .to_string();
    Err(Error::failed("the token for Amazon MSK was not taken").with_source(reason))
}

/// Keeps a consumer logged in that is only asked and never reads, for as long as it lives.
pub fn refresh_tokens_in_background(config: &Config, consumer: &Arc<BaseConsumer<Context>>) {
    if config.kafka.auth != KafkaAuth::Iam {
        return;
    }
    let consumer: Weak<BaseConsumer<Context>> = Arc::downgrade(consumer);
    std::thread::spawn(move || {
        loop {
            match consumer.upgrade() {
                // Nothing is assigned to it: there is no record to lose.
                Some(consumer) => drop(consumer.poll(Duration::ZERO)),
                None => return,
            }
            std::thread::sleep(POLL_PAUSE);
        }
    });
}
