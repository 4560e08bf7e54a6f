//! Numbers that order assignments.

use std::fmt;

use bytes::Bytes;
use model::Timestamp;

use crate::coordinator::{Coordinator, Expect, Swap};
use crate::{Error, Result};

/// How often an update is tried anew when others change the key meanwhile.
const ATTEMPTS_MAX: u32 = 16;

/// The age of an assignment: of two, the greater is the newer. Zero is older than any that was handed out.
///
/// Appends carry it and the log's group declarations repeat it, so that a staleness marker or a rule's sample of
/// somebody who no longer owns the group can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that follows `last` when handed out at `now`.
    ///
    /// It is at least the time in milliseconds, so that epochs go on growing when the coordinator has lost its
    /// memory: logs remember older ones.
    #[must_use]
    pub fn following(last: Self, now: Timestamp) -> Self {
        let floor = u64::try_from(now.millis()).unwrap_or(0);
        Self(last.0.saturating_add(1).max(floor))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hands out an epoch greater than all that were handed out under `name` before.
///
/// # Errors
/// Those of the coordinator; [`Error::Contended`] when others keep asking; [`Error::Unreadable`].
pub async fn next(coordinator: &dyn Coordinator, name: &str, now: Timestamp) -> Result<Epoch> {
    let key = format!("epochs/{name}");
    for _ in 0..ATTEMPTS_MAX {
        let found = coordinator.get(&key).await?;
        let (last, expect) = match &found {
            None => (Epoch::default(), Expect::Absent),
            Some(entry) => (parse(&key, &entry.value)?, Expect::Unchanged(entry.revision)),
        };
        let epoch = Epoch::following(last, now);
        if let Swap::Done(_) = coordinator.put(&key, Bytes::from(epoch.to_string()), expect, None).await? {
            return Ok(epoch);
        }
    }
    Err(Error::Contended { key, attempts: ATTEMPTS_MAX })
}

fn parse(key: &str, value: &[u8]) -> Result<Epoch> {
    let unreadable = |cause: String| Error::Unreadable { key: key.to_owned(), cause };
    let text = std::str::from_utf8(value).map_err(|error| unreadable(error.to_string()))?;
    text.parse().map(Epoch).map_err(|error| unreadable(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;

    #[tokio::test]
    async fn epochs_grow_with_the_clock_and_without_it() {
        let store = InMemory::new();
        let at = |ms| Timestamp(ms);
        assert_eq!(next(&store, "targets", at(1_000)).await, Ok(Epoch(1_000)));
        assert_eq!(next(&store, "targets", at(1_000)).await, Ok(Epoch(1_001)), "the clock stands");
        assert_eq!(next(&store, "targets", at(500)).await, Ok(Epoch(1_002)), "the clock went back");
        assert_eq!(next(&store, "targets", at(5_000)).await, Ok(Epoch(5_000)));
        assert_eq!(next(&store, "rules", at(-1)).await, Ok(Epoch(1)), "names are apart");
        assert_eq!(next(&InMemory::new(), "targets", at(6_000)).await, Ok(Epoch(6_000)), "memory lost");
    }

    #[tokio::test]
    async fn an_unreadable_epoch_is_named() {
        let store = InMemory::new();
        store.put("epochs/x", Bytes::from("ten"), Expect::Anything, None).await.expect("written");
        let error = next(&store, "x", Timestamp(0)).await.expect_err("unreadable");
        assert_eq!(error.kind(), fault::Kind::Corrupt);
        assert!(
            error.to_string().starts_with("value of key \"epochs/x\" cannot be read: \"ten\""),
            "{error}"
        );
    }
}
