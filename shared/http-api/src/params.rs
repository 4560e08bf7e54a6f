//! Parameters: from the query string and, in a POST, the form body.

use std::borrow::Cow;
use std::time::Duration;

use model::Timestamp;
use model::number::Quoted;
use percent_encoding::percent_decode;

use crate::error::{ApiError, ErrorType};

/// Most parameters of one request.
const PARAMS_MAX: usize = 10_000;
/// Most points of one series in a range query.
const POINTS_MAX: i64 = 11_000;

/// A request's parameters, in order; names may repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    pairs: Vec<(String, String)>,
    /// What is wrong with the first pair that was left out.
    fault: Option<ApiError>,
}

impl Params {
    /// Adds the pairs of an `application/x-www-form-urlencoded` text. As in Go, what a form body says stands before
    /// what the query string says: add the body first. A pair with a broken escape or a semicolon is left out, as most
    /// endpoints of Prometheus have it; [`Params::checked`] tells.
    ///
    /// # Errors
    /// When the text is not UTF-8, or there are too many pairs.
    pub fn add_encoded(&mut self, text: &[u8]) -> Result<(), ApiError> {
        for pair in text.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
            if self.pairs.len() == PARAMS_MAX {
                return Err(form_error(format!("more than {PARAMS_MAX} parameters")));
            }
            if let Err(fault) = check_pair(pair) {
                self.fault.get_or_insert(fault);
                continue;
            }
            let (name, value) = match pair.iter().position(|b| *b == b'=') {
                Some(i) => (&pair[..i], &pair[i + 1..]),
                None => (pair, &b""[..]),
            };
            self.pairs.push((decode(name)?, decode(value)?));
        }
        Ok(())
    }

    /// Returns the parameters where none was left out.
    ///
    /// # Errors
    /// `error parsing form values: ...`
    pub fn checked(&self) -> Result<&Self, ApiError> {
        self.fault.clone().map_or(Ok(self), Err)
    }

    /// Returns the first value of a name, or the empty string.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// Returns every value of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Returns a time, or the default when the parameter is absent or empty.
    ///
    /// # Errors
    /// `invalid parameter "<name>": invalid time value for '<name>': cannot parse ...`
    pub fn time_or(&self, name: &str, default: Timestamp) -> Result<Timestamp, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_time(text)
                .map_err(|e| ApiError::parameter(name, format!("invalid time value for '{name}': {e}"))),
        }
    }

    /// Returns a duration in milliseconds, or `None` when the parameter is absent or empty.
    ///
    /// # Errors
    /// `invalid parameter "<name>": cannot parse ...`
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration_ms(text).map(Some).map_err(|e| ApiError::parameter(name, e)),
        }
    }

    /// Returns a count of metadata: absent and negative ones are no limit.
    ///
    /// # Errors
    /// `<name> must be a number`
    pub fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => match text.parse::<i64>() {
                Ok(count) => Ok(usize::try_from(count).ok()),
                Err(_) => Err(ApiError::new(ErrorType::BadData, format!("{name} must be a number"))),
            },
        }
    }

    /// Returns a limit; 0 means none.
    ///
    /// # Errors
    /// `invalid parameter "<name>": ...`
    pub fn limit(&self, name: &str) -> Result<u64, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(0);
        }
        match text.parse::<i64>() {
            Ok(limit) => {
                u64::try_from(limit).map_err(|_| ApiError::parameter(name, "limit must be non-negative"))
            }
            Err(e) => {
                let is_range = matches!(
                    e.kind(),
                    std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
                );
                let cause = if is_range { "value out of range" } else { "invalid syntax" };
                Err(ApiError::parameter(name, format!("strconv.Atoi: parsing {}: {cause}", Quoted(text))))
            }
        }
    }

    /// Returns the times of a range query: start, end and step in milliseconds.
    ///
    /// # Errors
    /// In Prometheus's words for a wrong, reversed or too fine range.
    pub fn range(&self) -> Result<(Timestamp, Timestamp, i64), ApiError> {
        let required = |name| parse_time(self.get(name)).map_err(|e| ApiError::parameter(name, e));
        let (start, end) = (required("start")?, required("end")?);
        if end < start {
            return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
        }
        let step = parse_duration_ms(self.get("step")).map_err(|e| ApiError::parameter("step", e))?;
        if step <= 0 {
            let cause =
                "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(ApiError::parameter("step", cause));
        }
        // For safety, limit the number of returned points per timeseries.
        if end.since_ms(start) / step > POINTS_MAX {
            return Err(ApiError::new(
                ErrorType::BadData,
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
            ));
        }
        Ok((start, end, step))
    }
}

fn form_error(cause: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorType::BadData, format!("error parsing form values: {cause}"))
}

fn decode(text: &[u8]) -> Result<String, ApiError> {
    let spaced: Cow<'_, [u8]> = if text.contains(&b'+') {
        text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect::<Vec<u8>>().into()
    } else {
        text.into()
    };
    let decoded = percent_decode(&spaced).decode_utf8().map_err(|_| form_error("invalid UTF-8"))?;
    Ok(decoded.into_owned())
}

fn check_pair(pair: &[u8]) -> Result<(), ApiError> {
    if pair.contains(&b';') {
        return Err(form_error("invalid semicolon separator in query"));
    }
    for (i, _) in pair.iter().enumerate().filter(|(_, b)| **b == b'%') {
        let escape = &pair[i..pair.len().min(i + 3)];
        if escape.len() < 3 || !escape[1..].iter().all(u8::is_ascii_hexdigit) {
            let shown = String::from_utf8_lossy(escape);
            return Err(form_error(format!("invalid URL escape {}", Quoted(&shown))));
        }
    }
    Ok(())
}

/// Parses float Unix seconds or RFC 3339.
///
/// # Errors
/// `cannot parse "x" to a valid timestamp`
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let error = || format!("cannot parse {} to a valid timestamp", Quoted(text));
    if let Some(seconds) = model::number::parse_float(text) {
        let (whole, fraction) = (seconds.trunc(), seconds.fract());
        let ms = whole * 1000.0 + (fraction * 1000.0).round();
        return in_range(ms).map(Timestamp).ok_or_else(error);
    }
    // The times that the server itself prints for "unbounded".
    match text {
        "-292273086-05-16T16:47:06Z" => return Ok(Timestamp::MIN),
        "+292277025-08-18T07:12:54.999999999Z" | "292277025-08-18T07:12:54.999999999Z" => {
            return Ok(Timestamp::MAX);
        }
        _ => {}
    }
    // Go wants a `T` and an offset or a `Z`; jiff is more lenient about what separates date and time.
    let is_go = text.as_bytes().get(10) == Some(&b'T') && !text.ends_with('z');
    let instant: jiff::Timestamp = text.parse().map_err(|_| error())?;
    if is_go { Ok(Timestamp(instant.as_millisecond())) } else { Err(error()) }
}

/// Parses float seconds or a Prometheus duration into milliseconds.
///
/// # Errors
/// `cannot parse "x" to a valid duration`
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    if let Some(seconds) = model::number::parse_float(text) {
        if (seconds * 1e9).abs() > 9.223_372_036_854_776e18 {
            return Err(format!("cannot parse {} to a valid duration. It overflows int64", Quoted(text)));
        }
        return in_range((seconds * 1000.0).trunc())
            .ok_or_else(|| format!("cannot parse {} to a valid duration", Quoted(text)));
    }
    model::time::parse_duration(text)
        .ok()
        .as_ref()
        .map(Duration::as_millis)
        .and_then(|ms| i64::try_from(ms).ok())
        .ok_or_else(|| format!("cannot parse {} to a valid duration", Quoted(text)))
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn in_range(ms: f64) -> Option<i64> {
    (ms.abs() < 9.2e18).then_some(ms as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        let mut params = Params::default();
        params.add_encoded(text.as_bytes()).expect("valid");
        params
    }

    #[test]
    fn forms_decode_as_in_go() {
        let p = params("query=up%7Bjob%3D%22a+b%22%7D&match[]=a&match%5B%5D=b&empty=&flag");
        assert_eq!(p.get("query"), r#"up{job="a b"}"#);
        assert_eq!(p.all("match[]").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((p.get("empty"), p.get("flag"), p.get("none")), ("", "", ""));
        assert!(p.checked().is_ok());
        for (bad, cause) in [
            ("a=%zz&b=1", r#"invalid URL escape "%zz""#),
            ("b=1&a=%2", r#"invalid URL escape "%2""#),
            ("a=1;c&b=1", "invalid semicolon separator in query"),
        ] {
            let p = params(bad);
            assert_eq!((p.get("a"), p.get("b")), ("", "1"), "{bad}");
            let error = p.checked().expect_err("broken");
            assert_eq!(error.message, format!("error parsing form values: {cause}"));
        }
        assert!(Params::default().add_encoded(b"a=%ff").is_err());
        let many = "a&".repeat(PARAMS_MAX + 1);
        assert!(Params::default().add_encoded(many.as_bytes()).is_err());
    }

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        for (text, ms) in [
            ("0", 0),
            ("1435781451.781", 1_435_781_451_781),
            ("1.0006", 1_001),
            ("-1.5", -1_500),
            ("1e3", 1_000_000),
            ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
            ("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555),
            ("-292273086-05-16T16:47:06Z", i64::MIN),
            ("+292277025-08-18T07:12:54.999999999Z", i64::MAX),
        ] {
            assert_eq!(parse_time(text), Ok(Timestamp(ms)), "{text}");
        }
        for bad in
            ["", "foo", "30s", "2015-06-03", "2015-06-03 13:21:58Z", "2015-06-03T13:21:58z", "NaN", "1e300"]
        {
            assert_eq!(parse_time(bad), Err(format!("cannot parse \"{bad}\" to a valid timestamp")));
        }
    }

    #[test]
    fn durations_are_seconds_or_prometheus_durations() {
        for (text, ms) in [("1", 1_000), ("0.5", 500), ("5m", 300_000), ("1h30m", 5_400_000), ("-1", -1_000)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for bad in ["", "foo", "5 m", "NaN", "-1m"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
        assert!(parse_duration_ms("1e30").expect_err("too long").ends_with("It overflows int64"));
    }

    #[test]
    fn ranges_are_checked_in_prometheus_words() {
        let range = |text: &str| params(text).range().map_err(|e| e.message);
        assert_eq!(range("start=0&end=10&step=1"), Ok((Timestamp(0), Timestamp(10_000), 1_000)));
        for (text, message) in [
            ("end=1&step=1", r#"invalid parameter "start": cannot parse "" to a valid timestamp"#),
            (
                "start=2&end=1&step=1",
                r#"invalid parameter "end": end timestamp must not be before start time"#,
            ),
            (
                "start=0&end=1&step=0",
                r#"invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
            ),
            ("start=0&end=1", r#"invalid parameter "step": cannot parse "" to a valid duration"#),
            (
                "start=0&end=11001&step=1",
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
            ),
        ] {
            assert_eq!(range(text), Err(message.to_owned()));
        }
        assert!(range("start=0&end=11000&step=1").is_ok());
    }

    #[test]
    fn optional_times_say_once_more_which_they_are() {
        assert_eq!(params("").time_or("time", Timestamp(5)), Ok(Timestamp(5)));
        assert_eq!(
            params("time=x").time_or("time", Timestamp(5)).expect_err("refused").message,
            r#"invalid parameter "time": invalid time value for 'time': cannot parse "x" to a valid timestamp"#
        );
    }

    #[test]
    fn counts_may_be_anything() {
        let count = |text: &str| params(text).count("n").map_err(|e| e.message);
        assert_eq!(
            [count(""), count("n=-1"), count("n=0"), count("n=5")],
            [Ok(None), Ok(None), Ok(Some(0)), Ok(Some(5))]
        );
        assert_eq!(count("n=x"), Err("n must be a number".to_owned()));
    }

    #[test]
    fn limits_are_not_negative() {
        assert_eq!(params("limit=5").limit("limit"), Ok(5));
        assert_eq!(params("").limit("limit"), Ok(0));
        let message = |text: &str| params(text).limit("limit").expect_err("refused").message;
        assert_eq!(message("limit=-1"), r#"invalid parameter "limit": limit must be non-negative"#);
        assert_eq!(
            message("limit=x"),
            r#"invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax"#
        );
    }
}
