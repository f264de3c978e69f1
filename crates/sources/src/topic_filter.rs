//! MQTT topic filters (MQTT v5.0, section 4.7): `+` stands for one level, a last `#` for any number.

use twinlake_contracts::{Error, Result};

/// A checked topic filter. Topics are UTF-8 with any characters, spaces included; levels are separated by `/`, and a
/// leading `/` makes an empty first level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFilter {
    text: String,
    /// Where the filter proper starts in `text`: after `$share/group/` of a shared subscription.
    start: usize,
}

impl TopicFilter {
    /// Parses a filter; `$share/<group>/<filter>` is allowed.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Err(Error::config(format!("'{text}' is not a topic filter: {why}")).with_help(
                "'+' stands for one whole level, '#' for the rest, for example '/hfp/v2/journey/+/bus/#'",
            ))
        };
        let start = match text.strip_prefix("$share/") {
            None => 0,
            Some(rest) => match rest.split_once('/') {
                Some((group, _)) if !group.is_empty() && !group.contains(['+', '#']) => {
                    "$share/".len() + group.len() + 1
                }
                _ => return wrong("a shared subscription is $share/<group>/<filter>"),
            },
        };
        let filter = &text[start..];
        if filter.is_empty() {
            return wrong("it is empty");
        }
        if text.len() > usize::from(u16::MAX) || text.contains('\0') {
            return wrong("it is longer than 65535 bytes or holds a null character");
        }
        let levels: Vec<&str> = filter.split('/').collect();
        for (index, level) in levels.iter().enumerate() {
            if level.contains('#') && (*level != "#" || index + 1 != levels.len()) {
                return wrong("'#' must be the whole last level");
            }
            if level.contains('+') && *level != "+" {
                return wrong("'+' must be a whole level");
            }
        }
        Ok(Self { text: text.to_owned(), start })
    }

    /// Parses a list that must not be empty.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>> {
        if texts.is_empty() {
            return Err(
                Error::config("'topics' is empty").with_help("name at least one topic filter; '#' is all")
            );
        }
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the filter takes `topic`. Topics that start with `$` are taken only by a filter that names that level.
    pub fn matches(&self, topic: &str) -> bool {
        let filter = &self.text[self.start..];
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        let mut wanted = filter.split('/').peekable();
        while let Some(want) = wanted.next() {
            if want == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if want == "+" || want == level => {}
                // "sport/#" also takes "sport" itself
                _ => return false,
            }
            if wanted.peek() == Some(&"#") && levels.clone().next().is_none() {
                return true;
            }
        }
        levels.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("sport/#", "sport", true),
            ("#", "anything/at all", true),
            ("#", "", true),
            ("+", "finance", true),
            ("+", "/finance", false),
            ("/+", "/finance", true),
            ("+/+", "/finance", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("sport/+/player1", "sport/tennis/player1", true),
            ("#", "$SYS/broker", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("/hfp/v1/+/ongoing/#", "/hfp/v1/journey/ongoing/bus/0017/Vuosaari (M)/Hämeentie", true),
            ("/hfp/v1/Malmi as./+", "/hfp/v1/Malmi as./ä ö", true),
            ("a/b", "a/b/", false),
            ("a/b/c", "a/b", false),
            ("$share/group/a/+", "a/b", true),
        ] {
            let parsed = TopicFilter::parse(filter).expect(filter);
            assert_eq!(parsed.matches(topic), expected, "{filter} on {topic}");
        }
    }

    #[test]
    fn refuses_what_is_no_filter() {
        for text in ["", "a/#/b", "a#", "a/b+", "++", "$share/group", "$share//a", "a\0b"] {
            assert!(TopicFilter::parse(text).is_err(), "{text:?}");
        }
        assert!(TopicFilter::parse_all(&[]).is_err());
    }
}
