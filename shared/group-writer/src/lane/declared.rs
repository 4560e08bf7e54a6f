//! What one append stream knows, and requests that declare what it does not.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use model::{Exemplar, Histogram, Labels, Metadata};
use rpc::pb::ingester as pb;
use rpc::symbols::SymbolWriter;
use rpc::values::LastValues;

use crate::driver::{Part, Piece};
use crate::group::{Append, Presence, Shared};

/// After this many requests, groups that nobody holds any more are forgotten.
const SWEEP_EVERY: u64 = 1_024;

/// What one stream knows.
#[derive(Default)]
pub(super) struct Declared {
    groups: HashMap<u64, StreamGroup>,
    groups_ever: u32,
    requests: u64,
    symbols: SymbolWriter,
}

struct StreamGroup {
    number: u32,
    members: u32,
    metadata_changes: usize,
    is_displaced: bool,
    values: LastValues,
    group: Weak<Shared>,
}

impl Declared {
    pub(super) fn encode(&mut self, part: &Part) -> pb::AppendRequest {
        self.requests += 1;
        let mut request =
            pb::AppendRequest { id: self.requests, is_atomic: part.is_atomic, ..Default::default() };
        // Changes of a request hold for all of its samples: every group is complete before the first sample.
        for Piece { append, is_displaced } in &part.pieces {
            self.declare(append, *is_displaced, &mut request);
        }
        for Piece { append, .. } in &part.pieces {
            let group = self.groups.get_mut(&append.group.0.id).expect("declared above");
            request.append.push(group.append(append));
        }
        if self.requests.is_multiple_of(SWEEP_EVERY) {
            self.groups.retain(|_, group| {
                let is_live = group.group.strong_count() > 0;
                if !is_live {
                    request.forget.push(group.number);
                }
                is_live
            });
        }
        request.symbols = self.symbols.take();
        request
    }

    /// Declares what the append's group lacks on this stream.
    fn declare(&mut self, append: &Append, is_displaced: bool, request: &mut pb::AppendRequest) {
        let Self { groups, groups_ever, symbols, .. } = self;
        let (shared, wanted) = (&append.group.0, append.members);
        let members = shared.members.lock();
        let group = groups.entry(shared.id).or_insert_with(|| {
            *groups_ever += 1;
            request.declare.push(pb::GroupDeclaration {
                group: *groups_ever,
                tenant: shared.identity.tenant.as_str().to_owned(),
                key: Some(symbols.labels(&shared.identity.key)),
                sub_group: shared.identity.sub_group,
                is_displaced,
                epoch: shared.identity.epoch,
                members: members.list[..wanted as usize].iter().map(|m| member(m, symbols)).collect(),
            });
            let metadata_changes = members.metadata_changes.len();
            StreamGroup {
                number: *groups_ever,
                members: wanted,
                metadata_changes,
                is_displaced,
                values: LastValues::default(),
                group: Arc::downgrade(shared),
            }
        });
        let declared = group.members;
        let add = members.list.get(declared as usize..wanted as usize).unwrap_or_default();
        // Members that are yet to be declared will be declared with the metadata they have then.
        let changed = members.metadata_changes[group.metadata_changes..].iter().filter(|m| **m < declared);
        let change = pb::GroupChange {
            group: group.number,
            add: add.iter().map(|m| member(m, symbols)).collect(),
            metadata: changed.map(|m| member_metadata(*m, &members.list[*m as usize].1, symbols)).collect(),
            is_displaced: (group.is_displaced != is_displaced).then_some(is_displaced),
            ..Default::default()
        };
        group.is_displaced = is_displaced;
        group.members = declared.max(wanted);
        group.metadata_changes = members.metadata_changes.len();
        if !change.add.is_empty() || !change.metadata.is_empty() || change.is_displaced.is_some() {
            request.change.push(change);
        }
    }
}

fn member((labels, metadata): &(Labels, Arc<Metadata>), symbols: &mut SymbolWriter) -> pb::Member {
    pb::Member {
        labels: Some(symbols.labels(labels)),
        r#type: rpc::pb::model::MetricType::from(metadata.kind).into(),
        unit_ref: symbols.optional(&metadata.unit),
        help_ref: symbols.optional(&metadata.help),
    }
}

fn member_metadata(member: u32, metadata: &Metadata, symbols: &mut SymbolWriter) -> pb::MemberMetadata {
    pb::MemberMetadata {
        member,
        r#type: rpc::pb::model::MetricType::from(metadata.kind).into(),
        unit_ref: symbols.optional(&metadata.unit),
        help_ref: symbols.optional(&metadata.help),
    }
}

impl StreamGroup {
    /// Writes an append to the group, which may have more members on the stream than the append speaks of.
    fn append(&mut self, append: &Append) -> pb::GroupAppend {
        use pb::group_append::Presence as PbPresence;
        let (members, declared) = (append.members, self.members);
        let presence = match &append.presence {
            Presence::All if members == declared => None,
            Presence::All => Some(PbPresence::Absent(absent_from(Vec::new(), members, declared).into())),
            Presence::Absent(bits) => {
                Some(PbPresence::Absent(absent_from(bits.clone(), members, declared).into()))
            }
            Presence::Present(list) => Some(PbPresence::Present(pb::MemberList { members: list.clone() })),
        };
        let histogram = |(member, h): &(u32, Arc<Histogram>)| pb::MemberHistogram {
            member: *member,
            histogram: Some((&**h).into()),
        };
        let exemplar =
            |(member, e): &(u32, Exemplar)| pb::MemberExemplar { member: *member, exemplar: Some(e.into()) };
        pb::GroupAppend {
            group: self.number,
            timestamp: append.timestamp.millis(),
            presence,
            values: self.values.encode(&append.values).into(),
            histograms: append.histograms.iter().map(histogram).collect(),
            starts: append
                .starts
                .iter()
                .map(|(m, t)| pb::MemberStart { member: *m, start: t.millis() })
                .collect(),
            exemplars: append.exemplars.iter().map(exemplar).collect(),
        }
    }
}

/// Sets the bits of members that were declared after the append was handed in.
pub(super) fn absent_from(mut bits: Vec<u8>, members: u32, declared: u32) -> Vec<u8> {
    if declared > members {
        bits.resize(bits.len().max((declared as usize).div_ceil(8)), 0);
        for member in members..declared {
            bits[(member / 8) as usize] |= 1 << (member % 8);
        }
    }
    bits
}
