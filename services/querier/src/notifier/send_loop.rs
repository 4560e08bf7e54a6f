//! The queue of one Alertmanager, and its emptying.
//!
//! Invariants:
//! - the queue is bounded: when it is full the oldest alerts go, and are counted;
//! - a batch that is not taken is not sent again, as in Prometheus: what still fires is sent anew after the resend
//!   delay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Limited};
use http_client::{Client, status_text};
use model::{Labels, Timestamp};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::metrics::LoopMetrics;
use super::{Notification, Options};

/// How much of an answer is read, in bytes: nobody looks at it, but a connection whose answer was read is used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What goes to one Alertmanager.
#[derive(Debug)]
pub(super) struct SendLoop {
    url: String,
    client: Arc<Client>,
    timeout: Duration,
    options: Options,
    metrics: LoopMetrics,
    queue: Mutex<VecDeque<Arc<Notification>>>,
    more: Notify,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// There was none.
    Nothing,
    /// The Alertmanager has it.
    Taken,
    /// It is lost.
    Lost,
}

impl SendLoop {
    pub(super) fn new(
        url: &str,
        (client, timeout): (Arc<Client>, Duration),
        options: Options,
        metrics: LoopMetrics,
    ) -> Self {
        let (url, queue, more) = (url.to_owned(), Mutex::default(), Notify::new());
        Self { url, client, timeout, options, metrics, queue, more }
    }

    /// Puts alerts into the queue; the oldest go where there is no place.
    pub(super) fn add(&self, alerts: &[Arc<Notification>]) {
        let mut queue = self.queue.lock();
        let excess = (queue.len() + alerts.len()).saturating_sub(self.options.queue_capacity);
        let from_queue = excess.min(queue.len());
        queue.drain(..from_queue);
        queue.extend(alerts[excess - from_queue..].iter().cloned());
        self.note_length(queue.len());
        drop(queue);
        if excess > 0 {
            warn!(alertmanager = self.url, count = excess, "Alert notification queue full, dropping alerts");
            self.metrics.dropped.inc_by(excess as u64);
        }
        self.more.notify_one();
    }

    /// Sends until told to stop; then what waits, where that is wished and as long as it is taken.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.more.notified() => {}
            }
            while !stop.is_cancelled() && self.send_batch().await != Sent::Nothing {}
        }
        // An Alertmanager that does not answer does not hold up the end.
        while self.options.drains && self.send_batch().await == Sent::Taken {}
        let count = self.queue.lock().len();
        if count > 0 {
            warn!(alertmanager = self.url, count, "Alert notification queue not drained, dropping alerts");
        }
        self.metrics.forget();
    }

    /// Sends the next batch.
    async fn send_batch(&self) -> Sent {
        let batch = self.next_batch();
        if batch.is_empty() {
            return Sent::Nothing;
        }
        let (count, started) = (batch.len() as u64, Instant::now());
        match self.send(&batch).await {
            Ok(()) => {
                self.metrics.took(started.elapsed());
                self.metrics.sent.inc_by(count);
                Sent::Taken
            }
            Err(error) => {
                error!(alertmanager = self.url, count, error, "Error sending alerts");
                self.metrics.errors.inc_by(count);
                self.metrics.dropped.inc_by(count);
                Sent::Lost
            }
        }
    }

    fn next_batch(&self) -> Vec<Arc<Notification>> {
        let mut queue = self.queue.lock();
        let count = queue.len().min(self.options.batch_size);
        let batch = queue.drain(..count).collect();
        self.note_length(queue.len());
        batch
    }

    fn note_length(&self, length: usize) {
        self.metrics.queue_length.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    async fn send(&self, batch: &[Arc<Notification>]) -> Result<(), String> {
        let postable: Vec<Postable<'_>> = batch.iter().map(|alert| Postable::new(alert)).collect();
        let body = serde_json::to_vec(&postable).map_err(|error| error.to_string())?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let post = async {
            let posted = self.client.post(&self.url, &headers, Bytes::from(body)).await;
            let response = posted.map_err(|error| error.to_string())?;
            let (is_success, status) = (response.status().is_success(), status_text(&response));
            // What comes behind the status decides nothing.
            drop(Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await);
            if is_success { Ok(()) } else { Err(format!("bad response status {status}")) }
        };
        tokio::time::timeout(self.timeout, post)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }
}

/// An alert as Alertmanager's API has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Postable<'a> {
    annotations: Map<'a>,
    ends_at: String,
    starts_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    labels: Map<'a>,
}

impl<'a> Postable<'a> {
    fn new(alert: &'a Notification) -> Self {
        Self {
            annotations: Map(&alert.annotations),
            ends_at: rfc3339(alert.ends_at),
            starts_at: rfc3339(alert.starts_at),
            generator_url: &alert.generator_url,
            labels: Map(&alert.labels),
        }
    }
}

/// Labels as an object.
#[derive(Debug)]
struct Map<'a>(&'a Labels);

impl Serialize for Map<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

/// A time with milliseconds; one that no calendar holds is the first of all.
fn rfc3339(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(time.millis()).unwrap_or(jiff::Timestamp::MIN);
    format!("{time:.3}")
}
