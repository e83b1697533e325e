//! The two spellings of time in tokens: seconds as a JSON number, and RFC 3339.

use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339};

use crate::id::Millis;

/// The millisecond before the year 10000, the last that RFC 3339 can spell.
const RFC3339_MAX: i64 = 253_402_300_799_999;
/// The first millisecond of the year 0.
const RFC3339_MIN: i64 = -62_167_219_200_000;

/// Reads seconds since the epoch from the text of a JSON number, floored to whole milliseconds.
///
/// Decimal arithmetic on the text: binary floating point would make the last millisecond depend on the parser. Times
/// out of range are held at its ends.
pub(super) fn from_seconds(number: &str) -> Option<Millis> {
    let (negative, unsigned) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let exponent: i64 = exponent.parse().ok()?;
    let all: String = format!("{whole}{fraction}").trim_start_matches('0').into();
    if all.is_empty() {
        return Some(Millis(0));
    }
    // The value in milliseconds is `all` with its decimal point after `point` digits.
    let length = i64::try_from(all.len()).ok()?;
    let point = length.saturating_add(exponent).saturating_add(3).saturating_sub(i64::try_from(fraction.len()).ok()?);
    let (size, exact) = if point > 19 {
        (i128::MAX, true)
    } else {
        let kept = usize::try_from(point.clamp(0, length)).ok()?;
        let zeros = u32::try_from(point.saturating_sub(length).max(0)).ok()?;
        let size = all[..kept].parse::<i128>().unwrap_or(0).saturating_mul(10i128.pow(zeros));
        (size, all[kept..].bytes().all(|byte| byte == b'0'))
    };
    let floored = if negative { -size - i128::from(!exact) } else { size };
    Some(Millis(i64::try_from(floored).unwrap_or(if negative { i64::MIN } else { i64::MAX })))
}

/// Writes seconds since the epoch as the shortest JSON number that [`from_seconds`] reads back.
pub(super) fn to_seconds(at: Millis) -> String {
    let (seconds, millis) = (at.0.unsigned_abs() / 1000, at.0.unsigned_abs() % 1000);
    let sign = if at.0 < 0 { "-" } else { "" };
    if millis == 0 {
        return format!("{sign}{seconds}");
    }
    format!("{sign}{seconds}.{millis:03}").trim_end_matches('0').to_owned()
}

/// Reads an RFC 3339 timestamp with `T` between date and time, floored to whole milliseconds.
pub(super) fn from_rfc3339(text: &str) -> Option<Millis> {
    if !text.is_ascii() || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    i64::try_from(nanos.div_euclid(1_000_000)).ok().map(Millis)
}

/// Writes an RFC 3339 timestamp in UTC with three digits of milliseconds, as browsers do. Held within the years 0 to
/// 9999.
pub(super) fn to_rfc3339(at: Millis) -> String {
    let millis = at.0.clamp(RFC3339_MIN, RFC3339_MAX);
    let days = time::Duration::days(millis.div_euclid(86_400_000));
    let of_day = millis.rem_euclid(86_400_000);
    let date = Date::from_ordinal_date(1970, 1).expect("the epoch is a date") + days;
    let moment = PrimitiveDateTime::new(date, Time::MIDNIGHT) + time::Duration::milliseconds(of_day);
    let (hour, minute, second, milli) = moment.time().as_hms_milli();
    let (year, month, day) = (moment.year(), u8::from(moment.month()), moment.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_floored_to_milliseconds_exactly() {
        for (text, millis) in [
            ("0", 0),
            ("-0", 0),
            ("4070908800", 4_070_908_800_000),
            ("4070908800.0", 4_070_908_800_000),
            ("1700000000.123", 1_700_000_000_123),
            ("1700000000.1239999", 1_700_000_000_123),
            ("0.0009", 0),
            ("-0.0001", -1),
            ("-1.5", -1500),
            ("-1.5009", -1501),
            ("1.7e9", 1_700_000_000_000),
            ("17E+8", 1_700_000_000_000),
            ("5e-3", 5),
            ("5e-4", 0),
            ("-5e-400", -1),
            ("0e999", 0),
            ("0.00001e-9223372036854775808", 0),
            ("-0.00001e-9223372036854775808", -1),
            ("0.00001e9223372036854775807", i64::MAX),
            ("0.00000000000000000000000001e26", 1000),
            ("1e300", i64::MAX),
            ("-1e300", i64::MIN),
            ("9223372036854775.807", i64::MAX),
            ("9223372036854775.808", i64::MAX),
            ("-9223372036854775.808", i64::MIN),
            ("123456789012345678901234567890", i64::MAX),
        ] {
            assert_eq!(from_seconds(text), Some(Millis(millis)), "{text}");
        }
        for text in ["", "true", "\"1\"", "null", "[1]", "1e", "e1", ".5", "--1", "1e99999999999999999999"] {
            assert_eq!(from_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_read_back_as_they_were_written() {
        for millis in [0, 1, -1, 999, 1000, -1500, 1_700_000_000_120, i64::MAX, i64::MIN] {
            assert_eq!(from_seconds(&to_seconds(Millis(millis))), Some(Millis(millis)));
        }
        assert_eq!(to_seconds(Millis(1_700_000_000_120)), "1700000000.12");
    }

    #[test]
    fn a_timestamp_may_have_any_offset_and_is_floored() {
        assert_eq!(from_rfc3339("1970-01-01T00:00:01.0019Z"), Some(Millis(1001)));
        assert_eq!(from_rfc3339("1970-01-01T02:00:00+02:00"), Some(Millis(0)));
        assert_eq!(from_rfc3339("1969-12-31T23:59:59.9999Z"), Some(Millis(-1)));
        for text in ["", "1970-01-01", "1970-01-01 00:00:00Z", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z", "é"] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_timestamp_reads_back_as_it_was_written() {
        for millis in [0, -1, 1_704_067_200_000, RFC3339_MIN, RFC3339_MAX] {
            assert_eq!(from_rfc3339(&to_rfc3339(Millis(millis))), Some(Millis(millis)), "{millis}");
        }
        assert_eq!(to_rfc3339(Millis(1_704_067_200_000)), "2024-01-01T00:00:00.000Z");
        assert_eq!(to_rfc3339(Millis(i64::MAX)), "9999-12-31T23:59:59.999Z");
    }

    proptest::proptest! {
        #[test]
        fn any_number_of_seconds_is_a_time(
            text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,18})?",
        ) {
            proptest::prop_assert!(from_seconds(&text).is_some());
        }

        #[test]
        fn a_time_reads_back_from_both_spellings(millis in RFC3339_MIN..=RFC3339_MAX) {
            proptest::prop_assert_eq!(from_seconds(&to_seconds(Millis(millis))), Some(Millis(millis)));
            proptest::prop_assert_eq!(from_rfc3339(&to_rfc3339(Millis(millis))), Some(Millis(millis)));
        }
    }
}
