//! What clients may publish and subscribe to.

use bytestring::ByteString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::Result;

use super::subscriptions::shared;
use crate::topic_filter::TopicFilter;

/// One rule: the clients that it is for, and what they may do. A client may do what any of its rules allows; when
/// there are rules, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// User names, `*` stands for any characters. All users without this key; a client without a user has the empty
    /// name.
    #[serde(default)]
    pub users: Vec<String>,
    /// Client identifiers, `*` stands for any characters. All clients without this key.
    #[serde(default)]
    pub clients: Vec<String>,
    /// Topic filters on which they may publish; `%u` stands for the user name, `%c` for the client identifier.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Topic filters within which they may subscribe; `%u` and `%c` as above.
    #[serde(default)]
    pub subscribe: Vec<String>,
}

/// What one client may do; `None` is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    pub(crate) publish: Option<Vec<TopicFilter>>,
    pub(crate) subscribe: Option<Vec<TopicFilter>>,
}

impl Permissions {
    /// What the rules allow to a client.
    pub(crate) fn of(rules: &[AccessRule], user: Option<&str>, client: &str) -> Self {
        if rules.is_empty() {
            return Self::default();
        }
        let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
        for rule in rules {
            let name = user.unwrap_or("");
            let is_for = (rule.users.is_empty() || rule.users.iter().any(|pattern| fits(pattern, name)))
                && (rule.clients.is_empty() || rule.clients.iter().any(|pattern| fits(pattern, client)));
            if is_for {
                publish.extend(filled(&rule.publish, user, client));
                subscribe.extend(filled(&rule.subscribe, user, client));
            }
        }
        Self { publish: Some(publish), subscribe: Some(subscribe) }
    }

    /// Limits to lists of a token, where the token has them.
    pub(crate) fn narrow(
        &mut self,
        publish: Option<&[String]>,
        subscribe: Option<&[String]>,
        user: Option<&str>,
        client: &str,
    ) {
        if let Some(list) = publish {
            self.publish = Some(filled(list, user, client).collect());
        }
        if let Some(list) = subscribe {
            self.subscribe = Some(filled(list, user, client).collect());
        }
    }

    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        self.publish.as_ref().is_none_or(|filters| filters.iter().any(|filter| filter.matches(topic)))
    }

    /// Whether everything that `filter` takes is within what may be subscribed to.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        let filter = shared(filter).map_or(filter, |(_, filter)| filter);
        self.subscribe
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(|allowed| covers(allowed.as_str(), filter)))
    }

    /// Whether nothing is limited.
    pub(crate) fn unlimited(&self) -> bool {
        self.publish.is_none() && self.subscribe.is_none()
    }
}

/// Checks the rules' filters, so that a mistake is found at the start and not at the first message.
pub(crate) fn check(rules: &[AccessRule]) -> Result<()> {
    for text in rules.iter().flat_map(|rule| rule.publish.iter().chain(&rule.subscribe)) {
        TopicFilter::parse(&text.replace("%u", "user").replace("%c", "client"))?;
    }
    Ok(())
}

/// The filters with the client's names in them. A name that holds `/`, `+` or `#` could reach beyond its level: such a
/// filter is left out.
fn filled<'a>(
    filters: &'a [String],
    user: Option<&'a str>,
    client: &'a str,
) -> impl Iterator<Item = TopicFilter> + 'a {
    let harmless = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#']);
    filters.iter().filter_map(move |filter| {
        let mut text = filter.clone();
        for (mark, name) in [("%u", user.unwrap_or("")), ("%c", client)] {
            if text.contains(mark) {
                if !harmless(name) {
                    return None;
                }
                text = text.replace(mark, name);
            }
        }
        TopicFilter::parse(&text).ok()
    })
}

/// Whether a pattern with `*` fits a name.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether every topic that `wanted` takes is taken by `allowed`.
fn covers(allowed: &str, wanted: &str) -> bool {
    if wanted.starts_with('$') && allowed.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = wanted.split('/');
    let mut allowed = allowed.split('/').peekable();
    while let Some(allow) = allowed.next() {
        if allow == "#" {
            return true;
        }
        match levels.next() {
            Some("#") => return false,
            Some(level) if allow == "+" || allow == level => {}
            _ => return false,
        }
        if allowed.peek() == Some(&"#") && levels.clone().next().is_none() {
            return true;
        }
    }
    levels.next().is_none()
}

/// Who a client is, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: Option<ByteString>,
    pub(crate) permissions: Permissions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_coverage() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        for (allowed, wanted, expected) in [
            ("#", "a/#", true),
            ("#", "$SYS/#", false),
            ("a/#", "a", true),
            ("a/#", "a/+/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("a/+/c", "a/#", false),
            ("+/+", "#", false),
        ] {
            assert_eq!(covers(allowed, wanted), expected, "{allowed} {wanted}");
        }
    }

    #[test]
    fn rules_add_up_and_names_cannot_reach_out() {
        let rules = [
            AccessRule {
                users: vec!["sensor-*".into()],
                clients: vec![],
                publish: vec!["city/%u/#".into()],
                subscribe: vec!["command/%c".into()],
            },
            AccessRule {
                users: vec!["map".into()],
                clients: vec!["viewer*".into()],
                publish: vec![],
                subscribe: vec!["city/#".into()],
            },
        ];
        check(&rules).expect("rules");
        let sensor = Permissions::of(&rules, Some("sensor-1"), "device");
        assert!(sensor.may_publish("city/sensor-1/t") && !sensor.may_publish("city/sensor-2/t"));
        assert!(sensor.may_subscribe("command/device") && !sensor.may_subscribe("command/+"));
        assert!(sensor.may_subscribe("$share/g/command/device"));
        let sly = Permissions::of(&rules, Some("sensor-/+/#"), "#");
        assert!(!sly.may_publish("city/sensor-/x") && !sly.may_subscribe("command/x"));
        let map = Permissions::of(&rules, Some("map"), "viewer-3");
        assert!(map.may_subscribe("city/+/t") && !map.may_subscribe("#") && !map.may_publish("city/x"));
        assert!(!Permissions::of(&rules, None, "x").may_publish("city//x"));
        assert!(Permissions::of(&[], None, "x").unlimited());
    }
}
