//! For `bin/bench revocation`: ids of tokens that this installation could have issued, in numbers that would take minutes to issue one by one; and
//! whether what the edge holds is those that were revoked, and no others.
//!
//! `revocation-load lease TENANT COUNT ONE_IN` prints so many ids, one a line. Their serials are leased, and nobody else's: of each `ONE_IN`
//! successive ones a random one is printed, and all in random order, as revocations come. Takes `DATABASE_URL` and `MASTER_KEY`.
//!
//! `revocation-load check ISSUER KEYS HEAD BASE < IDS` verifies the files as the edge does, and asks about every serial between the least and the greatest
//! of the ids'. Prints a JSON object with counts.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fs;
use std::io::{self, BufWriter, Write as _};

use aws_lc_rs::{digest, rand};
use countersign_issuer::config::{Keys, Sources};
use countersign_issuer::keys::{self, check_signature};
use countersign_issuer::storage::{Database, serials};
use countersign_issuer::tokens::jti;
use countersign_shared::revocation::{Base, Head, RevokedSet};
use countersign_shared::{Coordinate, Jti, KeySet, Serial, Shard, TenantId, UnixTime};
use serde_json::json;

type Failure = Box<dyn Error + Send + Sync>;

/// How long the tokens would live, in seconds: longer than a benchmark takes.
const LIFE: i64 = 3600;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lease", tenant, count, one_in] => lease(tenant.parse()?, count.parse()?, one_in.parse()?).await,
        ["check", issuer, keys, head, base] => check(issuer, keys, head, base),
        _ => Err("revocation-load lease TENANT COUNT ONE_IN | check ISSUER KEYS HEAD BASE".into()),
    }
}

async fn lease(tenant: TenantId, count: u64, one_in: u64) -> Result<(), Failure> {
    let config = Keys::from_sources(&Sources::read(std::env::vars(), None))?;
    let database = Database::connect(&config.plain.database).await?;
    let secrets = keys::load_secrets(&database, &config.master_key).await?.ok_or("there are no keys yet")?;
    let now = UnixTime(time::OffsetDateTime::now_utc().unix_timestamp());
    let shard = Shard::of_expiry(now.plus(LIFE)).ok_or("the clock is wrong")?;
    let first = serials::lease(&database, shard, count * one_in).await?.ok_or("the shard is full")?;
    let mut chosen = Vec::new();
    for block in 0..count {
        chosen.push(first + block * one_in + random()? % one_in);
    }
    for place in (1..chosen.len()).rev() {
        chosen.swap(place, usize::try_from(random()? % (place as u64 + 1))?);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    for serial in chosen {
        let coordinate = Coordinate { shard, serial: Serial::new(serial).ok_or("the shard is full")? };
        writeln!(out, "{}", jti::mint(&secrets.jti_tag, coordinate, tenant))?;
    }
    Ok(out.flush()?)
}

fn random() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn check(issuer: &str, keys: &str, head: &str, base: &str) -> Result<(), Failure> {
    let (keys, jws, object) = (KeySet::parse(&fs::read(keys)?)?, fs::read(head)?, fs::read(base)?);
    let prepared = Head::prepare(&jws, &keys).map_err(|refusal| refusal.to_string())?;
    let key = &keys.keys()[prepared.key_index()];
    let signature = check_signature(key, prepared.signing_input(&jws), prepared.signature());
    let (head, delta) = prepared.finish(signature, issuer).map_err(|error| error.to_string())?;
    let found: [u8; 32] = digest::digest(&digest::SHA256, &object).as_ref().try_into()?;
    let base = Base::parse(&object, &found, &head.base).map_err(|error| error.to_string())?;
    let set = RevokedSet::new(base, delta);

    let (mut revoked, mut bounds) = (HashSet::new(), BTreeMap::new());
    for line in io::stdin().lines() {
        let coordinate = line?.parse::<Jti>().map_err(|_| "a line is no id of ours")?.coordinate();
        revoked.insert(coordinate);
        let serial = coordinate.serial.get();
        let (least, greatest) = bounds.entry(coordinate.shard).or_insert((serial, serial));
        (*least, *greatest) = (serial.min(*least), serial.max(*greatest));
    }
    let (mut asked, mut found_revoked, mut lost, mut stray) = (0_u64, 0_u64, 0_u64, 0_u64);
    for (shard, (least, greatest)) in bounds {
        for serial in (least..=greatest).filter_map(Serial::new) {
            let coordinate = Coordinate { shard, serial };
            let (is_held, is_revoked) = (set.contains(coordinate), revoked.contains(&coordinate));
            asked += 1;
            found_revoked += u64::from(is_held);
            lost += u64::from(is_revoked && !is_held);
            stray += u64::from(is_held && !is_revoked);
        }
    }
    let counts = json!({
        "revoked": revoked.len(), "asked": asked, "held": found_revoked, "lost": lost, "stray": stray, "seq": head.seq,
        "head_bytes": jws.len(), "delta_bytes": head.delta.len(), "base_bytes": object.len(),
    });
    Ok(writeln!(io::stdout(), "{counts}")?)
}
