//! What is to be done about the keys, and when: a function of what is known of them, without I/O.

use countersign_shared::{Algorithm, Jwk};
use time::{Duration, OffsetDateTime};

use super::public::rsa_bits;
use crate::config::Signing;
use crate::domain::signing_key::{KeyRecord, KeyState, Purpose};
use crate::storage::signing_keys::Known;

/// A new key signs this much later than the last JWK Set without it may have been kept: issuers see it a moment after it was made, and clocks differ.
const MARGIN: Duration = Duration::seconds(5);
/// How long a key that nothing asks for any more goes on signing: an issuer may have a request under way that asked.
const LINGER: Duration = Duration::seconds(5);

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Its time to sign is over.
    Retiring(String),
    /// It is its time to sign.
    Activate(String),
    /// Everything it has signed has expired, or it is given up before it signed anything.
    Retire(String),
    /// What tokens are signed with where their resource server doesn't say, now and from an instant on.
    Use(Algorithm, Option<(Algorithm, OffsetDateTime)>),
    /// A key gets its time.
    Schedule(Plan),
    /// It has no successor and signs up to then.
    End(String, OffsetDateTime),
}

/// A key that is to sign from an instant on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What.
    pub purpose: Purpose,
    /// How.
    pub algorithm: Algorithm,
    /// One that is there already, published and without a date; `None`: it has to be made.
    pub prepared: Option<String>,
    /// The size of the key where it is RSA.
    pub rsa_bits: u32,
    /// From when on.
    pub at: OffsetDateTime,
}

impl Known {
    fn of(&self, purpose: Purpose, algorithm: Algorithm) -> impl Iterator<Item = &KeyRecord> {
        self.keys.iter().filter(move |key| key.purpose == purpose && key.algorithm == algorithm)
    }

    /// The active key.
    pub fn active(&self, purpose: Purpose, algorithm: Algorithm) -> Option<&KeyRecord> {
        self.of(purpose, algorithm).find(|key| key.state == KeyState::Active)
    }

    /// The key that is to follow it.
    pub fn scheduled(&self, purpose: Purpose, algorithm: Algorithm) -> Option<&KeyRecord> {
        self.of(purpose, algorithm).find(|key| key.is_scheduled())
    }

    /// The key called `kid`.
    pub fn key(&self, kid: &str) -> Option<&KeyRecord> {
        self.keys.iter().find(|key| key.kid == kid)
    }

    /// What tokens are signed with, by setting or because a resource server asks for it.
    pub fn in_use(&self) -> Vec<Algorithm> {
        let state = &self.state;
        let next = state.next_token_algorithm.map(|(next, _)| next);
        let mut all: Vec<Algorithm> =
            [state.token_algorithm].into_iter().chain(next).chain(self.asked_for.iter().copied()).collect();
        all.dedup();
        all
    }

    /// When a key that is published now may begin to sign, in whole seconds: nobody who goes by what issuers say of their JWK Set can still have one
    /// without it.
    pub fn earliest(&self) -> OffsetDateTime {
        self.published_by(self.now)
    }

    fn published_by(&self, since: OffsetDateTime) -> OffsetDateTime {
        let earliest = since + Duration::seconds(self.state.jwks_max_age.into()) + MARGIN;
        earliest.truncate_to_second() + Duration::SECOND
    }

    /// The plan for a key of that kind that signs from `at` on, or from when it may. One that was made before is taken.
    pub fn plan(
        &self,
        purpose: Purpose,
        algorithm: Algorithm,
        bits: u32,
        at: Option<OffsetDateTime>,
    ) -> Plan {
        let suits = |key: &&KeyRecord| {
            key.state == KeyState::Pending
                && key.activates_at.is_none()
                && size(key).is_none_or(|size| size == bits)
        };
        let prepared = self.of(purpose, algorithm).find(suits);
        let earliest = prepared.and_then(|key| key.created_at).map_or_else(
            || self.earliest(),
            |made| self.published_by(made).max(self.now.truncate_to_second() + Duration::SECOND),
        );
        let at = at.map_or(earliest, |at| at.max(earliest));
        Plan { purpose, algorithm, prepared: prepared.map(|key| key.kid.clone()), rsa_bits: bits, at }
    }
}

/// The size of a key's modulus in bits, where it is RSA.
pub fn size(key: &KeyRecord) -> Option<u32> {
    Jwk::parse(key.public_jwk.as_bytes()).ok().and_then(|jwk| rsa_bits(&jwk))
}

/// What is to be done now, all in one transaction; nothing, if there is nothing to do.
pub(super) fn due(known: &Known, wanted: &Signing) -> Vec<Step> {
    let transitions = transitions(known);
    if !transitions.is_empty() {
        return transitions;
    }
    let step = usage(known, wanted).or_else(|| succession(known, wanted)).or_else(|| disuse(known, wanted));
    step.into_iter().collect()
}

/// Where the states don't say any more what the times say.
pub(super) fn transitions(known: &Known) -> Vec<Step> {
    let now = known.now;
    let is_due = |key: &KeyRecord| key.is_scheduled() && key.activates_at.is_some_and(|from| from <= now);
    let over = known.keys.iter().filter(|key| {
        key.state == KeyState::Active
            && (key.signs_until.is_some_and(|until| until <= now)
                || known.scheduled(key.purpose, key.algorithm).is_some_and(is_due))
    });
    let begun = known.keys.iter().filter(|key| is_due(key));
    let past = known
        .keys
        .iter()
        .filter(|key| key.state == KeyState::Retiring && key.retires_at.is_some_and(|until| until <= now));
    let over = over.map(|key| Step::Retiring(key.kid.clone()));
    let begun = begun.map(|key| Step::Activate(key.kid.clone()));
    let past = past.map(|key| Step::Retire(key.kid.clone()));
    // In this order: no two keys are active for one algorithm, not for a moment.
    over.chain(begun).chain(past).collect()
}

/// Whether the installation is to sign with another algorithm: as soon as there is a key for it that is published for long enough.
fn usage(known: &Known, wanted: &Signing) -> Option<Step> {
    let (current, next) = (known.state.token_algorithm, known.state.next_token_algorithm);
    if let Some((next, from)) = next
        && from <= known.now
    {
        return Some(Step::Use(next, None));
    }
    let wanted = wanted.token_algorithm;
    if wanted == current {
        return next.map(|_| Step::Use(current, None));
    }
    if known.active(Purpose::Token, wanted).is_some_and(|key| key.signs_until.is_none()) {
        return Some(Step::Use(wanted, None));
    }
    let from = known.scheduled(Purpose::Token, wanted)?.activates_at?;
    (next != Some((wanted, from))).then_some(Step::Use(current, Some((wanted, from))))
}

/// Whether an algorithm in use needs a key, or another one.
fn succession(known: &Known, wanted: &Signing) -> Option<Step> {
    let mut in_use = known.in_use();
    in_use.push(wanted.token_algorithm);
    in_use.iter().find_map(|algorithm| {
        if known.scheduled(Purpose::Token, *algorithm).is_some() {
            return None;
        }
        let plan = |at| Some(Step::Schedule(known.plan(Purpose::Token, *algorithm, wanted.rsa_bits, at)));
        let Some(active) = known.active(Purpose::Token, *algorithm).filter(|key| key.signs_until.is_none())
        else {
            let signs = |key: &KeyRecord| key.purpose == Purpose::Token && key.signs_at(known.now);
            if known.keys.iter().any(signs) {
                return plan(None);
            }
            // Nothing signs at all: better a key that not everybody knows yet.
            let Some(Step::Schedule(urgent)) = plan(None) else { return None };
            return Some(Step::Schedule(Plan { at: known.now, ..urgent }));
        };
        if size(active).is_some_and(|size| size != wanted.rsa_bits) {
            return plan(None);
        }
        let ends = active.activates_at? + wanted.rotation?;
        if ends <= known.earliest() { plan(Some(ends)) } else { None }
    })
}

/// Whether a key signs, or is to, that nothing asks for any more.
fn disuse(known: &Known, wanted: &Signing) -> Option<Step> {
    let mut in_use = known.in_use();
    in_use.push(wanted.token_algorithm);
    let idle = |key: &&KeyRecord| key.purpose == Purpose::Token && !in_use.contains(&key.algorithm);
    known.keys.iter().filter(idle).find_map(|key| match key.state {
        KeyState::Active if key.signs_until.is_none() => Some(Step::End(key.kid.clone(), known.now + LINGER)),
        KeyState::Pending if key.activates_at.is_some() => Some(Step::Retire(key.kid.clone())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::signing_key::Sealed;
    use crate::storage::signing_keys::KeysState;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00:00.5 UTC);
    /// 300 seconds and 5, and the next whole second.
    const EARLIEST: OffsetDateTime = datetime!(2026-11-21 12:05:06 UTC);

    const fn wanted(algorithm: Algorithm) -> Signing {
        Signing {
            token_algorithm: algorithm,
            rsa_bits: 2048,
            rotation: Some(Duration::days(30)),
            jwks_max_age: 300,
        }
    }

    fn key(kid: &str, algorithm: Algorithm, state: KeyState) -> KeyRecord {
        let day = Duration::days(1);
        KeyRecord {
            kid: kid.to_owned(),
            purpose: Purpose::Token,
            algorithm,
            state,
            public_jwk: String::new(),

            public_only: false,
            sealed: Sealed::default(),
            created_at: Some(NOW - day),
            activates_at: (state != KeyState::Pending).then_some(NOW - day),
            signs_until: None,
            longest_lifetime: 900,
            retires_at: None,
            revoked_at: None,
            revocation_reason: None,
        }
    }

    fn known(keys: Vec<KeyRecord>) -> Known {
        let state = KeysState {
            version: 1,
            jwks_max_age: 300,
            token_algorithm: Algorithm::EdDsa,
            next_token_algorithm: None,
        };
        Known { state, keys, asked_for: Vec::new(), longest_lifetime: None, now: NOW }
    }

    fn schedule(algorithm: Algorithm, prepared: Option<&str>, at: OffsetDateTime) -> Vec<Step> {
        let prepared = prepared.map(str::to_owned);
        vec![Step::Schedule(Plan { purpose: Purpose::Token, algorithm, prepared, rsa_bits: 2048, at })]
    }

    #[test]
    fn a_key_gets_its_successor_in_time() {
        let mut known = known(vec![key("a", Algorithm::EdDsa, KeyState::Active)]);
        let eddsa = wanted(Algorithm::EdDsa);
        assert_eq!(due(&known, &eddsa), []);
        let month = Duration::days(30);
        known.keys[0].activates_at = Some(EARLIEST - month + Duration::SECOND);
        assert_eq!(due(&known, &eddsa), [], "a second too early");
        known.keys[0].activates_at = Some(EARLIEST - month);
        assert_eq!(due(&known, &eddsa), schedule(Algorithm::EdDsa, None, EARLIEST));
        known.keys[0].activates_at = Some(NOW - month * 3);
        assert_eq!(
            due(&known, &eddsa),
            schedule(Algorithm::EdDsa, None, EARLIEST),
            "published first, however late it is"
        );
        assert_eq!(due(&known, &Signing { rotation: None, ..eddsa }), []);
        // One that was made a day ago, and known to everybody since, needn't wait.
        known.keys.push(key("b", Algorithm::EdDsa, KeyState::Pending));
        let next = NOW.truncate_to_second() + Duration::SECOND;
        assert_eq!(due(&known, &eddsa), schedule(Algorithm::EdDsa, Some("b"), next));
        known.keys[1].created_at = Some(NOW - Duration::seconds(100));
        assert_eq!(
            due(&known, &eddsa),
            schedule(Algorithm::EdDsa, Some("b"), EARLIEST - Duration::seconds(100))
        );
        // Then it is scheduled, and nothing is due until its time has come.
        known.keys[1].activates_at = Some(EARLIEST);
        known.keys[0].signs_until = Some(EARLIEST);
        assert_eq!(due(&known, &eddsa), []);
    }

    #[test]
    fn states_follow_times() {
        let mut known = known(vec![
            key("a", Algorithm::EdDsa, KeyState::Active),
            key("b", Algorithm::EdDsa, KeyState::Pending),
            key("c", Algorithm::EdDsa, KeyState::Retiring),
        ]);
        known.keys[0].signs_until = Some(NOW);
        known.keys[1].activates_at = Some(NOW);
        known.keys[2].retires_at = Some(NOW);
        let [a, b, c] = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(transitions(&known), [Step::Retiring(a.clone()), Step::Activate(b), Step::Retire(c)]);
        // A successor that somebody entered by hand ends its predecessor too.
        known.keys[0].signs_until = None;
        assert_eq!(transitions(&known)[0], Step::Retiring(a));
        known.now = NOW - Duration::MICROSECOND;
        assert_eq!(transitions(&known), []);
    }

    #[test]
    fn another_algorithm_waits_for_its_key() {
        let mut known = known(vec![key("a", Algorithm::EdDsa, KeyState::Active)]);
        let es256 = wanted(Algorithm::Es256);
        assert_eq!(due(&known, &es256), schedule(Algorithm::Es256, None, EARLIEST));
        known.keys.push(key("b", Algorithm::Es256, KeyState::Pending));
        known.keys[1].activates_at = Some(EARLIEST);
        let next = Some((Algorithm::Es256, EARLIEST));
        assert_eq!(due(&known, &es256), [Step::Use(Algorithm::EdDsa, next)]);
        known.state.next_token_algorithm = next;
        assert_eq!(due(&known, &es256), []);
        assert_eq!(known.state.token_algorithm_at(NOW), Algorithm::EdDsa);
        assert_eq!(known.state.token_algorithm_at(EARLIEST), Algorithm::Es256);
        // Set back meanwhile: the old one goes on, and the key that isn't needed is given up.
        let eddsa = wanted(Algorithm::EdDsa);
        assert_eq!(due(&known, &eddsa), [Step::Use(Algorithm::EdDsa, None)]);
        known.state.next_token_algorithm = None;
        assert_eq!(due(&known, &eddsa), [Step::Retire("b".to_owned())]);
        // Its time has come.
        known.state.next_token_algorithm = next;
        known.keys[1].state = KeyState::Active;
        known.now = EARLIEST;
        assert_eq!(due(&known, &es256), [Step::Use(Algorithm::Es256, None)]);
        (known.state.token_algorithm, known.state.next_token_algorithm) = (Algorithm::Es256, None);
        assert_eq!(due(&known, &es256), [Step::End("a".to_owned(), EARLIEST + LINGER)]);
        known.keys[0].signs_until = Some(EARLIEST + LINGER);
        assert_eq!(due(&known, &es256), []);
        // Who still asks for it gets a key again.
        known.asked_for = vec![Algorithm::EdDsa];
        let [Step::Schedule(plan)] = &due(&known, &es256)[..] else { panic!() };
        assert_eq!((plan.algorithm, plan.at), (Algorithm::EdDsa, known.earliest()));
    }

    #[test]
    fn where_nothing_signs_it_is_urgent() {
        let eddsa = wanted(Algorithm::EdDsa);
        assert_eq!(due(&known(Vec::new()), &eddsa), schedule(Algorithm::EdDsa, None, NOW));
        // Another algorithm's key serves meanwhile.
        let other = known(vec![key("a", Algorithm::Rs256, KeyState::Active)]);
        assert_eq!(due(&other, &eddsa), schedule(Algorithm::EdDsa, None, EARLIEST));
    }
}
