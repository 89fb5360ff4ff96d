//! Times and durations as a person writes them.
//!
//! Source: Go's `time/time.go`: `wall` has nanoseconds in its low 30 bits; with its highest bit set, the 33 bits between
//! are seconds since 1885, else `ext` is seconds since year 1. `loc` is nil for UTC. A time is written in its location
//! where the offset that holds then is in the location's cache, else in UTC.

use super::{field, int, pointee, text};
use crate::value::{Scalar, Status, Value};

const DAY: i128 = 86_400;
/// Seconds from year 1 to 1885, and from year 1 to 1970: `wallToInternal`, `unixToInternal`.
const FROM_1885: i128 = (1884 * 365 + 1884 / 4 - 1884 / 100 + 1884 / 400) * DAY;
const TO_1970: i128 = (1969 * 365 + 1969 / 4 - 1969 / 100 + 1969 / 400) * DAY;

/// The text of a time or duration.
pub(super) fn written(value: &Value) -> Option<String> {
    match (value.type_name.as_str(), &value.scalar) {
        ("time.Duration", Some(Scalar::Int(nanoseconds))) => Some(duration(*nanoseconds)),
        ("time.Time", None) => time(value),
        _ => None,
    }
}

/// As `time.Duration.String` writes it: the largest unit that leaves something in front of the point.
fn duration(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let amount = nanoseconds.unsigned_abs();
    let fraction = |amount: u128, unit: u128| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", amount % unit);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { (amount / unit).to_string() } else { format!("{}.{rest}", amount / unit) }
    };
    let text = match amount {
        0 => return "0s".to_owned(),
        1..1_000 => format!("{amount}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(amount, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(amount, 1_000_000)),
        _ => {
            let minutes = amount / 60_000_000_000;
            let seconds = fraction(amount % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

fn time(value: &Value) -> Option<String> {
    let (wall, ext) = (int(value, "wall")?, int(value, "ext")?);
    let nanoseconds = wall & ((1 << 30) - 1);
    let since_year_1 = if wall >> 63 & 1 == 1 { FROM_1885 + (wall >> 30 & ((1 << 33) - 1)) } else { ext };
    if nanoseconds >= 1_000_000_000 {
        return None;
    }
    let unix = since_year_1 - TO_1970;
    let (offset, name) = location(value, unix);
    let (date, of_day) = ((unix + offset).div_euclid(DAY), (unix + offset).rem_euclid(DAY));
    let (year, month, day) = civil(date);
    let mut out =
        format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
    if nanoseconds > 0 {
        let digits = format!("{nanoseconds:09}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
    let sign = if offset < 0 { '-' } else { '+' };
    let offset = offset.abs();
    out.push_str(&format!(" {sign}{:02}{:02} {name}", offset / 3600, offset / 60 % 60));
    Some(out)
}

/// Offset from UTC in seconds, and the name of the zone.
fn location(value: &Value, unix: i128) -> (i128, String) {
    let utc = (0, "UTC".to_owned());
    let Some(location) = field(value, "loc").map(pointee).filter(|location| location.status == Status::Exact) else {
        return utc;
    };
    let cached = || {
        let in_force = int(location, "cacheStart")? <= unix && unix < int(location, "cacheEnd")?;
        let zone = field(location, "cacheZone").map(pointee).filter(|_| in_force)?;
        let offset = int(zone, "offset").filter(|offset| offset.abs() < DAY)?;
        Some((offset, String::from_utf8_lossy(text(zone, "name")?).into_owned()))
    };
    cached().unwrap_or(utc)
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar: years are counted from March in cycles
/// of 400 years, so that the leap day is the last of its year.
fn civil(days: i128) -> (i128, i128, i128) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (cycle, of_cycle) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    // Months of 30 and 31 days from March on repeat every five, 153 days.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + i128::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
            (-5_000_000, "-5ms"),
            (i128::from(i64::MAX), "2562047h47m16.854775807s"),
            (i128::from(i64::MIN), "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn days_are_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_780, (2026, 11, 23)),
            (-719_162, (1, 1, 1)),
            (-719_468, (0, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
    }
}
