//! What the edge does off the hot path, on the `worker` crate. The entry script instantiates this module only inside
//! the Durable Object, so no request pays for its start.

mod host_crypto;
mod hub;
mod listeners;
