//! Times and uncertainties as text. Times are unix nanoseconds and are shown in UTC.

const NS_PER_S: i64 = 1_000_000_000;
const S_PER_DAY: i64 = 86_400;

/// `2026-11-23T10:00:00.000123456Z`.
pub fn rfc3339(time_ns: i64) -> String {
    let (seconds, ns) = (time_ns.div_euclid(NS_PER_S), time_ns.rem_euclid(NS_PER_S));
    let (days, second) = (seconds.div_euclid(S_PER_DAY), seconds.rem_euclid(S_PER_DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z")
}

/// `10:00:00.000123`: time of day, cut to microseconds.
pub fn clock(time_ns: i64) -> String {
    let second = time_ns.div_euclid(NS_PER_S).rem_euclid(S_PER_DAY);
    let us = time_ns.rem_euclid(NS_PER_S) / 1000;
    format!("{:02}:{:02}:{:02}.{us:06}", second / 3600, second / 60 % 60, second % 60)
}

/// Reads `2026-11-23T10:00:00.000123Z`, or `10:00:00.000123` of the UTC day of `day_ns`; unix nanoseconds.
pub fn parse(text: &str, day_ns: i64) -> Option<i64> {
    let text = text.trim().trim_end_matches(['Z', 'z']);
    let (days, clock) = match text.split_once(['T', 't', ' ']) {
        Some((date, clock)) => {
            let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
            let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
            if !(1970..=2262).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
                return None;
            }
            (days_of(year, month, day), clock)
        }
        None => (day_ns.div_euclid(NS_PER_S).div_euclid(S_PER_DAY), text),
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.splitn(3, ':').map(|part| part.parse::<i64>().ok().filter(|number| (0..60).contains(number)));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if hour > 23 || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ns = format!("{fraction:0<9}").parse::<i64>().ok()?;
    let seconds = days.checked_mul(S_PER_DAY)? + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(NS_PER_S)?.checked_add(ns)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar: the way back of [`civil`].
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A number of nanoseconds in a unit that fits, rounded up: an uncertainty is never shown smaller than it is.
pub fn uncertainty(ns: u64, between: &str) -> String {
    let (unit, name) = match ns {
        0..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let tenths = (u128::from(ns) * 10).div_ceil(unit);
    if tenths >= 100 || tenths.is_multiple_of(10) {
        format!("±{}{between}{name}", tenths.div_ceil(10))
    } else {
        format!("±{}.{}{between}{name}", tenths / 10, tenths % 10)
    }
}

/// A number of nanoseconds in a unit that fits, to three digits.
pub fn duration(ns: u64) -> String {
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let number = ns as f64 / unit;
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$} {name}")
}

/// Year, month and day of a number of days since 1970-01-01 in the proleptic Gregorian calendar. The algorithm counts
/// in eras of 400 years that begin on a 1st of March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        let ten = 1_795_428_000_000_000_000;
        for (text, expect) in [
            ("2026-11-23T10:00:00.000123456Z", Some(ten + 123_456)),
            ("10:00:00.5", Some(ten + 500_000_000)),
            ("10:00", Some(ten)),
            ("2000-02-29 00:00:00", Some(951_782_400_000_000_000)),
            ("24:00:00", None),
            ("10:60:00", None),
            ("10", None),
            ("10:00:00.1234567890", None),
            ("2026-13-01T00:00:00", None),
            ("9999999-01-01T00:00:00", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(parse(text, ten), expect, "{text}");
        }
        for days in [0, 58, 59, 60, 11_016, 20_780, 106_751] {
            let (year, month, day) = civil(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }

    #[test]
    fn a_duration_has_three_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_234, "1.23 µs"),
            (12_340, "12.3 µs"),
            (1_500_000, "1.50 ms"),
            (123_456_789, "123 ms"),
            (61_000_000_000, "61.0 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn times_are_written_to_the_nanosecond() {
        for (time_ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (1_795_428_000_000_123_456, "2026-11-23T10:00:00.000123456Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ] {
            assert_eq!(rfc3339(time_ns), text);
        }
        assert_eq!(clock(1_795_428_000_000_123_999), "10:00:00.000123");
        assert_eq!(clock(-1), "23:59:59.999999");
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut last = civil(-200_000);
        for days in -199_999..200_000 {
            let day = civil(days);
            let follows = match (day.1 - last.1, day.2 - last.2) {
                (0, 1) => day.0 == last.0,
                (1, _) => day.2 == 1 && day.0 == last.0 && last.2 >= 28,
                (-11, _) => (day.1, day.2) == (1, 1) && last.2 == 31 && day.0 == last.0 + 1,
                _ => false,
            };
            assert!(follows, "{last:?} {day:?}");
            last = day;
        }
    }

    #[test]
    fn an_uncertainty_is_never_understated() {
        for (ns, text) in [
            (0, "±0ns"),
            (999, "±999ns"),
            (1_000, "±1µs"),
            (1_001, "±1.1µs"),
            (41_000, "±41µs"),
            (41_001, "±42µs"),
            (9_950, "±10µs"),
            (1_500_000, "±1.5ms"),
            (2_000_000_000, "±2s"),
        ] {
            assert_eq!(uncertainty(ns, ""), text);
        }
        assert_eq!(uncertainty(41_000, " "), "±41 µs");
    }
}
