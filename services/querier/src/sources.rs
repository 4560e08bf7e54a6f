//! Where series come from: every ingester's head, and the table.

use std::path::PathBuf;
use std::sync::Arc;

use coordination::Role;
use model::Clock;
use rpc::Channel;
use rpc::pb::ingester::ingester_client::IngesterClient;
use tokio::sync::OnceCell;
use tonic::Status;
use tsdb::table::Table;

use crate::error::{Error, Result};

/// Reaches heads and table.
#[derive(Debug)]
pub(crate) struct Sources {
    peers: service_runtime::Peers,
    path: PathBuf,
    clock: Clock,
    table: OnceCell<Arc<Table>>,
}

/// A part that took no part in an answer: its name and why.
pub(crate) type Missing = (String, String);

impl Sources {
    pub(crate) fn new(peers: service_runtime::Peers, path: PathBuf, clock: Clock) -> Self {
        // The roster is wanted from now on, not only when the first query comes.
        drop(peers.members(Role::Ingester));
        Self { peers, path, clock, table: OnceCell::new() }
    }

    /// Every ingester by name.
    pub(crate) fn ingesters(&self) -> Result<Vec<(String, IngesterClient<Channel>)>> {
        let members = self.peers.members(Role::Ingester).borrow().members.clone();
        if members.is_empty() {
            return Err(Error::NoIngester);
        }
        let reach = |m: &coordination::Member| {
            let channel = self.peers.channel(&m.address);
            let channel = channel.map_err(|e| Error::peer(&m.name, &Status::unavailable(e.to_string())))?;
            let client = IngesterClient::new(Channel::new(channel));
            Ok((m.name.clone(), client.max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)))
        };
        members.iter().map(reach).collect()
    }

    /// The table, opened at the first use.
    pub(crate) async fn table(&self) -> Result<&Arc<Table>> {
        let open = || async { Ok(Table::open_in(&self.path, self.clock.clone()).await?) };
        self.table.get_or_try_init(open).await
    }
}

/// Splits answers into those that came and those that did not; without leave for partial answers the first failure
/// is the answer.
pub(crate) fn allow_missing<T>(
    answers: Vec<(String, Result<T>)>,
    is_partial_allowed: bool,
) -> Result<(Vec<T>, Vec<Missing>)> {
    let (mut came, mut missing) = (Vec::new(), Vec::new());
    for (source, answer) in answers {
        match answer {
            Ok(answer) => came.push(answer),
            Err(error) if is_partial_allowed && error.kind().is_retryable() => {
                missing.push((source, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((came, missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Vec<(String, Result<u32>)> {
        let away = Status::unavailable("connection refused");
        vec![("a".to_owned(), Ok(1)), ("b".to_owned(), Err(Error::peer("b", &away))), ("c".to_owned(), Ok(3))]
    }

    #[test]
    fn an_answer_is_partial_only_where_that_was_asked_for() {
        assert_eq!(
            allow_missing(answers(), false).expect_err("b is away").to_string(),
            "b: connection refused"
        );
        let (came, missing) = allow_missing(answers(), true).expect("partial");
        assert_eq!(came, [1, 3]);
        assert_eq!(missing, [("b".to_owned(), "b: connection refused".to_owned())]);
    }

    #[test]
    fn a_refusal_is_never_passed_over() {
        let refused =
            vec![("a".to_owned(), Err::<u32, _>(Error::peer("a", &Status::invalid_argument("no"))))];
        assert!(allow_missing(refused, true).is_err());
    }
}
