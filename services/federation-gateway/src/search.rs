//! How well names fit what somebody types: the filters and scores of Prometheus's `web/api/v1/search_filters.go`.
//!
//! A score is above 0 and at most 1; what begins with a term has 1. Of several terms the best one counts.

/// How close a name has to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// The characters of the term stand in the name in their order.
    #[default]
    Subsequence,
    /// The name contains the term or, with a threshold, is similar by the measure of Jaro and Winkler.
    JaroWinkler,
}

/// What is searched for.
#[derive(Debug)]
pub(crate) struct Search {
    terms: Vec<Vec<char>>,
    algorithm: Algorithm,
    /// The least score of what is only similar, 0 to 1.
    threshold: f64,
    is_case_sensitive: bool,
}

impl Search {
    /// Takes terms, of which empty ones say nothing; without any, everything is found.
    pub(crate) fn new<'a>(
        terms: impl Iterator<Item = &'a str>,
        algorithm: Algorithm,
        threshold: f64,
        is_case_sensitive: bool,
    ) -> Self {
        let folded = |term: &str| match is_case_sensitive {
            true => term.chars().collect(),
            false => term.to_lowercase().chars().collect(),
        };
        let terms = terms.filter(|term| !term.is_empty()).map(folded).collect();
        Self { terms, algorithm, threshold, is_case_sensitive }
    }

    /// The score of a name that is found.
    pub(crate) fn score(&self, name: &str) -> Option<f64> {
        if self.terms.is_empty() {
            return Some(1.0);
        }
        let name: Vec<char> = match self.is_case_sensitive {
            true => name.chars().collect(),
            false => name.to_lowercase().chars().collect(),
        };
        self.terms.iter().filter_map(|term| self.score_of(term, &name)).reduce(f64::max)
    }

    fn score_of(&self, term: &[char], name: &[char]) -> Option<f64> {
        if name.starts_with(term) {
            return Some(1.0);
        }
        match self.algorithm {
            Algorithm::Subsequence => {
                subsequence(term, name).filter(|score| *score > 0.0 && *score >= self.threshold)
            }
            Algorithm::JaroWinkler if name.windows(term.len()).any(|part| part == term) => Some(0.9),
            Algorithm::JaroWinkler if self.threshold > 0.0 => {
                Some(jaro_winkler(term, name)).filter(|score| *score >= self.threshold)
            }
            Algorithm::JaroWinkler => None,
        }
    }
}

/// The best of all places to begin at, as a share of what the term itself would have. Where the term ends nowhere from
/// one place, it does not from a later one.
fn subsequence(term: &[char], name: &[char]) -> Option<f64> {
    let last = name.len().checked_sub(term.len())?;
    let starts = (0..=last).filter(|start| name[*start] == term[0]);
    let best = starts.map_while(|start| in_runs(term, name, start)).reduce(f64::max)?;
    Some(best / (term.len() * term.len()) as f64)
}

/// The squares of the lengths of runs, less the share of the name that is between and before them, and half of what is
/// behind. A run is taken where it comes first.
fn in_runs(term: &[char], name: &[char], start: usize) -> Option<f64> {
    let share = |count: usize| count as f64 / name.len() as f64;
    let (mut at, mut matched, mut score) = (start, 0, -share(start));
    while matched < term.len() {
        let gap = name[at..].iter().position(|c| *c == term[matched])?;
        at += gap;
        let run = name[at..].iter().zip(&term[matched..]).take_while(|(a, b)| a == b).count();
        score += (run * run) as f64 - share(gap);
        at += run;
        matched += run;
    }
    Some(score - share(name.len() - at) / 2.0)
}

/// The similarity of two texts, neither of them empty, after Winkler (1990): a common prefix of up to four characters
/// counts a tenth each.
fn jaro_winkler(a: &[char], b: &[char]) -> f64 {
    let (short, long) = if a.len() > b.len() { (b, a) } else { (a, b) };
    let distance = (long.len() / 2).saturating_sub(1);
    let mut is_taken = vec![false; long.len()];
    let mut found = Vec::with_capacity(short.len());
    for (i, c) in short.iter().enumerate() {
        let near = i.saturating_sub(distance)..(i + distance + 1).min(long.len());
        if let Some(j) = near.into_iter().find(|j| !is_taken[*j] && long[*j] == *c) {
            is_taken[j] = true;
            found.push(*c);
        }
    }
    if found.is_empty() {
        return 0.0;
    }
    let in_order = long.iter().zip(&is_taken).filter(|(_, taken)| **taken).map(|(c, _)| c);
    let transposed = found.iter().zip(in_order).filter(|(a, b)| a != b).count() as f64 / 2.0;
    let matches = found.len() as f64;
    let jaro =
        (matches / short.len() as f64 + matches / long.len() as f64 + (matches - transposed) / matches) / 3.0;
    let prefix = short.iter().zip(long).take(4).take_while(|(a, b)| a == b).count();
    jaro + prefix as f64 * 0.1 * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(term: &str, algorithm: Algorithm, threshold: f64, name: &str) -> Option<f64> {
        Search::new([term].into_iter(), algorithm, threshold, true).score(name)
    }

    #[test]
    fn a_subsequence_has_its_runs_less_its_gaps() {
        let of = |term, name| score(term, Algorithm::Subsequence, 0.0, name);
        assert_eq!(of("http", "http_requests_total"), Some(1.0));
        assert_eq!(of("up", "up"), Some(1.0));
        // One run of 3; 5 of 8 characters before it.
        assert_eq!(of("abc", "xxxxxabc"), Some((9.0 - 5.0 / 8.0) / 9.0));
        // Runs of 1 and 2; of 6 characters one is before, one between, one behind: 1 + 4 - 1/6 - 1/6 - 1/12.
        let apart = of("abc", "xaybcz").expect("found");
        assert!((apart - (5.0 - 2.5 / 6.0) / 9.0).abs() < 1e-15, "{apart}");
        // The later of two places is the better one.
        assert_eq!(of("ab", "xa_ab"), Some((4.0 - 3.0 / 5.0) / 4.0));
        for (term, name) in [("abc", "acb"), ("abc", "ab"), ("é", "e")] {
            assert_eq!(of(term, name), None, "{term} in {name}");
        }
        assert_eq!(of("é", "xé"), Some(0.5));
        assert_eq!(score("abc", Algorithm::Subsequence, 0.95, "xxxxxabc"), None);
    }

    #[test]
    fn similar_names_are_found_with_a_threshold_only() {
        let of = |term, threshold, name| score(term, Algorithm::JaroWinkler, threshold, name);
        assert_eq!((of("up", 0.0, "upx"), of("up", 0.0, "xup")), (Some(1.0), Some(0.9)));
        assert_eq!(of("martha", 0.0, "marhta"), None);
        // The examples of Winkler's paper, to three decimals.
        for (a, b, expected) in
            [("martha", "marhta", 0.961), ("dwayne", "duane", 0.840), ("dixon", "dicksonx", 0.813)]
        {
            let got = of(a, 0.5, b).expect("similar");
            assert!((got - expected).abs() < 0.0005, "{a} {b}: {got}");
        }
        assert_eq!((of("abc", 0.5, "xyz"), of("dixon", 0.9, "dicksonx")), (None, None));
    }

    #[test]
    fn the_best_of_several_terms_counts() {
        let of = |terms: &[&str], is_case_sensitive, name| {
            Search::new(terms.iter().copied(), Algorithm::Subsequence, 0.0, is_case_sensitive).score(name)
        };
        assert_eq!(of(&["b", "up"], true, "up"), Some(1.0));
        assert_eq!(of(&["", ""], true, "anything"), Some(1.0));
        assert_eq!((of(&["UP"], true, "up"), of(&["UP"], false, "Up")), (None, Some(1.0)));
    }
}
