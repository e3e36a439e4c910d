//! Bringing the latest artifact to one sink, again and again until it is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::{Instrument as _, info, warn};

use super::sinks::{Artifact, Receipt, Sink, SinkError};
use crate::clock;
use crate::traces::errand;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A failure that lasts is said again this often.
const REMIND: Duration = Duration::from_mins(1);

/// An artifact with a number by which its delivery is told.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) number: u64,
    pub(super) artifact: Arc<Artifact>,
}

/// How deliveries to a sink go.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivery {
    /// The number of the newest artifact that is there.
    pub(super) delivered: u64,
    /// When something was delivered last.
    pub(super) last_success: Option<OffsetDateTime>,
    /// Since when deliveries fail.
    pub(super) failing_since: Option<(Instant, OffsetDateTime)>,
    /// Why the last one did, while they do.
    pub(super) error: Option<String>,
    /// How often they worked again after having failed.
    pub(super) recoveries: u64,
    /// Epoch and seq (of key statements: version) of the newer one for which the hub refused the last.
    pub(super) superseded_by: Option<(u64, u64)>,
    /// The number of the newest one that would have been taken, had its base been there.
    pub(super) baseless: u64,
    /// What was said when the newest was taken.
    pub(super) receipt: Receipt,
}

/// A courier at work: put parcels in, watch them arrive. Dropped, it stops.
pub(super) struct Courier {
    parcels: watch::Sender<Option<Parcel>>,
    pub(super) delivery: watch::Receiver<Delivery>,
    next_number: u64,
}

impl Courier {
    pub(super) fn start(sink: Arc<dyn Sink>) -> Self {
        let (parcels, inbox) = watch::channel(None);
        let (report, delivery) = watch::channel(Delivery::default());
        tokio::spawn(run(sink, inbox, report));
        Self { parcels, delivery, next_number: 1 }
    }

    /// Takes `artifact` to the sink; one that is still on its way is replaced. Returns its number.
    pub(super) fn send(&mut self, artifact: Arc<Artifact>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.parcels.send_replace(Some(Parcel { number, artifact }));
        number
    }
}

async fn run(
    sink: Arc<dyn Sink>,
    mut inbox: watch::Receiver<Option<Parcel>>,
    report: watch::Sender<Delivery>,
) {
    let mut failure: Option<Failure> = None;
    while inbox.changed().await.is_ok() {
        // Until it has arrived, or something newer has come.
        loop {
            let Some(parcel) = inbox.borrow_and_update().clone() else { break };
            let outcome =
                sink.deliver(&parcel.artifact).instrument(errand!("push", sink = sink.name())).await;
            match outcome {
                Ok(receipt) => {
                    let recovered = failure.take().is_some();
                    if recovered {
                        info!(sink = sink.name(), "publishing works again");
                    }
                    report.send_modify(|delivery| {
                        delivery.delivered = parcel.number;
                        delivery.last_success = Some(clock::precise());
                        delivery.failing_since = None;
                        delivery.error = None;
                        delivery.superseded_by = None;
                        delivery.receipt = receipt;
                        delivery.recoveries += u64::from(recovered);
                    });
                    break;
                }
                Err(cause) => {
                    let failure = failure.get_or_insert_with(Failure::new);
                    failure.say(sink.name(), &cause);
                    let error = cause.to_string();
                    let superseded_by = match cause {
                        SinkError::Superseded { epoch, seq } => Some((epoch, seq)),
                        SinkError::Failed(_) | SinkError::Incomplete(_) | SinkError::Baseless(_) => None,
                    };
                    let baseless = matches!(cause, SinkError::Baseless(_));
                    let goes_on = baseless || matches!(cause, SinkError::Incomplete(_));
                    report.send_modify(|delivery| {
                        delivery.failing_since = Some((failure.since, failure.since_when));
                        delivery.error = Some(error);
                        delivery.superseded_by = superseded_by;
                        if baseless {
                            delivery.baseless = parcel.number;
                        }
                    });
                    // The same head would be refused again; the next one may not be.
                    if superseded_by.is_some() {
                        break;
                    }
                    let waited = if goes_on {
                        failure.pause_unless_newer(&mut inbox).await
                    } else {
                        failure.pause(&inbox).await
                    };
                    if !waited {
                        return;
                    }
                }
            }
        }
    }
}

/// A run of failed attempts.
struct Failure {
    since: Instant,
    since_when: OffsetDateTime,
    said: Option<Instant>,
    pause: Duration,
}

impl Failure {
    fn new() -> Self {
        Self { since: Instant::now(), since_when: clock::precise(), said: None, pause: FIRST_PAUSE }
    }

    fn say(&mut self, sink: &str, cause: &SinkError) {
        if self.said.is_some_and(|said| said.elapsed() < REMIND) {
            return;
        }
        self.said = Some(Instant::now());
        let failing_for_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        warn!(sink, failing_for_ms, "publishing fails, trying on: {cause}");
    }

    /// How long to wait: a little longer each time, by a random half.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause / 2 + self.pause.mul_f64(f64::from(random_byte()) / 512.0);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        pause
    }

    /// Waits; false when there is nothing to wait for any more.
    async fn pause(&mut self, inbox: &watch::Receiver<Option<Parcel>>) -> bool {
        let pause = self.next_pause();
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            closed = closed(inbox) => closed,
        }
    }

    /// The same, but what is newer needn't wait: there is somebody who takes it.
    async fn pause_unless_newer(&mut self, inbox: &mut watch::Receiver<Option<Parcel>>) -> bool {
        let pause = self.next_pause();
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            newer = inbox.changed() => newer.is_ok(),
        }
    }
}

/// Returns false once nobody sends any more. New parcels don't shorten a pause: they would undo the backoff.
async fn closed(inbox: &watch::Receiver<Option<Parcel>>) -> bool {
    let mut inbox = inbox.clone();
    while inbox.changed().await.is_ok() {}
    false
}

fn random_byte() -> u8 {
    let mut byte = [0];
    _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}
