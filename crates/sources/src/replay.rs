//! Captures of message streams: one message a line, `<capture time> <topic> <payload>`.
//!
//! The capture time is RFC 3339 (`+0000` offsets too) up to the first space. Topics may hold spaces, so the payload
//! starts at the first `{` or `[` that follows a space; a line without one has a topic without spaces, and the
//! payload is what follows it. This is what `mosquitto_sub -F '%I %t %p'` and the HSL captures write.

use std::path::Path;

use twinlake_contracts::{Error, Result, parse_us};

/// One message of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLine<'a> {
    /// When it was captured, microseconds since the epoch, UTC.
    pub time_us: i64,
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a str,
}

/// Why a line is not of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotACaptureLine {
    /// The text before the first space is not a time stamp.
    Time,
    /// There is no topic.
    Topic,
    /// There is nothing after the topic.
    Payload,
}

impl NotACaptureLine {
    /// What is wrong, for a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::Time => "the line does not start with a time stamp and a space",
            Self::Topic => "no topic follows the time stamp",
            Self::Payload => "no payload follows the topic",
        }
    }
}

/// Reads one line, without its line end.
pub fn parse_line(line: &str) -> Result<CaptureLine<'_>, NotACaptureLine> {
    let (time, rest) = line.split_once(' ').ok_or(NotACaptureLine::Time)?;
    let time_us = parse_us(time).ok_or(NotACaptureLine::Time)?;
    let json = rest.match_indices(" {").chain(rest.match_indices(" [")).map(|(at, _)| at).min();
    let (topic, payload) = match json {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => rest.split_once(' ').ok_or(NotACaptureLine::Payload)?,
    };
    if topic.is_empty() {
        return Err(NotACaptureLine::Topic);
    }
    Ok(CaptureLine { time_us, topic, payload })
}

/// One message of a capture, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedMessage {
    /// When it was captured, microseconds since the epoch, UTC.
    pub time_us: i64,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Reads the lines of a whole capture; empty lines are skipped. An error names the line.
pub fn parse_capture(text: &str) -> Result<Vec<CapturedMessage>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| match parse_line(line) {
            Ok(found) => Ok(CapturedMessage {
                time_us: found.time_us,
                topic: found.topic.to_owned(),
                payload: found.payload.as_bytes().to_vec(),
            }),
            Err(wrong) => Err(Error::config(format!("line {} of the capture: {}", index + 1, wrong.text()))
                .with_help("a line is <RFC 3339 time> <topic> <payload>")),
        })
        .collect()
}

/// Reads a capture file. Blocking.
pub fn read_capture(path: &Path) -> Result<Vec<CapturedMessage>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::config(format!("cannot read the capture '{}': {error}", path.display())))?;
    parse_capture(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_topics_with_spaces_and_any_letters() {
        let line = r#"2018-10-09T04:32:52.553716+0000 /hfp/v1/bus/Vuosaari (M)/Hämeen tie/07:29/60;25/21 {"VP":{"a":" {"}}"#;
        let found = parse_line(line).expect("line");
        assert_eq!(found.time_us, 1_539_059_572_553_716);
        assert_eq!(found.topic, "/hfp/v1/bus/Vuosaari (M)/Hämeen tie/07:29/60;25/21");
        assert_eq!(found.payload, r#"{"VP":{"a":" {"}}"#);
        let plain = parse_line("2018-10-09T04:32:52Z plant/pump 7.5 bar").expect("line");
        assert_eq!((plain.topic, plain.payload), ("plant/pump", "7.5 bar"));
    }

    #[test]
    fn says_what_a_line_lacks() {
        for (line, wrong) in [
            ("", NotACaptureLine::Time),
            ("yesterday a {}", NotACaptureLine::Time),
            ("2018-10-09T04:32:52Z {}", NotACaptureLine::Payload),
            ("2018-10-09T04:32:52Z  {}", NotACaptureLine::Topic),
            ("2018-10-09T04:32:52Z topic", NotACaptureLine::Payload),
        ] {
            assert_eq!(parse_line(line), Err(wrong), "{line:?}");
        }
        assert!(parse_capture("2018-10-09T04:32:52Z a {}\n\nx").unwrap_err().to_string().contains("line 3"));
    }

    #[test]
    fn reads_the_helsinki_capture() {
        let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../pipelines/data/helsinki-vehicles.hfp.txt");
        let messages = read_capture(&path).expect("capture");
        assert_eq!(messages.len(), 3000);
        assert!(
            messages.iter().all(|m| m.topic.starts_with("/hfp/v1/") && m.payload.starts_with(b"{\"VP\":{"))
        );
        assert!(messages.iter().any(|m| m.topic.contains(' ') && !m.topic.is_ascii()));
    }
}
