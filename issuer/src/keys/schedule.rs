//! What is to be done about the keys, and when: a function of what is known of them, without I/O.

use countersign_shared::{Algorithm, Jwk};
use time::{Duration, OffsetDateTime};

use super::public::rsa_bits;
use crate::config::Signing;
use crate::domain::signing_key::{KeyRecord, KeyState, Purpose};
use crate::storage::signing_keys::Known;

/// A new key signs this much later than the last JWK Set without it may have been kept: issuers see it a moment after it was made, and clocks differ.
const MARGIN: Duration = Duration::seconds(5);
/// By how much later than it is said a key ends that nothing asks for: an issuer may have a request under way that asked.
const LINGER: Duration = Duration::seconds(5);
/// How many keys of one purpose and algorithm may be published at a time, those aside of which only the public part is kept. With all algorithms and
/// [`MAX_VERIFY_ONLY`] of those, a JWK Set stays far below what it may hold (128).
pub(super) const MAX_LIVE: usize = 8;
/// How many of them may wait without a time to sign: the others are room for rotations.
pub(super) const MAX_SPARE: usize = 4;
/// How many keys may be published of which only the public part is kept.
pub(super) const MAX_VERIFY_ONLY: usize = 32;

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

    /// How many keys of that kind are published that can sign, could or will.
    pub(super) fn live(&self, purpose: Purpose, algorithm: Algorithm) -> usize {
        self.of(purpose, algorithm).filter(|key| key.state != KeyState::Retired && !key.public_only).count()
    }

    /// How many of them wait without a time.
    pub(super) fn spares(&self, purpose: Purpose, algorithm: Algorithm) -> usize {
        let spare = |key: &&KeyRecord| key.state == KeyState::Pending && key.activates_at.is_none();
        self.of(purpose, algorithm).filter(spare).count()
    }

    /// How many keys are published of which only the public part is kept.
    pub(super) fn verify_only(&self) -> usize {
        self.keys.iter().filter(|key| key.state != KeyState::Retired && key.public_only).count()
    }

    /// Whether anything signs for `purpose`.
    pub(super) fn signs(&self, purpose: Purpose) -> bool {
        self.keys.iter().any(|key| key.purpose == purpose && key.signs_at(self.now))
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
        // Its key may have been given up while no issuer was there to see it: then all goes on as it is, and another is planned.
        let there = known.active(Purpose::Token, next).is_some();
        return Some(Step::Use(if there { next } else { current }, None));
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
        let plan = |at| {
            let plan = known.plan(Purpose::Token, *algorithm, wanted.rsa_bits, at);
            // What signs goes on until another may be published.
            let room = plan.prepared.is_some()
                || known.live(Purpose::Token, *algorithm) < MAX_LIVE
                || !known.signs(Purpose::Token);
            room.then_some(Step::Schedule(plan))
        };
        let Some(active) = known.active(Purpose::Token, *algorithm).filter(|key| key.signs_until.is_none())
        else {
            if known.signs(Purpose::Token) {
                return plan(None);
            }
            // Nothing signs at all: better a key that not everybody knows yet.
            let Some(Step::Schedule(urgent)) = plan(None) else { return None };
            return Some(Step::Schedule(Plan { at: known.now, ..urgent }));
        };
        // One that is only in use until another algorithm takes over isn't made anew in the other's size.
        let stays = *algorithm == wanted.token_algorithm || known.asked_for.contains(algorithm);
        if stays && size(active).is_some_and(|size| size != wanted.rsa_bits) {
            return plan(None);
        }
        let ends = active.activates_at? + wanted.rotation?;
        if ends <= known.earliest() { plan(Some(ends)) } else { None }
    })
}

/// Whether a key's time is over that nothing asks for: it isn't replaced then. Until then it stays as it is, and serves whoever asks for its algorithm
/// again, so that asking and not asking in turn makes no more keys than asking all the time. One that has its time, but hasn't begun yet, begins.
fn disuse(known: &Known, wanted: &Signing) -> Option<Step> {
    let mut in_use = known.in_use();
    in_use.push(wanted.token_algorithm);
    let goes_on = |algorithm: &Algorithm| {
        known.active(Purpose::Token, *algorithm).is_some_and(|key| key.signs_until.is_none())
    };
    if !in_use.iter().all(goes_on) {
        return None; // it may be what signs in the place of one that isn't there
    }
    let rotation = wanted.rotation?;
    let over = |key: &&KeyRecord| {
        key.purpose == Purpose::Token
            && key.state == KeyState::Active
            && key.signs_until.is_none()
            && !in_use.contains(&key.algorithm)
            && key.activates_at.is_some_and(|from| from + rotation <= known.now)
    };
    known.keys.iter().find(over).map(|key| Step::End(key.kid.clone(), known.now + LINGER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_shared::base64url;

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
            jwks_max_age_unstated: 0.0,
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
        // Set back meanwhile: the old one goes on, and the key that isn't needed stays.
        let eddsa = wanted(Algorithm::EdDsa);
        assert_eq!(due(&known, &eddsa), [Step::Use(Algorithm::EdDsa, None)]);
        known.state.next_token_algorithm = None;
        assert_eq!(due(&known, &eddsa), []);
        // Its time has come.
        known.state.next_token_algorithm = next;
        known.keys[1].state = KeyState::Active;
        known.now = EARLIEST;
        assert_eq!(due(&known, &es256), [Step::Use(Algorithm::Es256, None)]);
        (known.state.token_algorithm, known.state.next_token_algorithm) = (Algorithm::Es256, None);
        assert_eq!(due(&known, &es256), [], "who asks for the old one again finds it");
        known.now = NOW + Duration::days(29);
        known.keys[1].activates_at = Some(known.now);
        assert_eq!(due(&known, &es256), [Step::End("a".to_owned(), known.now + LINGER)]);
        known.keys[0].signs_until = Some(known.now + LINGER);
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

    #[test]
    fn nothing_ends_before_what_signs_instead_is_there() {
        // ES256 was to sign from now on, but while no issuer ran its key was given up.
        let mut known = known(vec![
            key("a", Algorithm::EdDsa, KeyState::Active),
            key("b", Algorithm::Es256, KeyState::Retired),
        ]);
        let es256 = wanted(Algorithm::Es256);
        known.state.next_token_algorithm = Some((Algorithm::Es256, NOW));
        assert_eq!(due(&known, &es256), [Step::Use(Algorithm::EdDsa, None)]);
        known.state.next_token_algorithm = None;
        assert_eq!(due(&known, &es256), schedule(Algorithm::Es256, None, EARLIEST));
        // Also where the state says already what it shouldn't, and the old key's time is long over.
        known.state.token_algorithm = Algorithm::Es256;
        known.keys[0].activates_at = Some(NOW - Duration::days(90));
        assert_eq!(disuse(&known, &es256), None);
        known.keys.push(key("c", Algorithm::Es256, KeyState::Active));
        let end = Some(Step::End("a".to_owned(), NOW + LINGER));
        assert_eq!(disuse(&known, &es256), end);
        known.keys[2].signs_until = Some(NOW + Duration::hours(1));
        assert_eq!(disuse(&known, &es256), None, "the other ends too");
        known.keys[2].signs_until = None;
        assert_eq!(disuse(&known, &Signing { rotation: None, ..es256 }), None);
    }

    #[test]
    fn a_key_is_made_anew_in_another_size_only_where_its_algorithm_stays() {
        let of_4096 = |state| {
            let modulus = base64url::encode(&[0xff; 512]);
            let public_jwk =
                format!(r#"{{"kty":"RSA","kid":"a","alg":"PS256","use":"sig","e":"AQAB","n":"{modulus}"}}"#);
            KeyRecord { public_jwk, ..key("a", Algorithm::Ps256, state) }
        };
        let mut known = known(vec![of_4096(KeyState::Active)]);
        assert_eq!(size(&known.keys[0]), Some(4096));
        known.state.token_algorithm = Algorithm::Ps256;
        assert_eq!(due(&known, &wanted(Algorithm::Ps256)), schedule(Algorithm::Ps256, None, EARLIEST));
        // It only serves until the other takes over.
        assert_eq!(due(&known, &wanted(Algorithm::EdDsa)), schedule(Algorithm::EdDsa, None, EARLIEST));
        known.asked_for = vec![Algorithm::Ps256];
        assert_eq!(due(&known, &wanted(Algorithm::EdDsa)), schedule(Algorithm::Ps256, None, EARLIEST));
    }

    #[test]
    fn so_many_keys_are_published_and_no_more() {
        let eddsa = wanted(Algorithm::EdDsa);
        let mut known = known(vec![key("a", Algorithm::EdDsa, KeyState::Active)]);
        known.keys[0].activates_at = Some(NOW - Duration::days(90));
        let retiring = |n: usize| key(&format!("r{n}"), Algorithm::EdDsa, KeyState::Retiring);
        known.keys.extend((1..MAX_LIVE - 1).map(retiring));
        assert_eq!(due(&known, &eddsa), schedule(Algorithm::EdDsa, None, EARLIEST));
        known.keys.push(retiring(MAX_LIVE));
        assert_eq!(due(&known, &eddsa), [], "it waits");
        // Other algorithms have room of their own.
        known.asked_for = vec![Algorithm::Es256];
        assert_eq!(due(&known, &eddsa), schedule(Algorithm::Es256, None, EARLIEST));
        known.asked_for.clear();
        // One that is published already is no further one.
        known.keys[1].state = KeyState::Pending;
        known.keys[1].activates_at = None;
        let [Step::Schedule(plan)] = &due(&known, &eddsa)[..] else { panic!() };
        assert_eq!(plan.prepared.as_deref(), Some("r1"));
        // Where nothing signs there is always room.
        known.keys[1].state = KeyState::Retiring;
        known.keys[0].state = KeyState::Retired;
        for key in &mut known.keys {
            key.signs_until = Some(NOW);
        }
        known.keys.push(retiring(0));
        known.keys[MAX_LIVE].signs_until = Some(NOW);
        assert_eq!(due(&known, &eddsa), schedule(Algorithm::EdDsa, None, NOW));
    }

    /// Does in memory what is due (`rotation.rs`, and the database's trigger). How many keys were made.
    fn act(known: &mut Known, wanted: &Signing) -> usize {
        let mut made = 0;
        loop {
            let steps = due(known, wanted);
            if steps.is_empty() {
                return made;
            }
            for step in steps {
                let now = known.now;
                let find = |known: &mut Known, kid: &str| {
                    known.keys.iter().position(|key| key.kid == kid).expect("a known key")
                };
                match step {
                    Step::Retiring(kid) => {
                        let at = find(known, &kid);
                        known.keys[at].state = KeyState::Retiring;
                        known.keys[at].signs_until.get_or_insert(now);
                    }
                    Step::Activate(kid) => {
                        let at = find(known, &kid);
                        assert!(known.active(Purpose::Token, known.keys[at].algorithm).is_none());
                        known.keys[at].state = KeyState::Active;
                    }
                    Step::Retire(kid) => {
                        let at = find(known, &kid);
                        known.keys[at].state = KeyState::Retired;
                    }
                    Step::End(kid, until) => {
                        let at = find(known, &kid);
                        known.keys[at].signs_until = Some(until);
                    }
                    Step::Use(algorithm, next) => {
                        (known.state.token_algorithm, known.state.next_token_algorithm) = (algorithm, next);
                    }
                    Step::Schedule(plan) => {
                        if let Some(active) = known.active(plan.purpose, plan.algorithm) {
                            let at = find(known, &active.kid.clone());
                            known.keys[at].signs_until = Some(plan.at);
                        }
                        assert_eq!(plan.prepared, None);
                        made += 1;
                        let mut new =
                            key(&format!("k{}", known.keys.len()), plan.algorithm, KeyState::Pending);
                        (new.created_at, new.activates_at) = (Some(now), Some(plan.at));
                        known.keys.push(new);
                    }
                }
            }
            for key in &mut known.keys {
                key.retires_at = key.signs_until.map(|until| until + Duration::seconds(86_400 + 30));
            }
        }
    }

    #[test]
    fn asking_and_not_asking_in_turn_makes_no_more_keys_than_asking() {
        let eddsa = wanted(Algorithm::EdDsa);
        let others = [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256];
        // By the second, by the minute, and by the hour: before a key has its time, before it begins, and after.
        for pause in [Duration::SECOND, Duration::minutes(7), Duration::hours(10)] {
            let mut known = known(vec![key("a", Algorithm::EdDsa, KeyState::Active)]);
            let mut made = 0;
            for turn in 0..100 {
                known.asked_for = if turn % 2 == 0 { others.to_vec() } else { Vec::new() };
                made += act(&mut known, &eddsa);
                assert!(known.signs(Purpose::Token));
                known.now += pause;
            }
            let intervals = usize::try_from(pause.whole_seconds() * 100 / (30 * 86_400) + 1).unwrap();
            assert!(made >= others.len(), "{made}");
            assert!(made <= 4 * intervals, "{made} keys in {intervals} intervals");
            for algorithm in others {
                let of_it = known.of(Purpose::Token, algorithm).count();
                assert!(of_it <= intervals, "{of_it} of {}", algorithm.as_str());
            }
            // What nothing asks for any more ends when its time is over.
            known.asked_for.clear();
            known.now += Duration::days(31);
            act(&mut known, &eddsa);
            known.now += Duration::days(2);
            act(&mut known, &eddsa);
            known.now += Duration::days(2);
            act(&mut known, &eddsa);
            let live: Vec<_> = known.keys.iter().filter(|key| key.state != KeyState::Retired).collect();
            assert!(live.iter().all(|key| key.algorithm == Algorithm::EdDsa), "{live:?}");
            assert!(known.signs(Purpose::Token));
        }
    }
}
