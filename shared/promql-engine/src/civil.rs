//! The calendar: days, months and years of a Unix time, in UTC.

/// A Unix time taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u32,
    /// 1 to 31.
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    /// 0 is Sunday.
    pub(crate) weekday: u32,
    /// 1 is the first of January.
    pub(crate) day_of_year: u32,
}

const SECONDS_PER_DAY: i64 = 86_400;

impl Civil {
    /// Takes apart seconds since the epoch (Howard Hinnant's `civil_from_days`: years begin in March, eras of 400
    /// years repeat).
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "remainders are small")]
    pub(crate) const fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + (month <= 2) as i64;
        let before_march = 59 + is_leap(year) as i64;
        let day_of_year = if month <= 2 { of_year - 306 } else { of_year + before_march } + 1;
        Self {
            year,
            month: month as u32,
            day: day as u32,
            hour: (of_day / 3_600) as u32,
            minute: (of_day / 60 % 60) as u32,
            second: (of_day % 60) as u32,
            weekday: (days + 4).rem_euclid(7) as u32,
            day_of_year: day_of_year as u32,
        }
    }

    pub(crate) const fn days_in_month(&self) -> u32 {
        match self.month {
            2 => 28 + is_leap(self.year) as u32,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, year, month, day, day_of_year, weekday, days) in [
            (0, 1970, 1, 1, 1, 4, 31),
            (1_136_239_445, 2006, 1, 2, 2, 1, 31),
            (1_230_767_999, 2008, 12, 31, 366, 3, 31),
            (1_454_284_800, 2016, 2, 1, 32, 1, 29),
            (1_485_907_200, 2017, 2, 1, 32, 3, 28),
            (-1, 1969, 12, 31, 365, 3, 31),
            (951_782_400, 2000, 2, 29, 60, 2, 29),
            (951_868_800, 2000, 3, 1, 61, 3, 31),
        ] {
            let c = Civil::from_unix(seconds);
            assert_eq!(
                (c.year, c.month, c.day, c.day_of_year, c.weekday, c.days_in_month()),
                (year, month, day, day_of_year, weekday, days),
                "{seconds}"
            );
        }
        let c = Civil::from_unix(1_136_239_445);
        assert_eq!((c.hour, c.minute, c.second), (22, 4, 5));
    }
}
