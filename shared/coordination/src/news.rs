//! What is stored under a prefix, and how it changes: listed and watched, over and over.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};

use crate::Error;
use crate::coordinator::{Coordinator, Event, EventStream, Snapshot};

/// How long to wait after a failure, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What is heard of a prefix.
pub(crate) enum News {
    Listed(Snapshot),
    Changed(Event),
    /// Nothing, for now.
    Failed(Error),
}

/// Follows a prefix, beginning after a delay. Never over.
pub(crate) fn follow(
    coordinator: &Arc<dyn Coordinator>,
    prefix: impl Into<String>,
    delay: Duration,
) -> BoxStream<'static, News> {
    let (coordinator, prefix) = (Arc::clone(coordinator), prefix.into());
    let start = (None::<EventStream>, delay, BACKOFF_MIN);
    stream::unfold(start, move |(events, delay, backoff)| {
        let (coordinator, prefix) = (coordinator.clone(), prefix.clone());
        async move {
            tokio::time::sleep(delay).await;
            let failed = |error| {
                // A watch that fell behind is no trouble: the list that follows makes up for it.
                let next = (None, backoff, (backoff * 2).min(BACKOFF_MAX));
                Some((News::Failed(error), next))
            };
            let Some(mut events) = events else {
                return match coordinator.list(&prefix).await {
                    Ok(snapshot) => {
                        let events = coordinator.watch(&prefix, snapshot.revision);
                        Some((News::Listed(snapshot), (Some(events), Duration::ZERO, BACKOFF_MIN)))
                    }
                    Err(error) => failed(error),
                };
            };
            match events.next().await {
                Some(Ok(event)) => Some((News::Changed(event), (Some(events), Duration::ZERO, BACKOFF_MIN))),
                Some(Err(error)) => failed(error),
                None => failed(Error::Unreachable { cause: "the watch ended".to_owned() }),
            }
        }
    })
    .boxed()
}
