//! W3C Trace Context: whose trace a request belongs to.

use axum::http::{HeaderMap, HeaderName};

use crate::traces::Caller;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What the header says; nothing where there is none, or one that doesn't hold: then a new trace begins (W3C Trace Context §3.2.2, §4.3).
pub(super) fn caller(headers: &HeaderMap) -> Option<Caller> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(parse),
        _ => None,
    }
}

/// A trace as it stands in headers and logs: its caller's, or a new one.
pub(super) fn trace_id(caller: Option<Caller>) -> String {
    let id = caller.map_or_else(
        || {
            let mut bytes = [0; 16];
            // Without randomness there is no trace to follow; requests that need randomness fail for themselves.
            _ = aws_lc_rs::rand::fill(&mut bytes);
            u128::from_be_bytes(bytes)
        },
        |caller| caller.trace_id,
    );
    format!("{id:032x}")
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`; later versions may go on after another hyphen.
fn parse(text: &str) -> Option<Caller> {
    let mut parts = text.split('-');
    let mut part = |length| {
        let part = parts.next()?;
        let sound =
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        sound.then_some(part)
    };
    let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    if version == "ff" || version == "00" && parts.next().is_some() {
        return None;
    }
    let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
    let span_id = u64::from_str_radix(span_id, 16).ok().filter(|id| *id != 0)?;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    Some(Caller { trace_id, span_id, sampled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_is_taken_and_nothing_else() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACEPARENT, value.parse().unwrap());
            }
            caller(&headers)
        };
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let taken = of(&[given]);
        assert_eq!(trace_id(taken), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(taken.map(|caller| (caller.span_id, caller.sampled)), Some((0x00f0_67aa_0ba9_02b7, true)));
        let unsampled = of(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"]);
        assert_eq!(unsampled.map(|caller| caller.sampled), Some(false));
        let later = of(&["01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"]);
        assert_eq!(later, taken);
        for refused in [
            &[] as &[&str],
            &[given, given],
            &[""],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
            &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01"],
            &["00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
        ] {
            assert_eq!(of(refused), None, "{refused:?}");
        }
        assert_ne!(trace_id(None), trace_id(None));
        assert_eq!(trace_id(None).len(), 32);
    }
}
