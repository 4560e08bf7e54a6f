//! Label sets from exposed pairs.

use std::borrow::Cow;

use model::Labels;

use crate::error::{Error, Result};

/// A name and its value, borrowed where nothing had to be unescaped.
pub(crate) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Builds a label set from pairs in any order. Sorting keeps the cost in bounds for a line of very many labels.
///
/// # Errors
/// When a name is there twice, be its value empty or not.
pub(crate) fn build<'a>(pairs: impl IntoIterator<Item = Pair<'a>>) -> Result<Labels> {
    let mut pairs: Vec<Pair<'a>> = pairs.into_iter().collect();
    pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(Error::DuplicateLabel(twice[0].0.clone().into_owned()));
    }
    let sorted = pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    Ok(Labels::from_sorted(sorted).expect("sorted and unique"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Result<String> {
        build(pairs.iter().map(|(n, v)| (Cow::Borrowed(*n), Cow::Borrowed(*v)))).map(|l| l.to_string())
    }

    #[test]
    fn pairs_are_sorted_and_must_be_unique() {
        assert_eq!(of(&[("b", "1"), ("a", "2"), ("c", "")]).as_deref(), Ok(r#"{a="2", b="1"}"#));
        assert_eq!(of(&[("b", ""), ("a", "2"), ("b", "")]), Err(Error::DuplicateLabel("b".into())));
        assert_eq!(of(&[]).as_deref(), Ok("{}"));
    }

    #[test]
    fn very_many_labels_are_no_burden() {
        let names: Vec<String> = (0..200_000).rev().map(|i| format!("l{i:06}")).collect();
        let labels = build(names.iter().map(|n| (Cow::Borrowed(n.as_str()), Cow::Borrowed("v"))));
        assert_eq!(labels.map(|l| l.len()), Ok(200_000));
    }
}
