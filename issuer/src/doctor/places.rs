//! What issuers reach beside Postgres: Redis, the edge, the store of objects, a directory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use countersign_shared::revocation::hex;
use reqwest::header::DATE;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Finding;
use crate::certificates::Certificate;
use crate::clock;
use crate::config::{Edge, Publisher, Serve};
use crate::hot::{self, Health};
use crate::storage::{Database, inspection};

/// How long each may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// From then on an isolate would rather wait for news than decide (edge-verifier/entry/staleness.ts), in milliseconds.
const FRESH_MS: f64 = 5000.0;
/// How far the edge's clock may be off, in seconds, whole as its header's are: by more and tokens are refused as not valid yet, or accepted too long.
const NOTABLE_SECONDS: i64 = 3;
/// Heads are believed for so long: a clock that is ahead by more refuses everything.
const MOST_SECONDS: i64 = 300;
/// Certificates are renewed before that.
const RENEWED: time::Duration = time::Duration::days(14);
/// A directory gets a head each second.
const LONGEST_SILENT: Duration = Duration::from_secs(5);

/// All but what takes the database.
pub(super) async fn all(config: &Serve) -> Vec<Finding> {
    let (mut findings, edge) = tokio::join!(hot_state(config), async {
        match &config.publisher {
            Some(Publisher::Edge(edge, _)) => self::edge(edge).await,
            Some(Publisher::Directory(_)) | None => Vec::new(),
        }
    });
    findings.extend(edge);
    let directory = match &config.publisher {
        Some(Publisher::Edge(_, directory)) => directory.as_ref(),
        Some(Publisher::Directory(directory)) => Some(directory),
        None => None,
    };
    findings.extend(directory.map(|root| self::directory(root)));
    findings.extend(config.admin.tls.as_ref().map(|tls| certificate(&tls.certificate)));
    findings
}

/// The admin listener's.
fn certificate(certificate: &Certificate) -> Finding {
    const CHECK: &str = "certificate";
    let left = certificate.ends_at() - clock::precise();
    let todo =
        "replace the files of ADMIN_TLS_CERTIFICATE and ADMIN_TLS_KEY: they are taken up without a restart";
    if left.is_negative() {
        return Finding::failure(CHECK, "the admin listener's has ended", todo);
    }
    let found = format!("the admin listener's ends in {} days", left.whole_days());
    if left < RENEWED { Finding::warning(CHECK, found, todo) } else { Finding::ok(CHECK, found) }
}

async fn hot_state(config: &Serve) -> Vec<Finding> {
    const CHECK: &str = "hot state";
    let Some(url) = &config.redis_url else {
        let found =
            "in each process, for there is no REDIS_URL: of several issuers each allows what the limits say";
        return vec![Finding::ok(CHECK, found)];
    };
    let todo = "start it, or correct REDIS_URL; meanwhile each issuer counts requests by itself";
    let health = match hot::open(Some(url)) {
        // It answers from the moment on when its connection is there.
        Ok(hot) => tokio::time::timeout(PATIENCE, async {
            while hot.health().await != Health::Ok {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .is_ok(),
        Err(_) => false,
    };
    vec![if health {
        Finding::ok(CHECK, "Redis answers")
    } else {
        Finding::warning(CHECK, "Redis doesn't answer", todo)
    }]
}

fn client() -> Result<Client, reqwest::Error> {
    Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()
}

/// Why there is no answer; never the URL, which may tell of more than it should.
fn cause(error: reqwest::Error) -> String {
    let mut text = error.without_url().to_string();
    text.truncate(text.char_indices().nth(200).map_or(text.len(), |(end, _)| end));
    text
}

/// The edge's answer about itself, as far as it matters here.
#[derive(Deserialize)]
struct EdgeHealth {
    status: String,
    revocations: Option<EdgeRevocations>,
}

#[derive(Deserialize)]
struct EdgeRevocations {
    epoch: u64,
    seq: u64,
    age_ms: Option<f64>,
}

/// The isolate that answers, and its clock.
async fn edge(edge: &Edge) -> Vec<Finding> {
    const CHECK: &str = "edge";
    let mut url = edge.hub_url.clone();
    url.set_path(&format!("{}/_countersign/health", url.path().trim_end_matches('/')));
    let asked = async { client()?.get(url).send().await };
    let response: Response = match asked.await {
        Ok(response) => response,
        Err(error) => {
            let found = format!("{} doesn't answer: {}", edge.hub_url, cause(error));
            return vec![Finding::failure(
                CHECK,
                found,
                "see whether the edge is deployed there, and correct HUB_URL if not",
            )];
        }
    };
    let (status, clock) = (response.status(), clock_of(&response, clock::precise()));
    let health = response.json::<EdgeHealth>().await;
    let finding = match health {
        Ok(EdgeHealth { status, revocations: Some(known) }) if status == "ok" => {
            let (epoch, seq) = (known.epoch, known.seq);
            match known.age_ms {
                Some(age) if age <= FRESH_MS => Finding::ok(
                    CHECK,
                    format!("its knowledge is {age:.0} ms old, of epoch {epoch} and seq {seq}"),
                ),
                age => Finding::warning(
                    CHECK,
                    format!(
                        "its knowledge is {} ms old",
                        age.map_or_else(|| "?".to_owned(), |age| format!("{age:.0}"))
                    ),
                    "see `publication` here, and docs/reference/edge.md",
                ),
            }
        }
        Ok(EdgeHealth { status, .. }) => Finding::failure(
            CHECK,
            format!("it is {status}, and answers requests with 503"),
            "see `publication` here; the edge's REVOCATION_KEYS must have the key of heads (`countersign keys export-public --purpose revocation`)",
        ),
        Err(_) => Finding::failure(
            CHECK,
            format!("{} answers {}, and not as the edge does", edge.hub_url, status.as_u16()),
            "correct HUB_URL: the base URL of the edge verifier",
        ),
    };
    [Some(finding), clock].into_iter().flatten().collect()
}

/// By the `Date` of its answer (RFC 9110 §6.6.1).
fn clock_of(response: &Response, now: OffsetDateTime) -> Option<Finding> {
    const CHECK: &str = "edge's clock";
    let date = response.headers().get(DATE)?.to_str().ok()?;
    let theirs = OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok()?;
    let off = (theirs - now.truncate_to_second()).whole_seconds();
    let todo = "keep this machine's clock by NTP or the like; Cloudflare's is right";
    let found = match off {
        0 => return Some(Finding::ok(CHECK, "it and this machine's agree")),
        1.. => format!("it is {off} s ahead of this machine's"),
        _ => format!("it is {} s behind this machine's", -off),
    };
    let off = off.abs();
    Some(if off <= NOTABLE_SECONDS {
        Finding::ok(CHECK, found)
    } else if off <= MOST_SECONDS {
        Finding::warning(CHECK, found, todo)
    } else {
        Finding::failure(CHECK, found, todo)
    })
}

/// Whether the base object in force lies where it is published, so that an isolate that starts now finds it.
pub(super) async fn base(database: &Database, publisher: &Publisher) -> Option<Finding> {
    const CHECK: &str = "objects";
    let Publisher::Edge(edge, _) = publisher else { return None };
    let sha256 = match inspection::base(database).await {
        Ok(sha256) => <[u8; 32]>::try_from(sha256?).ok()?,
        Err(error) => return Some(Finding::failure(CHECK, error.to_string(), "see the database's log")),
    };
    let name = hex(&sha256);
    let value = format!("values/base%2F{name}");
    let asked = async { edge.kv.request(&client()?, Method::GET, &value).send().await };
    Some(match asked.await {
        Ok(response) if response.status() == StatusCode::OK => {
            Finding::ok(CHECK, format!("the base in force, {}…, is in KV", &name[..12]))
        }
        Ok(response) if response.status() == StatusCode::NOT_FOUND => Finding::failure(
            CHECK,
            format!("the base in force, {}…, isn't in KV: isolates that start now find nothing", &name[..12]),
            "restart the issuer that publishes: it makes another",
        ),
        Ok(response) if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Finding::failure(
                CHECK,
                "KV refuses KV_API_TOKEN",
                "make one that may edit Workers KV Storage in KV_ACCOUNT_ID",
            )
        }
        Ok(response) => Finding::failure(
            CHECK,
            format!("KV answers {}", response.status().as_u16()),
            "correct KV_API_BASE, KV_ACCOUNT_ID and KV_NAMESPACE_ID",
        ),
        Err(error) => Finding::failure(
            CHECK,
            format!("KV doesn't answer: {}", cause(error)),
            "see whether this machine reaches it, and correct KV_API_BASE",
        ),
    })
}

/// Whether heads come into the directory.
fn directory(root: &Path) -> Finding {
    const CHECK: &str = "directory";
    let head = root.join("head.jwt");
    let written = fs::metadata(&head).and_then(|head| head.modified());
    let age = written.map(|written| clock::precise() - OffsetDateTime::from(written));
    match age {
        Ok(age) if age <= LONGEST_SILENT => {
            Finding::ok(CHECK, format!("{} has a head of a moment ago", root.display()))
        }
        Ok(age) => Finding::failure(
            CHECK,
            format!("the head in {} is {} s old", root.display(), age.whole_seconds()),
            "see `publication` here, and the log of the issuer that publishes; on another machine's directory this says nothing",
        ),
        Err(error) => Finding::failure(
            CHECK,
            format!("{}: {error}", head.display()),
            "see that the issuers may write there; if only another machine has it, this says nothing",
        ),
    }
}
