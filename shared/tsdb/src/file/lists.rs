//! Pages of lists as they are kept in memory: a row's values are found without decoding those of other rows.

use std::ops::Range;

use model::stale_nan;

use super::arrays::ShapeError;
use super::cache::Weighed;
use super::columns::{SCALE_MAX, from_decimal};
use super::page::{DataPage, Deltas, Doubles};
use crate::series::Timeline;

/// How a row's float samples are stored, and whether it has more than those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As `ints / 10^scale`.
    Decimal(u8),
    /// As doubles.
    Double,
    /// The row has native histograms, start times or exemplars and is decoded whole.
    Rare,
}

/// The forms of a block's rows.
#[derive(Debug)]
pub(crate) struct Forms(pub(crate) Vec<Form>);

impl Forms {
    /// Joins what the rows' columns say.
    pub(crate) fn new(scales: &[Option<i64>], is_rare: &[bool]) -> Result<Self, ShapeError> {
        let form = |(scale, is_rare): (&Option<i64>, &bool)| match scale {
            _ if *is_rare => Ok(Form::Rare),
            None => Ok(Form::Double),
            Some(scale) => match u8::try_from(*scale) {
                Ok(scale) if usize::from(scale) <= SCALE_MAX => Ok(Form::Decimal(scale)),
                _ => Err(format!("scale {scale}")),
            },
        };
        scales.iter().zip(is_rare).map(form).collect::<Result<_, _>>().map(Self)
    }
}

impl Weighed for Forms {
    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Form>()
    }
}

/// A page of a list of numbers.
#[derive(Debug)]
pub(crate) struct ListPage {
    first_row: usize,
    /// Where each row's elements end.
    ends: Vec<u32>,
    /// Which elements are null, ascending.
    nulls: Vec<u32>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Ints(Deltas),
    Doubles(Doubles),
}

/// Definition level of an element that is there; one below, it is null; below that, there is no element.
const ELEMENT_LEVEL: u8 = 3;

impl ListPage {
    /// Finds the rows of a page of integers.
    pub(crate) fn of_ints(rows: Range<usize>, page: DataPage) -> Result<Self, ShapeError> {
        let (ends, nulls) = shape(&rows, &page)?;
        Ok(Self { first_row: rows.start, ends, nulls, values: Values::Ints(page.into_numbers()?) })
    }

    /// Finds the rows of a page of doubles.
    pub(crate) fn of_doubles(rows: Range<usize>, page: DataPage) -> Result<Self, ShapeError> {
        let (ends, nulls) = shape(&rows, &page)?;
        Ok(Self { first_row: rows.start, ends, nulls, values: Values::Doubles(page.into_doubles()?) })
    }

    /// Where a row's elements are; the row is counted within the row group.
    fn elements(&self, row: usize) -> Result<Range<usize>, ShapeError> {
        let i = row.checked_sub(self.first_row).filter(|i| *i < self.ends.len());
        let i = i.ok_or_else(|| format!("row {row} is not in its page"))?;
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        Ok(start as usize..self.ends[i] as usize)
    }

    /// Reads some samples of a row that has `count` of them, a null being the staleness marker.
    pub(crate) fn read_samples(
        &self,
        row: usize,
        form: Form,
        count: usize,
        kept: Range<usize>,
        into: &mut Vec<f64>,
    ) -> Result<(), ShapeError> {
        let elements = self.elements(row)?;
        if elements.len() != count {
            return Err(format!("{} values for {count} samples", elements.len()));
        }
        let mut next = elements.start + kept.start;
        let end = elements.start + kept.end;
        let first_null = self.nulls.partition_point(|n| (*n as usize) < next);
        // How many nulls stand before what is read next.
        let mut nulls = first_null;
        loop {
            let null = self.nulls.get(nulls).map(|n| *n as usize).filter(|n| *n < end);
            let stop = null.unwrap_or(end);
            self.read(next - nulls..stop - nulls, form, into)?;
            if null.is_none() {
                return Ok(());
            }
            into.push(stale_nan());
            next = stop + 1;
            nulls += 1;
        }
    }

    fn read(&self, range: Range<usize>, form: Form, into: &mut Vec<f64>) -> Result<(), ShapeError> {
        into.reserve(range.len());
        match (&self.values, form) {
            (Values::Ints(ints), Form::Decimal(0)) => {
                #[expect(clippy::cast_precision_loss, reason = "integers beyond 2^53 are never written")]
                ints.each(range, |i| into.push(i as f64));
            }
            (Values::Ints(ints), Form::Decimal(scale)) => {
                ints.each(range, |i| into.push(from_decimal(Some(i), usize::from(scale))));
            }
            (Values::Doubles(doubles), Form::Double) => doubles.each(range, |x| into.push(x)),
            _ => return Err("a page of another type".to_owned()),
        }
        Ok(())
    }

    /// Reads the times of a row.
    pub(crate) fn times(&self, row: usize) -> Result<Vec<i64>, ShapeError> {
        let elements = self.elements(row)?;
        let Values::Ints(ints) = &self.values else { return Err("a page of another type".to_owned()) };
        if !self.nulls.is_empty() {
            return Err("a time is null".to_owned());
        }
        let mut times = Vec::with_capacity(elements.len());
        ints.each(elements, |t| times.push(t));
        if times.is_sorted_by(|a, b| a < b) { Ok(times) } else { Err("times do not ascend".to_owned()) }
    }
}

impl Weighed for ListPage {
    fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Ints(ints) => ints.heap_bytes(),
            Values::Doubles(doubles) => doubles.heap_bytes(),
        };
        size_of::<Self>() + values + (self.ends.capacity() + self.nulls.capacity()) * size_of::<u32>()
    }
}

/// Finds where the rows of a page end and which of its elements are null.
fn shape(rows: &Range<usize>, page: &DataPage) -> Result<(Vec<u32>, Vec<u32>), ShapeError> {
    let mut ends = Vec::with_capacity(rows.len());
    let (mut nulls, mut elements) = (Vec::new(), 0_u32);
    for (i, (rep, def)) in page.reps.iter().zip(&page.defs).enumerate() {
        if *rep == 0 && i > 0 {
            ends.push(elements);
        }
        if *def == ELEMENT_LEVEL - 1 {
            nulls.push(elements);
        }
        elements += u32::from(*def >= ELEMENT_LEVEL - 1);
    }
    ends.push(elements);
    let is_sound = page.reps.first() == Some(&0) && ends.len() == rows.len();
    if is_sound { Ok((ends, nulls)) } else { Err("a page has another number of rows".to_owned()) }
}

/// The timelines of a page of timeline rows.
#[derive(Debug)]
pub(crate) struct TimelinePage {
    first_row: usize,
    timelines: Vec<Timeline>,
}

impl TimelinePage {
    /// Reads all of them.
    pub(crate) fn new(rows: Range<usize>, page: DataPage) -> Result<Self, ShapeError> {
        let first_row = rows.start;
        let page = ListPage::of_ints(rows.clone(), page)?;
        let timelines = rows.map(|row| page.times(row).map(Timeline::from)).collect::<Result<_, _>>()?;
        Ok(Self { first_row, timelines })
    }

    /// The timeline of a row, which is counted within the row group.
    pub(crate) fn timeline(&self, row: usize) -> Result<&Timeline, ShapeError> {
        let timeline = row.checked_sub(self.first_row).and_then(|i| self.timelines.get(i));
        timeline.ok_or_else(|| format!("row {row} is not in its page"))
    }
}

impl Weighed for TimelinePage {
    fn bytes(&self) -> usize {
        let times: usize = self.timelines.iter().map(|t| t.len() * size_of::<i64>()).sum();
        times + self.timelines.capacity() * (size_of::<Timeline>() + 2 * size_of::<usize>())
    }
}
