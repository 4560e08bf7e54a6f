//! Selections of the head: one, or several that are needed at one time.

use model::{Matcher, Tenant};
use tsdb::table::SelectLimits;
use tsdb::{Error, HeadSelection, HeadState, Result, Storage};

/// The series and samples that are asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) tenant: Tenant,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) limits: SelectLimits,
}

impl Wanted {
    pub(crate) fn select(&self, storage: &Storage) -> Result<HeadSelection> {
        storage.select(&self.tenant, &self.matchers, self.min_time, self.max_time, self.limits)
    }
}

/// What one of several selections came to; the state alone where it would have been too large.
pub(crate) type Selected = std::result::Result<HeadSelection, HeadState>;

/// Reads several selections, which together have at most so many samples.
pub(crate) fn select_many(
    storage: &Storage,
    wanted: Vec<Wanted>,
    samples_max: usize,
) -> Result<Vec<Selected>> {
    let mut left = samples_max;
    let select = |mut wanted: Wanted| {
        wanted.limits.samples = wanted.limits.samples.min(left);
        match wanted.select(storage) {
            Ok(selection) => {
                left -= selection.rows.iter().map(|row| row.samples.sample_count()).sum::<usize>();
                Ok(Ok(selection))
            }
            Err(Error::TooMany { .. }) => Ok(Err(storage.state())),
            Err(error) => Err(error),
        }
    };
    wanted.into_iter().map(select).collect()
}
