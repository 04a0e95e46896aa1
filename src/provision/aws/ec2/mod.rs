//! EC2: the client machine and its key pair.

pub mod client_machine;
pub mod key_pair;
