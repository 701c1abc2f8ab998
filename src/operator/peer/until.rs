//! When an access ends, as an operator writes it. Pure.

use std::time::{Duration, SystemTime};

/// A hundred years: a longer time is a mistake.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Why the text is not a time when an access can end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It is no time.
    #[error(
        "{0:?} is not a time: write a duration (30d, 12h), a date (2027-01-31), a time (2027-01-31T18:00:00Z), or never"
    )]
    NotATime(String),
    /// It is over.
    #[error("{0:?} is in the past; choose a time to come")]
    InThePast(String),
    /// Nobody means that.
    #[error("{0:?} is more than a hundred years away; choose an earlier time, or never")]
    TooFar(String),
}

/// The end of the access; `None`: never.
pub(super) fn parse(text: &str, now: SystemTime) -> Result<Option<SystemTime>, Error> {
    if text == "never" {
        return Ok(None);
    }
    let date = || humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok();
    let time = || humantime::parse_rfc3339(text).ok().or_else(|| with_offset(text));
    let later = humantime::parse_duration(text).ok().map(|duration| now.checked_add(duration));
    let Some(end) = later.or_else(|| date().or_else(time).map(Some)) else {
        return Err(Error::NotATime(text.to_owned()));
    };
    let is_near = |end: &SystemTime| end.duration_since(now).is_ok_and(|left| left <= LONGEST);
    match end {
        Some(end) if end <= now => Err(Error::InThePast(text.to_owned())),
        Some(end) if is_near(&end) => Ok(Some(end)),
        _ => Err(Error::TooFar(text.to_owned())),
    }
}

/// `2027-01-31T18:00:00+02:00`
fn with_offset(text: &str) -> Option<SystemTime> {
    let (local, offset) = text.split_at_checked(19)?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let distance = (hours < 24 && minutes < 60).then(|| Duration::from_secs(hours * 3600 + minutes * 60))?;
    match offset.as_bytes()[0] {
        b'+' => local.checked_sub(distance),
        b'-' => local.checked_add(distance),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn durations_dates_and_times_are_read_and_the_past_is_refused() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let now = at(1_800_000_000);
        for (text, expected) in [
            ("30d", Ok(Some(at(1_800_000_000 + 30 * 86_400)))),
            ("1h 30m", Ok(Some(at(1_800_005_400)))),
            ("2027-01-31", Ok(Some(at(1_801_353_600)))),
            ("2027-01-31T18:00:00Z", Ok(Some(at(1_801_418_400)))),
            ("2027-01-31T20:00:00+02:00", Ok(Some(at(1_801_418_400)))),
            ("2027-01-31T16:30:00-01:30", Ok(Some(at(1_801_418_400)))),
            ("never", Ok(None)),
            ("0s", Err(Error::InThePast("0s".to_owned()))),
            ("2020-01-01", Err(Error::InThePast("2020-01-01".to_owned()))),
            ("2027-01-15T08:00:00Z", Err(Error::InThePast("2027-01-15T08:00:00Z".to_owned()))),
            ("101y", Err(Error::TooFar("101y".to_owned()))),
            ("tomorrow", Err(Error::NotATime("tomorrow".to_owned()))),
            ("-3d", Err(Error::NotATime("-3d".to_owned()))),
            ("2027-13-01", Err(Error::NotATime("2027-13-01".to_owned()))),
            ("2027-01-31T18:00:00+2", Err(Error::NotATime("2027-01-31T18:00:00+2".to_owned()))),
            ("2027-01-31T18:00:00ééé", Err(Error::NotATime("2027-01-31T18:00:00ééé".to_owned()))),
            ("", Err(Error::NotATime(String::new()))),
        ] {
            assert_eq!(parse(text, now), expected, "{text}");
        }
        assert!(parse("9999999999y", now).is_err());
        assert_eq!(
            Error::InThePast("\u{1b}[2J".to_owned()).to_string(),
            "\"\\u{1b}[2J\" is in the past; choose a time to come"
        );
    }
}
