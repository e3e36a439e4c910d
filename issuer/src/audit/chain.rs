//! The chain's arithmetic: the bytes of an event, and its hash with the one before (`docs/reference/formats.md`). No I/O.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::audit::{Entry, Hash, Sealed};

/// What stands for the hash before a chain's first event.
pub const START: Hash = [0; 32];
/// What the bytes of an event begin with: nothing else that is hashed can be taken for one.
const MAGIC: &[u8; 4] = b"CSA1";
/// The length of a text that isn't there.
const ABSENT: u32 = u32::MAX;

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Of its last event.
    pub seq: i64,
    /// Of its last event.
    pub hash: Hash,
    /// Of its last event; `None`: there is none.
    pub recorded_at: Option<OffsetDateTime>,
}

impl Default for End {
    fn default() -> Self {
        Self { seq: 0, hash: START, recorded_at: None }
    }
}

/// Puts `entries` at the ends of their chains, in their order, at `now`, and moves the `ends`.
pub fn extend(entries: Vec<Entry>, ends: &mut BTreeMap<Uuid, End>, now: OffsetDateTime) -> Vec<Sealed> {
    let seal = |entry: Entry| {
        let end = ends.entry(entry.tenant_id).or_default();
        // Time doesn't go back in a chain, even if the server's clock does.
        let recorded_at = end.recorded_at.map_or(now, |last| last.max(now));
        let seq = end.seq + 1;
        let hash = hash(&end.hash, &entry, seq, recorded_at);
        *end = End { seq, hash, recorded_at: Some(recorded_at) };
        Sealed { entry, seq, recorded_at, hash }
    };
    entries.into_iter().map(seal).collect()
}

/// The hash of an event at `seq` after the one that has the hash `previous`.
pub fn hash(previous: &Hash, entry: &Entry, seq: i64, recorded_at: OffsetDateTime) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(&canonical(entry, seq, recorded_at));
    let mut hash = START;
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The bytes of an event. No two events have the same.
pub fn canonical(entry: &Entry, seq: i64, recorded_at: OffsetDateTime) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend(MAGIC);
    bytes.extend(entry.tenant_id.as_bytes());
    bytes.extend(seq.to_le_bytes());
    bytes.extend(micros(recorded_at).to_le_bytes());
    bytes.extend(entry.event_id.as_bytes());
    bytes.extend(micros(entry.occurred_at).to_le_bytes());
    let actor = entry.actor.map(|actor| actor.to_string());
    let texts = [
        actor.as_deref(),
        Some(&entry.action),
        Some(&entry.outcome),
        entry.target_type.as_deref(),
        entry.target_id.as_deref(),
        entry.request_id.as_deref(),
        entry.client_ip.as_deref(),
        entry.user_agent.as_deref(),
        Some(&entry.details),
    ];
    for text in texts {
        // No text here is anywhere near 4 GiB: Postgres takes none over 1.
        let length = text.map_or(ABSENT, |text| u32::try_from(text.len()).unwrap_or(ABSENT));
        bytes.extend(length.to_le_bytes());
        bytes.extend(text.unwrap_or_default().as_bytes());
    }
    bytes
}

/// Microseconds since 1970-01-01T00:00:00Z.
fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::event_id;
    use data_encoding::HEXLOWER;
    use time::macros::datetime;

    fn example() -> Entry {
        let occurred_at = datetime!(2026-11-21 07:00:00.123_456 UTC);
        Entry {
            event_id: event_id(occurred_at, [0; 8]),
            occurred_at,
            tenant_id: Uuid::from_bytes([0x11; 16]),
            actor: Some(Uuid::from_bytes([0x22; 16])),
            action: "agent.created".into(),
            outcome: "success".into(),
            target_type: Some("agent".into()),
            target_id: Some("33333333-3333-3333-3333-333333333333".into()),
            request_id: Some("r-1".into()),
            client_ip: Some("192.0.2.7".into()),
            user_agent: None,
            details: "{}".into(),
        }
    }

    #[test]
    fn the_reference_s_example_is_so() {
        let recorded_at = datetime!(2026-11-21 07:00:00.5 UTC);
        let bytes = HEXLOWER.encode(&canonical(&example(), 1, recorded_at));
        let hash = HEXLOWER.encode(&hash(&START, &example(), 1, recorded_at));
        let reference = include_str!("../../../docs/reference/formats.md");
        let reference: String = reference.split_whitespace().collect();
        assert!(reference.contains(&bytes), "{bytes}");
        assert!(reference.contains(&hash), "{hash}");
    }

    #[test]
    fn every_field_counts() {
        let recorded_at = datetime!(2026-11-21 07:00:00.5 UTC);
        let original = hash(&START, &example(), 1, recorded_at);
        let mut others = vec![
            hash(&[1; 32], &example(), 1, recorded_at),
            hash(&START, &example(), 2, recorded_at),
            hash(&START, &example(), 1, recorded_at + time::Duration::MICROSECOND),
        ];
        let changes: [fn(&mut Entry); 14] = [
            |entry| entry.event_id = Uuid::nil(),
            |entry| entry.occurred_at += time::Duration::MICROSECOND,
            |entry| entry.tenant_id = Uuid::nil(),
            |entry| entry.actor = None,
            |entry| entry.action = "agent.updated".into(),
            |entry| entry.outcome = "failure".into(),
            |entry| entry.target_type = None,
            |entry| entry.target_id = Some(String::new()),
            |entry| entry.target_id = None,
            |entry| entry.request_id = None,
            |entry| entry.client_ip = None,
            |entry| entry.user_agent = Some(String::new()),
            |entry| entry.details = "{ }".into(),
            // The same text, elsewhere.
            |entry| std::mem::swap(&mut entry.user_agent, &mut entry.client_ip),
        ];
        for change in changes {
            let mut entry = example();
            change(&mut entry);
            others.push(hash(&START, &entry, 1, recorded_at));
        }
        others.push(original);
        let count = others.len();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), count);
    }

    #[test]
    fn each_tenant_has_a_chain_and_time_does_not_go_back_in_it() {
        let now = datetime!(2026-11-21 08:00:00 UTC);
        let later = now + time::Duration::HOUR;
        let (one, two) = (example(), Entry { tenant_id: Uuid::nil(), ..example() });
        let mut ends =
            BTreeMap::from([(one.tenant_id, End { seq: 7, hash: [7; 32], recorded_at: Some(later) })]);
        let sealed = extend(vec![one.clone(), two.clone(), one.clone()], &mut ends, now);
        let places: Vec<_> = sealed.iter().map(|sealed| (sealed.seq, sealed.recorded_at)).collect();
        assert_eq!(places, [(8, later), (1, now), (9, later)]);
        assert_eq!(sealed[2].hash, hash(&sealed[0].hash, &one, 9, later));
        assert_eq!(sealed[1].hash, hash(&START, &two, 1, now));
        assert_eq!(ends[&one.tenant_id], End { seq: 9, hash: sealed[2].hash, recorded_at: Some(later) });
    }
}
