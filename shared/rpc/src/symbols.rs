//! Symbol tables: each string of a message is sent once, label sets refer to it by index.

use std::collections::HashMap;
use std::sync::Arc;

use model::Labels;

use crate::error::{Error, Result};
use crate::pb;

/// Builds the symbol table of a message that is being written.
#[derive(Debug, Default)]
pub struct SymbolWriter {
    indexes: HashMap<Arc<str>, u32, rapidhash::fast::RandomState>,
    symbols: Vec<String>,
}

impl SymbolWriter {
    /// Returns the index of a string, adding it when it is new.
    pub fn index(&mut self, text: &str) -> u32 {
        if let Some(index) = self.indexes.get(text) {
            return *index;
        }
        let index = u32::try_from(self.symbols.len()).expect("a message holds less than 64 MiB of symbols");
        self.indexes.insert(Arc::from(text), index);
        self.symbols.push(text.to_owned());
        index
    }

    /// Returns the index plus one, or 0 for an empty text.
    pub fn optional(&mut self, text: &str) -> u32 {
        if text.is_empty() { 0 } else { self.index(text) + 1 }
    }

    /// Refers to a label set.
    pub fn labels(&mut self, labels: &Labels) -> pb::model::LabelRefs {
        let mut refs = Vec::with_capacity(16);
        for (name, value) in labels {
            refs.push(self.index(name));
            refs.push(self.index(value));
        }
        pb::model::LabelRefs { refs }
    }

    /// Takes the table, leaving an empty one for the next message.
    pub fn take(&mut self) -> Vec<String> {
        self.indexes.clear();
        std::mem::take(&mut self.symbols)
    }
}

/// Reads label sets of a message by its symbol table.
#[derive(Debug, Clone, Copy)]
pub struct SymbolReader<'a>(pub &'a [String]);

impl<'a> SymbolReader<'a> {
    /// Returns a symbol.
    ///
    /// # Errors
    /// When the index is out of range.
    pub fn text(&self, index: u32) -> Result<&'a str> {
        usize::try_from(index).ok().and_then(|i| self.0.get(i)).map(String::as_str).ok_or_else(|| {
            Error::invalid("symbols", format!("no symbol {index}, the table has {}", self.0.len()))
        })
    }

    /// Returns the text of an index plus one; 0 is empty.
    ///
    /// # Errors
    /// When the index is out of range.
    pub fn optional(&self, index_plus_one: u32) -> Result<&'a str> {
        index_plus_one.checked_sub(1).map_or(Ok(""), |index| self.text(index))
    }

    /// Resolves a label set.
    ///
    /// # Errors
    /// When an index is out of range, or the labels are not sorted and unique.
    pub fn labels(&self, refs: &pb::model::LabelRefs) -> Result<Labels> {
        let (pairs, rest) = refs.refs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Error::invalid("labels", "a name without a value"));
        }
        let mut resolved = Vec::with_capacity(pairs.len());
        for [name, value] in pairs {
            resolved.push((self.text(*name)?, self.text(*value)?));
        }
        Labels::from_sorted(resolved).ok_or_else(|| Error::invalid("labels", "not sorted by name and unique"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_share_their_strings() {
        let a = Labels::from_pairs([("job", "node"), ("instance", "a")]);
        let b = Labels::from_pairs([("job", "node"), ("instance", "b")]);
        let mut writer = SymbolWriter::default();
        let (ra, rb) = (writer.labels(&a), writer.labels(&b));
        let symbols = writer.take();
        assert_eq!(symbols, ["instance", "a", "job", "node", "b"]);
        let reader = SymbolReader(&symbols);
        assert_eq!(reader.labels(&ra), Ok(a));
        assert_eq!(reader.labels(&rb), Ok(b));
        assert!(writer.take().is_empty());
    }

    #[test]
    fn broken_references_are_refused() {
        let symbols = ["b".to_owned(), "1".to_owned(), "a".to_owned()];
        let reader = SymbolReader(&symbols);
        let labels = |refs: &[u32]| reader.labels(&pb::model::LabelRefs { refs: refs.to_vec() });
        assert!(labels(&[0]).expect_err("odd").to_string().contains("a name without a value"));
        assert!(labels(&[0, 9]).expect_err("range").to_string().contains("no symbol 9"));
        assert!(labels(&[0, 1, 2, 1]).expect_err("order").to_string().contains("not sorted"));
        assert!(labels(&[0, 1, 0, 1]).is_err(), "twice");
        assert_eq!(reader.optional(0), Ok(""));
        assert_eq!(reader.optional(3), Ok("a"));
    }
}
