//! The hot path of the edge: the verification core behind a handful of exported functions.
//!
//! Numbers cross the boundary, nothing else. The entry script (`edge-verifier/entry/verifier.ts`) writes bytes to where [`input`] says,
//! calls a function with their length, and reads an answer from where [`output_ptr`] says. Neither buffer survives the next
//! call, so nothing may be left in them across an `await`: what a request needs later stays here, under a handle.
//!
//! Functions that can refuse return a negative number and leave `reason\nchallenge\ndescription` in the output.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

pub mod route_policy;
#[cfg(target_arch = "wasm32")]
mod runtime;
mod slots;
pub mod trusted;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt::{self, Write as _};

use countersign_shared::key_statement::PreparedKeyStatement;
use countersign_shared::oauth::challenge;
use countersign_shared::revocation::{
    Base, Delta, FormatError, Head, HeadError, Part, PreparedHead, RevokedSet, hex,
};
use countersign_shared::trusted::{PreparedForeign, TrustedIssuer};
use countersign_shared::verify::Audiences;
use countersign_shared::{
    Claims, Jti, KeySet, KeyStatement, KeyStatementError, Policy, Prepared, Refusal, Signature, UnixTime,
    VerifiedToken, prepare as prepare_token,
};
use slots::Slots;
use spin::{Mutex, MutexGuard};
use wasm_bindgen::prelude::wasm_bindgen;

/// What one isolate knows. WebAssembly here has one thread.
#[derive(Default)]
struct Verifier {
    input: Vec<u8>,
    output: Vec<u8>,
    policy: Option<Policy>,
    token_keys: KeySet,
    head_keys: KeySet,
    /// Other issuers, each with its own keys: none of theirs can be taken for one of ours, whatever it is called.
    trusted: Vec<(TrustedIssuer, KeySet)>,
    /// Those of an issuer that there isn't.
    no_keys: KeySet,
    /// Of the newest key statement that was taken into force: epoch and version.
    key_position: Option<(u64, u64)>,
    pending: Slots<Pending>,
    /// Tokens that the entry script keeps, to be accepted again without another look at their signature.
    held: Slots<VerifiedToken>,
    /// The newest head whose base is loaded, and the set they make.
    current: Option<(Head, RevokedSet)>,
    /// Newer heads that wait for their bases, each of another base: several answers may be under way.
    awaiting_base: Vec<(Head, Delta)>,
}

/// How many heads may wait for their bases; the oldest gives way.
const MAX_AWAITING: usize = 4;

/// A statement between its first step and its last.
enum Pending {
    Token(Prepared),
    /// Of the trusted issuer of that number.
    Foreign(usize, PreparedForeign),
    Head(PreparedHead),
    Keys(PreparedKeyStatement),
}

static VERIFIER: Mutex<Option<Verifier>> = Mutex::new(None);

/// Runs `action` on the isolate's verifier.
fn with<T>(action: impl FnOnce(&mut Verifier) -> T) -> T {
    action(sole(&VERIFIER).get_or_insert_default())
}

/// What `place` holds. There is one thread, and none of the actions calls back into JavaScript: whoever finds it taken comes after a trap, and traps too.
fn sole<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.try_lock().expect("nobody else is at it")
}

/// Takes whatever is written.
struct Text<'v>(&'v mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

// ---- Buffers

/// Makes room for `length` bytes of input and says where.
#[wasm_bindgen]
pub fn input(length: usize) -> *mut u8 {
    with(|verifier| {
        if verifier.input.len() < length {
            verifier.input.resize(length, 0);
        }
        verifier.input.as_mut_ptr()
    })
}

/// Gives back what a large input took.
#[wasm_bindgen]
pub fn shrink_input() {
    with(|verifier| verifier.input = Vec::new());
}

/// Where the last call's output is.
#[wasm_bindgen]
pub fn output_ptr() -> *const u8 {
    with(|verifier| verifier.output.as_ptr())
}

/// How long it is.
#[wasm_bindgen]
pub fn output_len() -> usize {
    with(|verifier| verifier.output.len())
}

// ---- Configuration

/// Sets the issuer (the input, UTF-8) and the leeway for `iat` and `nbf` in seconds; forgets the audiences. −1: not UTF-8.
#[wasm_bindgen]
pub fn configure(length: usize, clock_leeway: u32) -> i32 {
    with(|verifier| {
        let Some(issuer) = verifier.input_text(length) else { return -1 };
        let mut policy = Policy::new(issuer, Vec::new());
        policy.clock_leeway = i64::from(clock_leeway);
        verifier.policy = Some(policy);
        0
    })
}

/// Adds an audience (the input, UTF-8). −1: not UTF-8, or not configured.
#[wasm_bindgen]
pub fn add_audience(length: usize) -> i32 {
    with(|verifier| {
        let audience = verifier.input_text(length);
        match (audience, &mut verifier.policy) {
            (Some(audience), Some(Policy { audiences: Audiences::OneOf(own), .. })) => {
                own.push(audience);
                0
            }
            _ => -1,
        }
    })
}

/// Replaces the keys of one purpose by the JWK Set in the input: tokens (0) or heads (1); or adds to those of tokens the ones that aren't there
/// (2). From 3 on purposes are trusted issuers' ([`trusted::load_issuer_keys`]). The number of keys of that purpose, or −1 with the reason in the output; then the keys stay as they were.
#[wasm_bindgen]
pub fn load_keys(purpose: u32, length: usize) -> i32 {
    with(|verifier| match KeySet::parse(verifier.input.get(..length).unwrap_or_default()) {
        Ok(keys) => {
            match purpose {
                0 => verifier.token_keys = keys,
                1 => verifier.head_keys = keys,
                _ => verifier.token_keys.add_missing(keys),
            }
            verifier.count(purpose)
        }
        Err(error) => {
            verifier.output = error.to_string().into_bytes();
            -1
        }
    })
}

/// Puts key number `index` into the output, as a minimal JWK with `alg`. −1: no such key.
#[wasm_bindgen]
pub fn key(purpose: u32, index: usize) -> i32 {
    with(|verifier| {
        let Some(jwk) = verifier.keys(purpose).keys().get(index).map(countersign_shared::Jwk::to_json) else {
            return -1;
        };
        verifier.output = jwk.into_bytes();
        0
    })
}

// ---- Tokens

/// First step, on the token in the input: a handle, or −1 with the refusal in the output.
#[wasm_bindgen]
pub fn prepare(length: usize) -> i32 {
    with(|verifier| {
        let token = verifier.input.get(..length).unwrap_or_default();
        let Some(policy) = &verifier.policy else { return verifier.refuse_for("not_configured") };
        match prepare_token(token, &verifier.token_keys, policy) {
            Ok(prepared) => verifier.pending.put(Pending::Token(prepared)),
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}

/// Last steps: claims and revocation, at `now` seconds. A number to keep the token by ([`recheck`], [`forget`]) with the identity in the output, a
/// line for each of agent, tenant, credential, agent type, jti, scope, `exp` and audiences; −1 with the refusal. Frees the handle. `even_if_stale`: a head that
/// is past its `fresh_until` will do.
#[wasm_bindgen]
pub fn finish(handle: usize, signature_is_valid: bool, now: f64, even_if_stale: bool) -> i32 {
    with(|verifier| {
        let Some(Pending::Token(prepared)) = verifier.pending.take(handle) else {
            return verifier.refuse_for("not_prepared");
        };
        let Some(policy) = &verifier.policy else { return verifier.refuse_for("not_configured") };
        let now = unix_time(now);
        let Some(revoked) = verifier.revoked(now, even_if_stale) else {
            return verifier.refuse_for("revocations_unknown");
        };
        match prepared
            .finish(signature(signature_is_valid), policy, now)
            .and_then(|token| token.against(revoked))
        {
            Ok(token) => {
                describe(token.claims(), &mut verifier.output);
                verifier.held.put(token)
            }
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}

/// Whether a kept token still holds at `now` seconds, by what is revoked now: 0, or −1 with the refusal. `even_if_stale` as in [`finish`].
#[wasm_bindgen]
pub fn recheck(held: usize, now: f64, even_if_stale: bool) -> i32 {
    with(|verifier| {
        let Some(token) = verifier.held.get(held) else { return verifier.refuse_for("not_held") };
        let now = unix_time(now);
        let Some(revoked) = verifier.revoked(now, even_if_stale) else {
            return verifier.refuse_for("revocations_unknown");
        };
        match token.recheck(now, revoked) {
            Ok(()) => 0,
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}

/// Gives up a kept token.
#[wasm_bindgen]
pub fn forget(held: usize) {
    with(|verifier| drop(verifier.held.take(held)));
}

// ---- Questions of operators

/// What of a token that was prepared bears on its revocation, whether or not it would be accepted. In the output a line for each of jti, agent,
/// tenant, credential, kid, `iat`, `exp`; `base` or `delta`, where its serial is revoked; level, instant and place (`base`, `delta`) of the
/// latest rule about it. Empty where there is none. −1: its issuer didn't sign it, with the refusal. Frees the handle.
#[wasm_bindgen]
pub fn explain(handle: usize, signature_is_valid: bool) -> i32 {
    with(|verifier| {
        let Some(Pending::Token(prepared)) = verifier.pending.take(handle) else {
            return verifier.refuse_for("not_prepared");
        };
        let (Some(policy), Some((_, revoked))) = (&verifier.policy, &verifier.current) else {
            return verifier.refuse_for("revocations_unknown");
        };
        match prepared.signed_claims(signature(signature_is_valid), policy) {
            Ok(claims) => {
                let serial = part(revoked.part_of(claims.jti.coordinate()));
                let ruling = revoked.ruling(&claims);
                let rule = ruling.map_or_else(
                    || "\n\n".to_owned(),
                    |rule| format!("{}\n{}\n{}", rule.level.name(), rule.not_before.0, part(Some(rule.part))),
                );
                verifier.output = format!(
                    "{}\n{}\n{}\n{}\n{}\n{}\n{}\n{serial}\n{rule}",
                    claims.jti,
                    claims.subject,
                    claims.tenant,
                    claims.credential,
                    claims.key_id,
                    claims.issued_at.0,
                    claims.expires_at.0
                )
                .into_bytes();
                0
            }
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}

/// Where the jti in the input is revoked: `base` or `delta` in the output, or nothing. −1: it isn't one of ours, or nothing is known.
#[wasm_bindgen]
pub fn explain_jti(length: usize) -> i32 {
    with(|verifier| {
        let jti = verifier.input_text(length).and_then(|text| text.parse::<Jti>().ok());
        let (Some(jti), Some((_, revoked))) = (jti, &verifier.current) else { return -1 };
        verifier.output = part(revoked.part_of(jti.coordinate())).into();
        0
    })
}

/// Puts what is in force into the output: of the head `epoch seq as_of fresh_until`, of the base its name, `seq`, bytes, serials and rules, of the
/// delta bytes, serials and rules; with spaces between. −1: nothing is.
#[wasm_bindgen]
pub fn in_force() -> i32 {
    with(|verifier| {
        let Some((head, revoked)) = &verifier.current else { return -1 };
        let (base, delta) = (revoked.base(), revoked.delta());
        verifier.output = format!(
            "{} {} {} {} {} {} {} {} {} {} {} {}",
            head.epoch,
            head.seq,
            head.as_of.0,
            head.fresh_until.0,
            hex(&head.base),
            base.seq(),
            base.size(),
            base.len(),
            base.rule_count(),
            head.delta.len(),
            delta.len(),
            delta.rule_count()
        )
        .into_bytes();
        0
    })
}

/// Puts `alg kid` of key number `index` into the output. −1: no such key.
#[wasm_bindgen]
pub fn key_name(purpose: u32, index: usize) -> i32 {
    with(|verifier| {
        let name = verifier.keys(purpose).keys().get(index);
        let Some(name) = name.map(|key| format!("{} {}", key.algorithm().as_str(), key.kid())) else {
            return -1;
        };
        verifier.output = name.into_bytes();
        0
    })
}

fn part(part: Option<Part>) -> &'static str {
    match part {
        Some(Part::Base) => "base",
        Some(Part::Delta) => "delta",
        None => "",
    }
}

// ---- What waits for its signature to be checked

/// Which key to check the signature with.
#[wasm_bindgen]
pub fn pending_key(handle: usize) -> usize {
    with(|verifier| match verifier.pending.get(handle) {
        Some(Pending::Token(token)) => token.key_index(),
        Some(Pending::Foreign(_, token)) => token.key_index(),
        Some(Pending::Head(head)) => head.key_index(),
        Some(Pending::Keys(keys)) => keys.key_index(),
        None => usize::MAX,
    })
}

/// How many bytes of the input the signature covers, from the first on. To be used before the next call that takes input.
#[wasm_bindgen]
pub fn pending_signing_input(handle: usize) -> usize {
    with(|verifier| {
        let Verifier { pending, input, .. } = verifier;
        match pending.get(handle) {
            Some(Pending::Token(token)) => token.signing_input(input).len(),
            Some(Pending::Foreign(_, token)) => token.signing_input(input).len(),
            Some(Pending::Head(head)) => head.signing_input(input).len(),
            Some(Pending::Keys(keys)) => keys.signing_input(input).len(),
            None => 0,
        }
    })
}

/// Puts the signature into the output.
#[wasm_bindgen]
pub fn pending_signature(handle: usize) {
    with(|verifier| {
        verifier.output = match verifier.pending.get(handle) {
            Some(Pending::Token(token)) => token.signature().to_vec(),
            Some(Pending::Foreign(_, token)) => token.signature().to_vec(),
            Some(Pending::Head(head)) => head.signature().to_vec(),
            Some(Pending::Keys(keys)) => keys.signature().to_vec(),
            None => Vec::new(),
        };
    });
}

// ---- Revocations

/// First step, on the head in the input: a handle, or −1 with the reason in the output.
#[wasm_bindgen]
pub fn prepare_head(length: usize) -> i32 {
    with(|verifier| {
        match Head::prepare(verifier.input.get(..length).unwrap_or_default(), &verifier.head_keys) {
            Ok(prepared) => verifier.pending.put(Pending::Head(prepared)),
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}

/// Takes the head into force. 0: done, or what it says is in force already. 1: its base is needed first, its name (hexadecimal SHA-256) is in the output: load it with
/// [`load_base`]. 2: older than what is in force, ignored. −1: refused, with the reason. Frees the handle.
#[wasm_bindgen]
pub fn finish_head(handle: usize, signature_is_valid: bool) -> i32 {
    with(|verifier| {
        let Some(Pending::Head(prepared)) = verifier.pending.take(handle) else {
            return verifier.refuse_for("not_prepared");
        };
        let Some(policy) = &verifier.policy else { return verifier.refuse_for("not_configured") };
        match prepared.finish(signature(signature_is_valid), &policy.issuer) {
            Ok((head, delta)) => verifier.adopt(head, delta),
            Err(HeadError::Refused(refusal)) => verifier.refuse(refusal),
            Err(HeadError::Format(error)) => verifier.refuse_for(&error.to_string()),
        }
    })
}

/// Loads the base that the last [`finish_head`] asked for. The input is its SHA-256, by the host's primitive, followed by the object. 0: in force.
/// −1: refused, with the reason; what was in force stays.
#[wasm_bindgen]
pub fn load_base(length: usize) -> i32 {
    with(|verifier| {
        let Some((digest, bytes)) = verifier.input.get(..length).and_then(<[u8]>::split_first_chunk::<32>)
        else {
            return verifier.refuse_for(&FormatError::Length.to_string());
        };
        // Two questions to the hub may have been answered at the same time, with the same head: the second finds it in force.
        let is_in_force = verifier.current.as_ref().is_some_and(|(head, _)| head.base == *digest);
        if is_in_force && verifier.awaiting_base.is_empty() {
            return 0;
        }
        let Some(place) = verifier.awaiting_base.iter().position(|(head, _)| head.base == *digest) else {
            return verifier.refuse_for(&FormatError::Digest.to_string());
        };
        let (head, delta) = verifier.awaiting_base.swap_remove(place);
        if let Some((current, _)) = &verifier.current {
            if head.age_rank() < current.age_rank() {
                return 0; // the answer to a later question was quicker
            }
            if head.position() == current.position() && !head.same_content(current) {
                return verifier.refuse_for("conflicting_head");
            }
        }
        match Base::parse(bytes, digest, &head.base) {
            Ok(base) => {
                verifier.forget_awaiting(&head);
                verifier.current = Some((head, RevokedSet::new(base, delta)));
                0
            }
            Err(error) => verifier.refuse_for(&error.to_string()),
        }
    })
}

/// Puts `epoch seq fresh_until` of the head in force into the output, and `keys` where it names a key statement. −1: none is.
#[wasm_bindgen]
pub fn head() -> i32 {
    with(|verifier| {
        let Some((head, _)) = &verifier.current else { return -1 };
        let keys = head.keys.map_or_else(String::new, |version| format!(" {version}"));
        verifier.output = format!("{} {} {}{keys}", head.epoch, head.seq, head.fresh_until.0).into_bytes();
        0
    })
}

// ---- Keys that are pushed

/// First step, on the key statement in the input: a handle, or −1 with the reason in the output.
#[wasm_bindgen]
pub fn prepare_key_statement(length: usize) -> i32 {
    with(|verifier| {
        match KeyStatement::prepare(verifier.input.get(..length).unwrap_or_default(), &verifier.head_keys) {
            Ok(prepared) => verifier.pending.put(Pending::Keys(prepared)),
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}

/// Takes the key statement into force: its keys replace all keys of tokens, wherever these are from. Their number; 0: it is the one that is in force; −1:
/// refused, with the reason in the output, and everything stays as it was. Frees the handle.
#[wasm_bindgen]
pub fn finish_key_statement(handle: usize, signature_is_valid: bool) -> i32 {
    with(|verifier| {
        let Some(Pending::Keys(prepared)) = verifier.pending.take(handle) else {
            return verifier.refuse_for("not_prepared");
        };
        let Some(policy) = &verifier.policy else { return verifier.refuse_for("not_configured") };
        let statement = match prepared.finish(signature(signature_is_valid), &policy.issuer) {
            Ok(statement) => statement,
            Err(KeyStatementError::Refused(refusal)) => return verifier.refuse(refusal),
            Err(error) => return verifier.refuse_for(&error.to_string()),
        };
        let position = Some(statement.position());
        match position.cmp(&verifier.key_position) {
            Ordering::Greater => {
                verifier.token_keys = statement.keys;
                verifier.key_position = position;
                verifier.count(0)
            }
            Ordering::Equal => 0,
            Ordering::Less => verifier.refuse_for("older_key_statement"),
        }
    })
}

/// Puts `epoch version` of the key statement in force into the output. −1: none is.
#[wasm_bindgen]
pub fn key_statement() -> i32 {
    with(|verifier| {
        let Some((epoch, version)) = verifier.key_position else { return -1 };
        verifier.output = format!("{epoch} {version}").into_bytes();
        0
    })
}

impl Verifier {
    /// What is revoked, by a head that may be relied on at `now`, or by the newest there is.
    fn revoked(&self, now: UnixTime, even_if_stale: bool) -> Option<&RevokedSet> {
        let is_usable = |(head, _): &&(Head, RevokedSet)| even_if_stale || now < head.fresh_until;
        self.current.as_ref().filter(is_usable).map(|(_, revoked)| revoked)
    }

    fn keys(&self, purpose: u32) -> &KeySet {
        match purpose.checked_sub(trusted::FIRST_PURPOSE) {
            Some(issuer) => self.trusted.get(issuer as usize).map_or(&self.no_keys, |(_, keys)| keys),
            None if purpose == 1 => &self.head_keys,
            None => &self.token_keys,
        }
    }

    fn count(&self, purpose: u32) -> i32 {
        i32::try_from(self.keys(purpose).keys().len()).unwrap_or(i32::MAX)
    }

    fn input_text(&self, length: usize) -> Option<String> {
        self.input.get(..length).and_then(|bytes| str::from_utf8(bytes).ok()).map(str::to_owned)
    }

    fn adopt(&mut self, head: Head, delta: Delta) -> i32 {
        if let Some((current, revoked)) = &mut self.current {
            if head.position() < current.position() {
                return 2;
            }
            // One position, two contents: the issuer's database went back in time. Neither is all that was revoked.
            if head.position() == current.position() && !head.same_content(current) {
                return self.refuse_for("conflicting_head");
            }
            // A heartbeat that was overtaken. It says nothing new, and nothing wrong.
            if head.age_rank() <= current.age_rank() {
                return 0;
            }
            if head.base == current.base {
                revoked.set_delta(delta);
                *current = head.clone();
                self.forget_awaiting(&head);
                return 0;
            }
        }
        self.output = hex(&head.base).into_bytes();
        if let Some(awaiting) = self.awaiting_base.iter_mut().find(|(awaiting, _)| awaiting.base == head.base)
        {
            // Of two of one base the newer one counts, whichever comes first.
            if awaiting.0.age_rank() <= head.age_rank() {
                *awaiting = (head, delta);
            }
            return 1;
        }
        if self.awaiting_base.len() == MAX_AWAITING {
            let oldest = (0..MAX_AWAITING).min_by_key(|place| self.awaiting_base[*place].0.age_rank());
            self.awaiting_base.swap_remove(oldest.unwrap_or(0));
        }
        self.awaiting_base.push((head, delta));
        1
    }

    /// What waits and is older than `head` would change nothing any more.
    fn forget_awaiting(&mut self, head: &Head) {
        self.awaiting_base.retain(|(awaiting, _)| awaiting.age_rank() > head.age_rank());
    }

    fn refuse(&mut self, refusal: Refusal) -> i32 {
        let challenge = challenge(None, Some(&refusal), None);
        self.output = format!("{}\n{challenge}\n{}", refusal.reason(), refusal.description()).into_bytes();
        -1
    }

    /// Not the token's fault.
    fn refuse_for(&mut self, reason: &str) -> i32 {
        self.output = format!("{reason}\n\n").into_bytes();
        -1
    }
}

/// Writes who the token belongs to, as [`finish`] says it.
fn describe(claims: &Claims, output: &mut Vec<u8>) {
    let Claims { subject, tenant, credential, agent_type, jti, .. } = claims;
    output.clear();
    _ = write!(Text(output), "{subject}\n{tenant}\n{credential}\n{agent_type}\n{jti}\n");
    describe_grant(&claims.scope, claims.expires_at, &claims.audience, output);
}

/// The lines about scope, `exp` and audiences.
fn describe_grant(scopes: &[String], expires_at: UnixTime, audience: &[String], output: &mut Vec<u8>) {
    for (place, scope) in scopes.iter().enumerate() {
        output.extend_from_slice(if place > 0 { b" " } else { b"" });
        output.extend_from_slice(scope.as_bytes());
    }
    _ = write!(Text(output), "\n{}\n", expires_at.0);
    route_policy::write_audiences(audience, output);
}

const fn signature(is_valid: bool) -> Signature {
    if is_valid { Signature::Valid } else { Signature::Invalid }
}

#[expect(clippy::cast_possible_truncation, reason = "a clock in whole seconds; `as` saturates")]
const fn unix_time(seconds: f64) -> UnixTime {
    UnixTime(seconds as i64)
}
