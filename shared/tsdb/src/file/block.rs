//! A block of a file's series rows without their samples: who they are, when, and where their times lie.
//!
//! Everything textual is a code in one list of strings of the block, so that a matcher looks at each distinct value
//! once, label names and values are read off without making a single label set, and a row takes some 60 bytes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::METRIC_NAME;
use model::{Labels, Matcher, Metadata, MetricType};

use super::arrays::ShapeError;
use super::cache::Weighed;
use super::footer::{BlockId, Footer};
use super::page::{DataPage, Dictionary, Text};
use super::prune::Query;

/// Rows that stand together in a row group and were read together.
#[derive(Debug)]
pub(crate) struct Block {
    /// The first row, within the row group.
    pub(crate) first_row: usize,
    strings: Strings,
    series: Vec<Series>,
    /// Codes of the names and values of all series' labels, the metric name not among them.
    pairs: Vec<(u32, u32)>,
    rows: Vec<Row>,
    metadata: Vec<Arc<Metadata>>,
}

#[derive(Debug, Clone, Copy)]
struct Series {
    metric: u32,
    /// Where its pairs end.
    pairs_end: u32,
}

/// One series in one window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Which of the block's series it is, if any.
    series: Option<u32>,
    metadata: u32,
    /// The earliest and the latest time of anything in it.
    min_time: i64,
    max_time: i64,
    /// The timeline that has its times, if it shares them.
    pub(crate) timeline: Option<u32>,
    /// Where they begin in the timeline.
    pub(crate) offset: u32,
    /// How many float samples it has.
    pub(crate) count: u32,
}

/// The rows of a block that match, in order.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// Their numbers, counted from the block's first row.
    pub(crate) rows: Vec<u32>,
    /// Their float samples.
    pub(crate) samples: usize,
}

impl Block {
    /// Says which rows are series that the query asks for and have something in its time.
    pub(crate) fn matching(&self, query: &Query<'_>) -> Matched {
        let accepted = self.accepted(query.matchers);
        let mut matched = Matched::default();
        for (number, row) in (0..).zip(&self.rows) {
            let is_in_time = row.min_time <= query.max_time && row.max_time >= query.min_time;
            if is_in_time && row.series.is_some_and(|s| accepted[s as usize]) {
                matched.rows.push(number);
                matched.samples += row.count as usize;
            }
        }
        matched
    }

    /// Says of each series whether all matchers accept it.
    fn accepted(&self, matchers: &[Matcher]) -> Vec<bool> {
        let mut accepted = vec![true; self.series.len()];
        for matcher in matchers {
            let mut verdicts: Vec<Option<bool>> = vec![None; self.strings.len()];
            let mut accepts = |code: u32| {
                let verdict = &mut verdicts[code as usize];
                *verdict.get_or_insert_with(|| matcher.matches(self.strings.get(code)))
            };
            if matcher.name() == METRIC_NAME {
                for (accepted, series) in accepted.iter_mut().zip(&self.series) {
                    *accepted = *accepted && accepts(series.metric);
                }
                continue;
            }
            let name = self.strings.code(matcher.name());
            let accepts_none = matcher.matches_empty();
            for (number, accepted) in accepted.iter_mut().enumerate().filter(|(_, a)| **a) {
                let pair = name.and_then(|n| self.pairs_of(number).iter().find(|p| p.0 == n));
                *accepted = pair.map_or(accepts_none, |p| accepts(p.1));
            }
        }
        accepted
    }

    fn pairs_of(&self, series: usize) -> &[(u32, u32)] {
        let start = series.checked_sub(1).map_or(0, |before| self.series[before].pairs_end);
        &self.pairs[start as usize..self.series[series].pairs_end as usize]
    }

    /// A row by its number in the block.
    pub(crate) fn row(&self, row: u32) -> &Row {
        &self.rows[row as usize]
    }

    /// Says whether two rows are of one series.
    pub(crate) fn is_same_series(&self, a: u32, b: u32) -> bool {
        self.rows[a as usize].series == self.rows[b as usize].series
    }

    /// The metadata of a row.
    pub(crate) fn metadata(&self, row: u32) -> &Arc<Metadata> {
        &self.metadata[self.rows[row as usize].metadata as usize]
    }

    /// The labels of a row.
    pub(crate) fn labels(&self, row: u32) -> Labels {
        let Some(series) = self.rows[row as usize].series else { return Labels::empty() };
        let pairs = self.pairs_of(series as usize);
        let metric = self.strings.get(self.series[series as usize].metric);
        let text = |p: &(u32, u32)| (self.strings.get(p.0), self.strings.get(p.1));
        // The map is written in name order; the metric name has to be put where it belongs.
        let at = pairs.partition_point(|p| self.strings.get(p.0) < METRIC_NAME);
        let (before, after) = pairs.split_at(at);
        let all = before.iter().map(text).chain([(METRIC_NAME, metric)]).chain(after.iter().map(text));
        Labels::from_sorted(all.clone()).unwrap_or_else(|| Labels::from_pairs(all))
    }

    /// Adds the names of the labels of these rows.
    pub(crate) fn add_names(&self, rows: &[u32], into: &mut BTreeSet<String>) {
        let mut codes = vec![false; self.strings.len()];
        let mut has_metric = false;
        for series in self.series_of(rows) {
            has_metric |= !self.strings.get(self.series[series].metric).is_empty();
            self.pairs_of(series)
                .iter()
                .filter(|p| !self.strings.get(p.1).is_empty())
                .for_each(|p| codes[p.0 as usize] = true);
        }
        if has_metric && !into.contains(METRIC_NAME) {
            into.insert(METRIC_NAME.to_owned());
        }
        self.add_codes(&codes, into);
    }

    /// Adds the values that these rows have of a label.
    pub(crate) fn add_values(&self, rows: &[u32], label: &str, into: &mut BTreeSet<String>) {
        let mut codes = vec![false; self.strings.len()];
        let name = self.strings.code(label);
        for series in self.series_of(rows) {
            if label == METRIC_NAME {
                codes[self.series[series].metric as usize] = true;
            } else if let Some(pair) = name.and_then(|n| self.pairs_of(series).iter().find(|p| p.0 == n)) {
                codes[pair.1 as usize] = true;
            }
        }
        self.add_codes(&codes, into);
    }

    /// The series of some rows; rows of one series stand together.
    fn series_of(&self, rows: &[u32]) -> impl Iterator<Item = usize> {
        let mut last = None;
        rows.iter().filter_map(move |row| {
            let series = self.rows[*row as usize].series;
            (std::mem::replace(&mut last, series) != series).then_some(series? as usize)
        })
    }

    fn add_codes(&self, codes: &[bool], into: &mut BTreeSet<String>) {
        let used = (0..).zip(codes).filter(|(_, is_used)| **is_used).map(|(code, _)| self.strings.get(code));
        for text in used.filter(|text| !text.is_empty()) {
            if !into.contains(text) {
                into.insert(text.to_owned());
            }
        }
    }
}

impl Weighed for Block {
    fn bytes(&self) -> usize {
        let metadata: usize = self.metadata.iter().map(|m| 64 + m.unit.len() + m.help.len()).sum();
        size_of::<Self>()
            + self.strings.heap_bytes()
            + self.series.capacity() * size_of::<Series>()
            + self.pairs.capacity() * size_of::<(u32, u32)>()
            + self.rows.capacity() * size_of::<Row>()
            + self.metadata.capacity() * size_of::<Arc<Metadata>>()
            + metadata
    }
}

/// The distinct strings of a block, one behind the other.
#[derive(Debug, Default)]
struct Strings {
    text: String,
    ends: Vec<u32>,
}

impl Strings {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, code: u32) -> &str {
        let code = code as usize;
        let start = code.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[code] as usize]
    }

    /// The code of a string; looks through all of them.
    fn code(&self, text: &str) -> Option<u32> {
        (0..).zip(&self.ends).map(|(code, _)| code).find(|code| self.get(*code) == text)
    }

    fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u32>()
    }
}

/// Gives equal strings equal codes.
#[derive(Debug, Default)]
struct Interner {
    strings: Strings,
    known: HashMap<Box<[u8]>, u32>,
}

impl Interner {
    fn code(&mut self, bytes: &[u8]) -> Result<u32, ShapeError> {
        if let Some(code) = self.known.get(bytes) {
            return Ok(*code);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8".to_owned())?;
        self.strings.text.push_str(text);
        let number = |n: usize| u32::try_from(n).map_err(|_| "too much text in a block".to_owned());
        let code = number(self.strings.len())?;
        self.strings.ends.push(number(self.strings.text.len())?);
        self.known.insert(bytes.into(), code);
        Ok(code)
    }
}

/// The pages that a block is made of, leaf by leaf.
#[derive(Debug)]
pub(crate) struct BlockPages {
    pub(crate) metric: LeafPages,
    pub(crate) label_names: LeafPages,
    pub(crate) label_values: LeafPages,
    pub(crate) kind: LeafPages,
    pub(crate) unit: LeafPages,
    pub(crate) help: LeafPages,
    pub(crate) min_time: LeafPages,
    pub(crate) max_time: LeafPages,
    pub(crate) timeline: LeafPages,
    pub(crate) offset: LeafPages,
    pub(crate) count: LeafPages,
}

/// The pages of one leaf that hold the rows of a block, and perhaps more.
#[derive(Debug)]
pub(crate) struct LeafPages {
    pub(crate) dictionary: Option<Arc<Dictionary>>,
    /// With the rows of each, within the row group.
    pub(crate) pages: Vec<(Range<usize>, DataPage)>,
}

impl Block {
    /// Decodes the rows of a block.
    pub(crate) fn new(footer: &Footer, id: BlockId, pages: BlockPages) -> Result<Self, ShapeError> {
        let wanted = footer.block_rows(id);
        let mut interner = Interner::default();
        let metrics = pages.metric.strings(&wanted, &mut interner)?;
        let names = pages.label_names.string_lists(&wanted, &mut interner)?;
        let values = pages.label_values.string_lists(&wanted, &mut interner)?;
        if names.ends != values.ends {
            return Err("labels have not as many values as names".to_owned());
        }
        let empty = interner.code(b"")?;
        let (kinds, units, helps) = (
            pages.kind.strings(&wanted, &mut interner)?,
            pages.unit.strings(&wanted, &mut interner)?,
            pages.help.strings(&wanted, &mut interner)?,
        );
        let (min_times, max_times) = (pages.min_time.numbers(&wanted)?, pages.max_time.numbers(&wanted)?);
        let (timelines, offsets, counts) =
            (pages.timeline.numbers(&wanted)?, pages.offset.numbers(&wanted)?, pages.count.numbers(&wanted)?);
        let strings = interner.strings;

        let mut block = Self {
            first_row: wanted.start,
            strings,
            series: Vec::new(),
            pairs: Vec::new(),
            rows: Vec::with_capacity(wanted.len()),
            metadata: Vec::new(),
        };
        let mut known = HashMap::new();
        for (i, metric) in metrics.into_iter().enumerate() {
            let texts = [kinds[i].unwrap_or(empty), units[i].unwrap_or(empty), helps[i].unwrap_or(empty)];
            let metadata = *known.entry(texts).or_insert_with(|| {
                let [kind, unit, help] = texts.map(|code| block.strings.get(code));
                block.metadata.push(Arc::new(Metadata {
                    kind: kind.parse::<MetricType>().unwrap_or_default(),
                    unit: unit.into(),
                    help: help.into(),
                }));
                block.metadata.len() - 1
            });
            let pairs = names.of(i).iter().zip(values.of(i));
            let pairs = pairs.map(|(n, v)| (n.unwrap_or(empty), v.unwrap_or(empty)));
            let series = metric.map(|metric| block.add_series(metric, pairs));
            block.rows.push(Row {
                series,
                metadata: u32::try_from(metadata).unwrap_or(u32::MAX),
                // A time that is not known may be any.
                min_time: min_times[i].unwrap_or(i64::MIN),
                max_time: max_times[i].unwrap_or(i64::MAX),
                timeline: timelines[i].map(size).transpose()?,
                offset: size(offsets[i].unwrap_or(0))?,
                count: size(counts[i].unwrap_or(0))?,
            });
        }
        block.series.shrink_to_fit();
        block.pairs.shrink_to_fit();
        Ok(block)
    }

    /// Adds a row's series, unless it is the one added last; returns its number.
    fn add_series(&mut self, metric: u32, pairs: impl Iterator<Item = (u32, u32)>) -> u32 {
        let start = self.pairs.len();
        self.pairs.extend(pairs);
        let last = self.series.len().checked_sub(1);
        let number = |n: usize| u32::try_from(n).expect("a block has few rows, and labels fit into memory");
        if let Some(last) = last
            && self.series[last].metric == metric
            && self.pairs_of(last) == &self.pairs[start..]
        {
            self.pairs.truncate(start);
            return number(last);
        }
        self.series.push(Series { metric, pairs_end: number(self.pairs.len()) });
        number(self.series.len() - 1)
    }
}

fn size(n: i64) -> Result<u32, ShapeError> {
    u32::try_from(n).map_err(|_| format!("a timeline, offset or count of {n}"))
}

/// Lists of codes, row by row.
struct CodeLists {
    codes: Vec<Option<u32>>,
    ends: Vec<usize>,
}

impl CodeLists {
    fn of(&self, row: usize) -> &[Option<u32>] {
        &self.codes[row.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[row]]
    }
}

/// The part of a page's rows that is wanted, counted from the page's first row.
fn wanted_of(rows: &Range<usize>, wanted: &Range<usize>) -> Range<usize> {
    let start = wanted.start.clamp(rows.start, rows.end);
    let end = wanted.end.clamp(start, rows.end);
    start - rows.start..end - rows.start
}

impl LeafPages {
    /// A plain column of numbers.
    pub(crate) fn numbers(self, wanted: &Range<usize>) -> Result<Vec<Option<i64>>, ShapeError> {
        let mut all = Vec::with_capacity(wanted.len());
        for (rows, page) in self.pages {
            check_rows(&rows, &page)?;
            let part = wanted_of(&rows, wanted);
            let defs = page.defs.clone();
            let numbers = page.into_numbers()?.to_vec();
            all.extend(spread(&defs, numbers).skip(part.start).take(part.len()));
        }
        if all.len() == wanted.len() { Ok(all) } else { Err("a column has fewer rows".to_owned()) }
    }

    /// A plain column of strings.
    fn strings(self, wanted: &Range<usize>, interner: &mut Interner) -> Result<Vec<Option<u32>>, ShapeError> {
        let mut known = self.known();
        let mut all = Vec::with_capacity(wanted.len());
        for (rows, page) in &self.pages {
            check_rows(rows, page)?;
            let part = wanted_of(rows, wanted);
            let codes = page.codes(self.dictionary.as_deref(), |text| known.code(text, interner))?;
            all.extend(spread(&page.defs, codes).skip(part.start).take(part.len()));
        }
        if all.len() == wanted.len() { Ok(all) } else { Err("a column has fewer rows".to_owned()) }
    }

    /// The keys or the values of a column of maps.
    fn string_lists(self, wanted: &Range<usize>, interner: &mut Interner) -> Result<CodeLists, ShapeError> {
        let mut known = self.known();
        let mut lists = CodeLists { codes: Vec::new(), ends: Vec::with_capacity(wanted.len()) };
        for (rows, page) in &self.pages {
            let codes = page.codes(self.dictionary.as_deref(), |text| known.code(text, interner))?;
            let part = wanted_of(rows, wanted);
            // A key is never null, a value might be: both have an entry from this level on.
            let entry_level = 2;
            let mut codes = codes.into_iter();
            let (mut row, mut rows_seen) = (0, 0);
            for (rep, def) in page.reps.iter().zip(&page.defs) {
                if *rep == 0 {
                    row = rows_seen;
                    rows_seen += 1;
                    if part.contains(&row) {
                        lists.ends.push(lists.codes.len());
                    }
                }
                let code = if *def == page.top { codes.next() } else { None };
                if *def >= entry_level && part.contains(&row) {
                    lists.codes.push(code);
                    if let Some(end) = lists.ends.last_mut() {
                        *end = lists.codes.len();
                    }
                }
            }
            if rows_seen != rows.len() {
                return Err("a page has another number of rows".to_owned());
            }
        }
        if lists.ends.len() == wanted.len() { Ok(lists) } else { Err("a column has fewer rows".to_owned()) }
    }

    /// Says of each row whether its list has an element.
    pub(crate) fn has_elements(&self, wanted: &Range<usize>) -> Result<Vec<bool>, ShapeError> {
        let mut all = Vec::with_capacity(wanted.len());
        for (rows, page) in &self.pages {
            let mut filled: Vec<bool> = Vec::with_capacity(rows.len());
            for (rep, def) in page.reps.iter().zip(&page.defs) {
                if *rep == 0 {
                    filled.push(false);
                }
                // Above the level of a list that is there and empty.
                if let Some(last) = filled.last_mut() {
                    *last |= *def >= 2;
                }
            }
            if filled.len() != rows.len() {
                return Err("a page has another number of rows".to_owned());
            }
            all.extend_from_slice(&filled[wanted_of(rows, wanted)]);
        }
        if all.len() == wanted.len() { Ok(all) } else { Err("a column has fewer rows".to_owned()) }
    }

    fn known(&self) -> Known {
        Known(vec![None; self.dictionary.as_ref().map_or(0, |d| d.len())])
    }
}

/// The codes of a block for those of a dictionary, as far as they have been met.
struct Known(Vec<Option<u32>>);

impl Known {
    fn code(&mut self, text: Text<'_>, interner: &mut Interner) -> Result<u32, ShapeError> {
        let place = text.of_dictionary.and_then(|code| self.0.get_mut(code as usize));
        match place {
            Some(Some(code)) => Ok(*code),
            Some(place) => Ok(*place.insert(interner.code(text.bytes)?)),
            None => interner.code(text.bytes),
        }
    }
}

fn check_rows(rows: &Range<usize>, page: &DataPage) -> Result<(), ShapeError> {
    let is_sound = page.values == rows.len() && page.defs.len() == rows.len();
    if is_sound { Ok(()) } else { Err("a page has another number of rows".to_owned()) }
}

/// Puts values where a plain column's levels say that there is one.
fn spread<T>(defs: &[u8], values: Vec<T>) -> impl Iterator<Item = Option<T>> {
    let mut values = values.into_iter();
    defs.iter().map(move |def| if *def > 0 { values.next() } else { None })
}
