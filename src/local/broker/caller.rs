//! The client that sent a request.

/// Client id and host of a request, for the descriptions of consumer groups.
pub struct Caller {
    pub client_id: String,
    /// IP address.
    pub host: String,
}
