//! Real scrape bodies against a naive reader that only splits lines at spaces.

use std::fs;
use std::io::Read as _;

use exposition::{Entry, Parser};

use crate::shared_folder;

#[test]
fn samples_and_values_equal_those_of_a_naive_reader() {
    let Some(folder) = shared_folder("real scrapes", "data/node-exporter") else {
        return;
    };
    let index = fs::read_to_string(folder.join("index.tsv")).unwrap();
    let mut files = 0;
    // Each target's first scrapes hold all there is to parse; the rest repeat them with other values.
    for row in index.lines().skip(1).filter(|r| r.split('\t').nth(2).is_some_and(|n| n.len() == 1)) {
        let columns: Vec<&str> = row.split('\t').collect();
        let (file, expected_count) = (columns[0], columns[4].parse::<usize>().unwrap());
        let mut body = String::new();
        let packed = fs::File::open(folder.join(file)).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut body).unwrap();

        let mut naive = body.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        let mut count = 0;
        for entry in Parser::text(body.as_bytes()) {
            let Entry::Sample(sample) = entry.unwrap_or_else(|e| panic!("{file}: {e}")) else {
                continue;
            };
            count += 1;
            let (series, value) = naive.next().unwrap().rsplit_once(' ').unwrap();
            assert_eq!(sample.series.text(), series.trim_end());
            let value: f64 = value.parse().unwrap();
            assert!(sample.value == value || (sample.value.is_nan() && value.is_nan()), "{series}");
            let labels = sample.series.to_labels().unwrap();
            assert_eq!(labels.metric_name(), series.split('{').next().unwrap());
            let is_empty_value = |l: &str| l.ends_with("=\"\"");
            let naive_labels = series.split_once('{').map_or(0, |(_, rest)| {
                rest.trim_end_matches('}')
                    .split("\",")
                    .filter(|l| !l.is_empty() && !is_empty_value(l) && !l.ends_with("=\""))
                    .count()
            });
            assert_eq!(labels.len() - 1, naive_labels, "{series}");
        }
        assert_eq!(naive.next(), None);
        assert_eq!(count, expected_count, "{file}");
        files += 1;
    }
    assert!(files >= 20, "{files} files");
}
