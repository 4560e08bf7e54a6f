//! The engine over several sources that each hold some of the series: aggregations are computed in parts, as ingesters
//! compute them.

use std::collections::BTreeMap;

use model::Labels;
use promql_engine::partial::{Cut, Partial, shared};
use promql_engine::{
    Column, Control, Engine, Error, Selection, SeriesSamples, SeriesSet, SeriesSource, SourceError,
};

/// Several sources as one. A series may be in more than one of them, with samples of other times.
#[derive(Debug)]
pub struct Apart<S> {
    engine: Engine,
    sources: Vec<S>,
}

type Row = (Labels, SeriesSamples);

impl<S: SeriesSource> Apart<S> {
    /// Joins sources; aggregations are computed with an engine of the same options as the query's.
    pub fn new(engine: Engine, sources: Vec<S>) -> Self {
        Self { engine, sources }
    }

    /// Computes a part from each list of rows; takes the rows that are computed.
    fn partials(&self, cut: &Cut, lists: &mut [Vec<Row>]) -> Result<Vec<Partial>, Error> {
        let identities = |rows: &Vec<Row>| rows.iter().map(|(labels, _)| cut.identity(labels)).collect();
        let identities: Vec<Vec<u64>> = lists.iter().map(identities).collect();
        let mut partials = Vec::new();
        let mut rest = Vec::new();
        for (rows, shared) in lists.iter().zip(shared(&identities)) {
            let (raw, own): (Vec<_>, Vec<_>) =
                (0..).zip(rows.iter().cloned()).partition(|(i, _)| shared.binary_search(i).is_ok());
            let rows = |numbered: Vec<(u32, Row)>| numbered.into_iter().map(|(_, row)| row).collect();
            partials.push(self.engine.partial(cut, &Rows(rows(own)), &Control::default())?);
            rest.push(rows(raw));
        }
        lists.clone_from_slice(&rest);
        Ok(partials)
    }
}

impl<S: SeriesSource> SeriesSource for Apart<S> {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let whole = Selection { cut: None, ..selection.clone() };
        let read = |source: &S| rows(source.select(&whole)?);
        let mut lists = self.sources.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        // What fails in a part fails as a whole as well, and then says what is to be said.
        let partials =
            selection.cut.as_ref().and_then(|cut| self.partials(cut, &mut lists).ok()).unwrap_or_default();
        let mut by_labels: BTreeMap<Labels, Vec<SeriesSamples>> = BTreeMap::new();
        for (labels, samples) in lists.into_iter().flatten() {
            by_labels.entry(labels).or_default().push(samples);
        }
        let (labels, samples): (Vec<Labels>, Vec<SeriesSamples>) =
            by_labels.into_iter().map(|(labels, parts)| (labels, merge(parts))).unzip();
        Ok(Box::new(Set { labels, samples: samples.into_iter(), partials }))
    }
}

/// Series of which everything is wanted.
struct Rows(Vec<Row>);

impl SeriesSource for Rows {
    fn select(&self, _: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let (labels, samples): (Vec<_>, Vec<_>) = self.0.iter().cloned().unzip();
        Ok(Box::new(Set { labels, samples: samples.into_iter(), partials: Vec::new() }))
    }
}

struct Set {
    labels: Vec<Labels>,
    samples: std::vec::IntoIter<SeriesSamples>,
    partials: Vec<Partial>,
}

impl SeriesSet for Set {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        Ok(&self.labels)
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        Ok(self.samples.next())
    }

    fn partials(&mut self) -> Result<Vec<Partial>, SourceError> {
        Ok(std::mem::take(&mut self.partials))
    }
}

fn rows(mut set: Box<dyn SeriesSet>) -> Result<Vec<Row>, SourceError> {
    let labels = set.labels()?.to_vec();
    let mut rows = Vec::with_capacity(labels.len());
    for labels in labels {
        rows.push((labels, set.next()?.unwrap_or_default()));
    }
    Ok(rows)
}

/// Puts the samples of one series together.
fn merge(mut parts: Vec<SeriesSamples>) -> SeriesSamples {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let (mut floats, mut histograms) = (Vec::new(), Vec::new());
    for part in parts {
        floats.push(part.floats);
        histograms.push(part.histograms);
    }
    SeriesSamples { floats: merge_columns(floats), histograms: merge_columns(histograms) }
}

fn merge_columns<V>(columns: Vec<Column<V>>) -> Column<V> {
    let mut by_time: BTreeMap<i64, (i64, V)> = BTreeMap::new();
    for column in columns {
        let starts = column.start_timestamps.unwrap_or_else(|| vec![0; column.values.len()]);
        for ((time, start), value) in column.timestamps.iter().zip(starts).zip(column.values) {
            by_time.insert(*time, (start, value));
        }
    }
    let starts: Vec<(i64, i64)> =
        by_time.iter().map(|(time, (start, _))| (*time, *start)).filter(|(_, start)| *start != 0).collect();
    let (times, values): (Vec<i64>, Vec<V>) =
        by_time.into_iter().map(|(time, (_, value))| (time, value)).unzip();
    Column::new(times.into(), values).with_starts(&starts)
}
