//! W3C Trace Context: whose trace a request belongs to.

use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace that a request belongs to: its caller's, or a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceContext {
    /// 16 bytes, not all zero.
    pub(super) trace_id: u128,
    /// The caller's span; `None`: the trace begins here.
    pub(super) parent: Option<Parent>,
}

/// What a caller says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    /// Its span, not zero.
    pub(super) span_id: u64,
    /// Whether it records the trace.
    pub(super) sampled: bool,
}

impl TraceContext {
    /// What the header says; where there is none, or one that doesn't hold, a new trace (W3C Trace Context §3.2.2, §4.3).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let given = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().and_then(parse),
            _ => None,
        };
        given.unwrap_or_else(|| {
            let mut bytes = [0; 16];
            // Without randomness there is no trace to follow; requests that need randomness fail for themselves.
            _ = aws_lc_rs::rand::fill(&mut bytes);
            Self { trace_id: u128::from_be_bytes(bytes).max(1), parent: None }
        })
    }

    /// As it stands in headers and logs.
    pub(super) fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`; later versions may go on after another hyphen.
fn parse(text: &str) -> Option<TraceContext> {
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
    Some(TraceContext { trace_id, parent: Some(Parent { span_id, sampled }) })
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
            TraceContext::of(&headers)
        };
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let taken = of(&[given]);
        assert_eq!(taken.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(taken.parent, Some(Parent { span_id: 0x00f0_67aa_0ba9_02b7, sampled: true }));
        let unsampled = of(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"]);
        assert_eq!(unsampled.parent.map(|parent| parent.sampled), Some(false));
        let later = of(&["01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"]);
        assert_eq!(later.trace_id, taken.trace_id);
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
            let made = of(refused);
            assert_eq!(made.parent, None, "{refused:?}");
            assert_ne!(made.trace_id, taken.trace_id);
            assert_eq!(made.trace_id_hex().len(), 32);
        }
    }
}
