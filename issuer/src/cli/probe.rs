//! `countersign probe`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::StatusCode;
use serde_json::Value;

use super::Outcome;
use crate::config;
use crate::config::Sources;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  countersign probe\n  countersign probe live --timeout 2\n\nIt asks the public listener, at PORT and HOST: that is where requests come in. Exit status: 0 where the answer is 200; 1 where it is another, where there is none, \
and where it takes too long. Nothing is printed but why not."
)]
pub(super) struct Probe {
    /// What is asked: `live`, whether the process answers at all; `ready`, whether requests should be sent to it.
    #[arg(value_enum, default_value = "ready")]
    what: What,
    /// How long the answer may take, in seconds, from 1 to 60.
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Live,
    Ready,
}

impl What {
    const fn path(self) -> &'static str {
        match self {
            Self::Live => "/health",
            Self::Ready => "/ready",
        }
    }
}

pub(super) async fn run(sources: &Sources, options: &Probe) -> Outcome {
    // Not with the status for settings: whoever probes knows 0 and 1.
    let config = config::Probe::from_sources(sources).map_err(|problems| problems.to_string())?;
    let address = reached(config.address);
    let patience = Duration::from_secs(options.timeout);
    // It is on this machine: no proxy of the environment has to do with it.
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(patience)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let url = format!("http://{address}{}", options.what.path());
    let answer = client.get(&url).send().await.map_err(|error| {
        let why = if error.is_timeout() {
            format!("doesn't answer within {} s", options.timeout)
        } else {
            "can't be reached".to_owned()
        };
        format!("{url} {why}")
    })?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("{url} says {}{}", status.as_u16(), failing(answer.json().await.ok())).into()),
    }
}

/// Where a listener that was bound to `address` is reached from this machine: one for all addresses by the loopback's.
const fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// What fails, as `/ready` has it.
fn failing(body: Option<Value>) -> String {
    let names = body.and_then(|body| {
        let names = body.get("failing")?.as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>();
        (!names.is_empty()).then(|| names.join(", "))
    });
    names.map(|names| format!(": {names}")).unwrap_or_default()
}
