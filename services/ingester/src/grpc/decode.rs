//! Append requests to what storage takes.

use std::sync::Arc;

use model::{Exemplar, Histogram, Metadata, Timestamp};
use rpc::convert;
use rpc::pb::ingester::{self as pb, group_append};
use rpc::symbols::SymbolReader;
use tonic::Status;
use tsdb::{Appended, GroupAppend, GroupChange, GroupDeclaration, MemberDeclaration, Presence};

use crate::error::Result as DomainResult;
use crate::session::Session;

/// Values of one request: no more than a message has room for when they are plain.
const VALUES_MAX: usize = rpc::MESSAGE_BYTES_MAX / 8;

/// Applies declarations and changes and hands the samples in; the future waits until they are durable.
pub(super) fn append(
    session: &mut Session,
    request: pb::AppendRequest,
) -> Result<(u64, impl Future<Output = DomainResult<Appended>> + Send + use<>), Status> {
    let symbols = SymbolReader(&request.symbols);
    for message in &request.declare {
        session.declare(message.group, declaration(message, symbols)?)?;
    }
    for message in &request.change {
        session.change(message.group, change(message, symbols)?)?;
    }
    let mut appends = Vec::with_capacity(request.append.len());
    let mut values_max = VALUES_MAX;
    for message in request.append {
        let append = group_append(session, message, values_max)?;
        values_max -= append.values.len();
        appends.push(append);
    }
    let appended = session.append(appends, request.is_atomic);
    for number in request.forget {
        session.forget(number)?;
    }
    Ok((request.id, appended))
}

fn declaration(
    message: &pb::GroupDeclaration,
    symbols: SymbolReader<'_>,
) -> Result<GroupDeclaration, rpc::Error> {
    let key = message.key.as_ref().ok_or(rpc::Error::Missing("declare.key"))?;
    Ok(GroupDeclaration {
        tenant: convert::tenant(&message.tenant)?,
        key: symbols.labels(key)?,
        sub_group: message.sub_group,
        epoch: message.epoch,
        displaced: message.is_displaced,
        members: message.members.iter().map(|m| member(m, symbols)).collect::<Result<_, _>>()?,
    })
}

fn member(message: &pb::Member, symbols: SymbolReader<'_>) -> Result<MemberDeclaration, rpc::Error> {
    let labels = symbols.labels(message.labels.as_ref().ok_or(rpc::Error::Missing("member.labels"))?)?;
    if labels.is_empty() {
        return Err(rpc::Error::Missing("member.labels"));
    }
    let metadata = metadata(message.r#type(), message.unit_ref, message.help_ref, symbols)?;
    Ok(MemberDeclaration { labels, metadata })
}

fn metadata(
    kind: rpc::pb::model::MetricType,
    unit: u32,
    help: u32,
    symbols: SymbolReader<'_>,
) -> Result<Arc<Metadata>, rpc::Error> {
    let (unit, help) = (symbols.optional(unit)?, symbols.optional(help)?);
    Ok(Arc::new(Metadata { kind: kind.into(), unit: Arc::from(unit), help: Arc::from(help) }))
}

fn change(message: &pb::GroupChange, symbols: SymbolReader<'_>) -> Result<GroupChange, rpc::Error> {
    let of_member =
        |m: &pb::MemberMetadata| Ok((m.member, metadata(m.r#type(), m.unit_ref, m.help_ref, symbols)?));
    Ok(GroupChange {
        add: message.add.iter().map(|m| member(m, symbols)).collect::<Result<_, _>>()?,
        remove: message.remove.clone(),
        metadata: message.metadata.iter().map(of_member).collect::<Result<_, rpc::Error>>()?,
        epoch: message.epoch,
        displaced: message.is_displaced,
    })
}

fn group_append(
    session: &mut Session,
    message: pb::GroupAppend,
    values_max: usize,
) -> Result<GroupAppend, Status> {
    let histogram = |m: pb::MemberHistogram| {
        let histogram = m.histogram.as_ref().ok_or(rpc::Error::Missing("histograms.histogram"))?;
        Ok((m.member, Arc::new(Histogram::from(histogram))))
    };
    let exemplar = |m: pb::MemberExemplar| {
        let exemplar = m.exemplar.as_ref().ok_or(rpc::Error::Missing("exemplars.exemplar"))?;
        Ok((m.member, Exemplar::try_from(exemplar)?))
    };
    let (group, last_values) = session.group(message.group)?;
    Ok(GroupAppend {
        group,
        timestamp: Timestamp(message.timestamp),
        absent: match message.presence {
            None => Presence::All,
            Some(group_append::Presence::Absent(bits)) => Presence::Absent(bits.into()),
            Some(group_append::Presence::Present(list)) => Presence::Present(list.members),
        },
        values: last_values.decode(&message.values, values_max)?.to_vec(),
        histograms: message.histograms.into_iter().map(histogram).collect::<Result<_, rpc::Error>>()?,
        start_timestamps: message.starts.into_iter().map(|m| (m.member, m.start)).collect(),
        exemplars: message.exemplars.into_iter().map(exemplar).collect::<Result<_, rpc::Error>>()?,
    })
}
