//! An ingester for tests that is called in process and keeps what it was sent.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use coordination::Member;
use coordination::membership::Roster;
use futures::{Stream, StreamExt as _};
use group_writer::{Driver, GroupWriter, Options};
use model::is_stale;
use parking_lot::Mutex;
use rpc::pb::ingester as pb;
use rpc::pb::ingester::ingester_server::{Ingester, IngesterServer};
use rpc::symbols::SymbolReader;
use rpc::values::LastValues;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

/// One sample as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) at: i64,
    /// `{...}` with the metric name.
    pub(crate) labels: String,
    /// The value, or `stale`.
    pub(crate) value: String,
    pub(crate) epoch: u64,
    /// Number of the append among all.
    pub(crate) append: usize,
}

/// Keeps samples in the order of arrival. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct FakeIngester(Arc<watch::Sender<Vec<Stored>>>);

type Groups = HashMap<u32, (u64, Vec<String>, LastValues)>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl FakeIngester {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }

    /// A writer to this ingester, and what keeps its member list alive.
    pub(crate) fn writer(&self) -> (GroupWriter, Driver, watch::Sender<Roster>) {
        let members = [Member::new(0, "ingester", "ingester")].into_iter().collect();
        let (sender, receiver) = watch::channel(Roster { members, ..Roster::default() });
        let server = IngesterServer::new(self.clone());
        let connect = move |_: &str| Ok(rpc::Channel::new(server.clone()));
        let (writer, driver) = GroupWriter::new(Options::default(), receiver, Arc::new(connect));
        (writer, driver, sender)
    }

    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.0.borrow().clone()
    }

    /// Waits until what is stored fulfils a condition, and returns it.
    pub(crate) async fn wait_for(&self, condition: impl Fn(&[Stored]) -> bool) -> Vec<Stored> {
        let mut stored = self.0.subscribe();
        let stored = stored.wait_for(|stored| condition(stored)).await;
        stored.expect("self holds the sender").clone()
    }

    /// Takes a request; returns how many samples it has.
    fn take(&self, groups: &Mutex<Groups>, request: &pb::AppendRequest) -> u64 {
        let mut groups = groups.lock();
        let mut taken = 0;
        let symbols = SymbolReader(&request.symbols);
        let labels = |member: &pb::Member| {
            symbols.labels(member.labels.as_ref().expect("labels")).expect("valid labels").to_string()
        };
        for declared in &request.declare {
            let members = declared.members.iter().map(labels).collect();
            groups.insert(declared.group, (declared.epoch, members, LastValues::default()));
        }
        for change in &request.change {
            groups.get_mut(&change.group).expect("declared").1.extend(change.add.iter().map(labels));
        }
        self.0.send_modify(|stored| {
            for append in &request.append {
                let number = stored.last().map_or(0, |last| last.append + 1);
                let (epoch, members, values) = groups.get_mut(&append.group).expect("declared");
                let values = values.decode(&append.values, 1_000_000).expect("values");
                let is_present = |i: usize| match &append.presence {
                    None => true,
                    Some(pb::group_append::Presence::Absent(bits)) => {
                        bits.get(i / 8).is_none_or(|byte| byte >> (i % 8) & 1 == 0)
                    }
                    Some(pb::group_append::Presence::Present(list)) => list.members.contains(&(i as u32)),
                };
                let present: Vec<usize> = (0..members.len()).filter(|i| is_present(*i)).collect();
                assert_eq!(present.len(), values.len(), "a value for each present member");
                taken += values.len() as u64;
                stored.extend(present.into_iter().zip(values).map(|(i, value)| Stored {
                    at: append.timestamp,
                    labels: members[i].clone(),
                    value: if is_stale(*value) { "stale".to_owned() } else { value.to_string() },
                    epoch: *epoch,
                    append: number,
                }));
            }
        });
        taken
    }
}

#[tonic::async_trait]
impl Ingester for FakeIngester {
    type AppendStream = Answers<pb::AppendResponse>;
    type SelectStream = Answers<pb::SelectResponse>;
    type SelectManyStream = Answers<pb::SelectResponse>;
    type AggregateStream = Answers<pb::AggregateResponse>;
    type LastSamplesStream = Answers<pb::LastSamplesResponse>;
    type SeriesStream = Answers<pb::SeriesResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (fake, groups) = (self.clone(), Mutex::default());
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            let stored = fake.take(&groups, &request);
            Ok(pb::AppendResponse { id: request.id, stored, ..Default::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn select(&self, _: Request<pb::SelectRequest>) -> Result<Response<Self::SelectStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn select_many(
        &self,
        _: Request<pb::SelectManyRequest>,
    ) -> Result<Response<Self::SelectManyStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn aggregate(
        &self,
        _: Request<Streaming<pb::AggregateRequest>>,
    ) -> Result<Response<Self::AggregateStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn last_samples(
        &self,
        _: Request<pb::LastSamplesRequest>,
    ) -> Result<Response<Self::LastSamplesStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn label_names(
        &self,
        _: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn label_values(
        &self,
        _: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn series(&self, _: Request<pb::SeriesRequest>) -> Result<Response<Self::SeriesStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn exemplars(
        &self,
        _: Request<pb::ExemplarsRequest>,
    ) -> Result<Response<pb::ExemplarsResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn flush(&self, _: Request<pb::FlushRequest>) -> Result<Response<pb::FlushResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn compact(&self, _: Request<pb::CompactRequest>) -> Result<Response<pb::CompactResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }

    async fn statistics(
        &self,
        _: Request<pb::StatisticsRequest>,
    ) -> Result<Response<pb::StatisticsResponse>, Status> {
        Err(Status::unimplemented("not used here"))
    }
}
