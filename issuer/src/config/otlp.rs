//! Where traces are sent.

use reqwest::Url;

use super::sources::Reader;

/// The collector of traces.
#[derive(Debug, Clone)]
pub struct Otlp {
    endpoint: Url,
    /// Of requests whose callers don't say, how many of a hundred are traced.
    pub sample_percent: u32,
}

impl Otlp {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let sample_percent = reader.integer("OTLP_SAMPLE_PERCENT", 100, 0..=100, " percent");
        let text = reader.text("OTLP_ENDPOINT")?;
        let endpoint = text.parse::<Url>().ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if endpoint.is_none() {
            reader.problem(
                "OTLP_ENDPOINT must be an http or https URL without credentials, query and fragment, e.g. http://127.0.0.1:4318: traces go to \
                 /v1/traces below it",
            );
        }
        Some(Self { endpoint: endpoint?, sample_percent })
    }

    /// Where traces go (OTLP/HTTP).
    pub fn traces_url(&self) -> String {
        format!("{}/v1/traces", self.endpoint.as_str().trim_end_matches('/'))
    }
}
