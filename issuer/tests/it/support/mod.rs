//! What the tests stand on.

pub(crate) mod cli;
pub(crate) mod database;
pub(crate) mod desk;
pub(crate) mod edge;
pub(crate) mod file;
pub(crate) mod issuer;
pub(crate) mod keys;
pub(crate) mod proxy;
pub(crate) mod softhsm;

use std::time::{Duration, Instant};

pub(crate) use database::TestDatabase;
pub(crate) use issuer::{AUDIENCE, Client, ISSUER, Issuer};

/// What the admin listener wants to see, where it wants anything.
pub(crate) const ADMIN_TOKEN: &str = "b8uZ0Qe1nXw5yT3rGk7vHs2mLp9cJd4fAaRt6o";
/// base64 of 32 bytes.
pub(crate) const MASTER_KEY: &str = "7SOMS16FLxVjOs/RGAr/GbIoLoyKzjVj31k0f/bQVHE=";

/// The value of a variable that the tests can't do without.
pub(crate) fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} environment variable is required: run the tests by bin/test, or set it")
    })
}

/// Asks until the answer is some, for at most `seconds`.
pub(crate) async fn eventually<T>(what: &str, seconds: u64, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
