//! Which logs hold what is not in the table yet, and who answers for them.
//!
//! A log is listed before it acknowledges anything and until all of it is in the table. Its entry has no lease: a log
//! whose ingester has crashed stays listed, so that a reader knows that something is missing.
//!
//! Invariants:
//! - what was acknowledged lies in the table or in a listed log;
//! - an entry names the ingester that answers for the log now, at its address now: whoever takes a log over lists it
//!   anew, or brings it into the table and strikes it off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::coordinator::{Change, Coordinator, Event, Expect, Revision};
use crate::news::{self, News};
use crate::{Error, Result};

/// What comes before a log's name in its key.
const PREFIX: &str = "logs/";
/// Who answers for a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The ingester's name.
    pub ingester: String,
    /// Where it is reached.
    pub address: String,
}

/// The list as it is known. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logs {
    /// The listed logs by their names.
    pub listed: Arc<BTreeMap<String, Holder>>,
    /// The coordinator's revision when logs may last have been struck off: what they held is in the table, and nowhere
    /// else. Means the same to everybody; 0 before the list has been read.
    pub struck: u64,
}

/// Lists a log, or says that somebody else answers for it now.
///
/// # Errors
/// Those of the coordinator.
pub async fn list(coordinator: &dyn Coordinator, log: &str, holder: &Holder) -> Result<()> {
    let key = format!("{PREFIX}{log}");
    let value = serde_json::to_vec(holder)
        .map_err(|error| Error::Unreadable { key: key.clone(), cause: error.to_string() })?;
    coordinator.put(&key, Bytes::from(value), Expect::Anything, None).await.map(drop)
}

/// Strikes a log off the list, since all of it is in the table.
///
/// # Errors
/// Those of the coordinator.
pub async fn strike(coordinator: &dyn Coordinator, log: &str) -> Result<()> {
    coordinator.delete(&format!("{PREFIX}{log}"), Expect::Anything).await.map(drop)
}

/// The listed logs that none of the answers covers, with who should have answered.
pub fn unanswered<'a>(
    logs: &'a BTreeMap<String, Holder>,
    answered: &[&str],
) -> impl Iterator<Item = (&'a str, &'a Holder)> {
    let is_missing = |(log, _): &(&String, &Holder)| !answered.contains(&log.as_str());
    logs.iter().filter(is_missing).map(|(log, holder)| (log.as_str(), holder))
}

/// Keeps `logs` up to date until nobody listens any more. Failures are logged and tried again with back-off;
/// meanwhile the last known list stands.
pub async fn follow(coordinator: Arc<dyn Coordinator>, logs: watch::Sender<Logs>) {
    tokio::select! {
        () = logs.closed() => {}
        () = keep(&coordinator, &logs) => {}
    }
}

async fn keep(coordinator: &Arc<dyn Coordinator>, logs: &watch::Sender<Logs>) {
    let mut news = news::follow(coordinator, PREFIX, Duration::ZERO);
    let mut current = BTreeMap::new();
    while let Some(heard) = news.next().await {
        let taken = match heard {
            News::Listed(snapshot) => {
                let entries = snapshot.entries.iter().map(|entry| parse(&entry.key, &entry.value));
                // Nobody knows what came and went before this list.
                entries.collect::<Result<_>>().map(|listed| {
                    current = listed;
                    Some(snapshot.revision)
                })
            }
            News::Changed(event) => change(&mut current, &event),
            News::Failed(error) => Err(error),
        };
        match taken {
            Ok(struck) => tell(logs, &current, struck),
            Err(error) => {
                if matches!(error, Error::Unreadable { .. }) {
                    // What the list lacks of it would be missed for ever.
                    news = news::follow(coordinator, PREFIX, news::BACKOFF_MAX);
                }
                note(&error);
            }
        }
    }
}

/// Takes a change and says when it was, if it strikes a log off.
fn change(listed: &mut BTreeMap<String, Holder>, event: &Event) -> Result<Option<Revision>> {
    match &event.change {
        Change::Put { value, .. } => {
            let (log, holder) = parse(&event.key, value)?;
            listed.insert(log, holder);
            Ok(None)
        }
        Change::Deleted => {
            listed.remove(event.key.strip_prefix(PREFIX).unwrap_or_default());
            Ok(Some(event.revision))
        }
    }
}

fn tell(logs: &watch::Sender<Logs>, listed: &BTreeMap<String, Holder>, struck: Option<Revision>) {
    logs.send_if_modified(|told| {
        let is_news = *told.listed != *listed || struck.is_some();
        if is_news {
            told.listed = Arc::new(listed.clone());
            told.struck = struck.map_or(told.struck, |revision| revision.0);
        }
        is_news
    });
}

fn note(error: &Error) {
    match error {
        // A watch that fell behind is no trouble: the list that follows makes up for it.
        Error::Compacted { .. } => {}
        // The coordinator itself says when it is away, once for all that needs it.
        Error::Unreachable { .. } => debug!(%error, "list of logs may be out of date"),
        _ => warn!(%error, "list of logs may be out of date"),
    }
}

fn parse(key: &str, value: &[u8]) -> Result<(String, Holder)> {
    let unreadable = |cause: String| Error::Unreadable { key: key.to_owned(), cause };
    let log = key.strip_prefix(PREFIX).filter(|log| !log.is_empty());
    let log = log.ok_or_else(|| unreadable("want logs/<log>".to_owned()))?;
    let holder = serde_json::from_slice(value).map_err(|error| unreadable(error.to_string()))?;
    Ok((log.to_owned(), holder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;

    fn holder(number: u32) -> Holder {
        Holder { ingester: format!("ingester-{number}"), address: format!("10.0.0.{number}:9603") }
    }

    #[tokio::test]
    async fn a_log_is_listed_until_it_is_struck_off_whoever_answers_for_it() {
        let coordinator: Arc<dyn Coordinator> = Arc::new(InMemory::new());
        list(&*coordinator, "01A", &holder(1)).await.expect("listed");
        let (sender, mut logs) = watch::channel(Logs::default());
        let following = follow(coordinator.clone(), sender);
        let story = async {
            let seen = logs.wait_for(|logs| logs.listed.len() == 1).await.expect("followed").clone();
            assert_eq!((&seen.listed["01A"], seen.struck), (&holder(1), 1));
            list(&*coordinator, "01B", &holder(2)).await.expect("listed");
            // The first one's ingester is gone, and another has taken its log over.
            list(&*coordinator, "01A", &holder(2)).await.expect("listed");
            let seen = logs
                .wait_for(|logs| logs.listed.get("01A") == Some(&holder(2)))
                .await
                .expect("followed")
                .clone();
            let missing: Vec<_> = unanswered(&seen.listed, &["01B", "01C"]).collect();
            assert_eq!(missing, [("01A", &holder(2))]);
            strike(&*coordinator, "01A").await.expect("struck off");
            let seen = logs.wait_for(|logs| logs.listed.len() == 1).await.expect("followed").clone();
            assert_eq!((&seen.listed["01B"], seen.struck), (&holder(2), 4), "the revision of the strike");
        };
        tokio::select! {
            () = following => panic!("it was listened to"),
            () = story => {}
        }
        for log in ["01A", "01A", "01B"] {
            strike(&*coordinator, log).await.expect("struck off, or nothing to do");
        }
        assert!(coordinator.list(PREFIX).await.expect("read").entries.is_empty());
    }
}
