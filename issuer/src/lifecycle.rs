//! When the issuer is asked to stop, and who has to know.

use tokio::sync::watch;

/// Whether the issuer stops. From then on it isn't ready any more, but goes on serving until it has been seen to.
#[derive(Default)]
pub struct Lifecycle {
    /// Who asked first.
    asked: watch::Sender<Option<&'static str>>,
}

impl Lifecycle {
    /// Asks for a stop; `by` is for the log. Whoever asks later changes nothing.
    pub fn stop(&self, by: &'static str) {
        self.asked.send_if_modified(|asked| {
            let first = asked.is_none();
            asked.get_or_insert(by);
            first
        });
    }

    /// Whether somebody has asked for it.
    pub fn is_stopping(&self) -> bool {
        self.asked.borrow().is_some()
    }

    /// Returns when somebody has; who it was.
    pub async fn asked(&self) -> &'static str {
        let mut asked = self.asked.subscribe();
        // The sender lives as long as `self`.
        asked.wait_for(Option::is_some).await.ok().and_then(|by| *by).unwrap_or_default()
    }
}
