//! Retained messages: the last of each topic, until it is cleared or expires.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;
use twinlake_contracts::now_us;

use super::session::Message;
use crate::topic_filter::TopicFilter;

/// Retained messages by topic.
#[derive(Default)]
pub(crate) struct Retained {
    messages: BTreeMap<ByteString, Arc<Message>>,
}

impl Retained {
    /// Keeps a message as its topic's last; an empty payload clears the topic. `false` when there are `most` already.
    pub(crate) fn set(&mut self, message: Arc<Message>, most: usize) -> bool {
        if message.payload.is_empty() {
            self.messages.remove(&message.topic);
        } else if self.messages.len() < most || self.messages.contains_key(&message.topic) {
            self.messages.insert(message.topic.clone(), message);
        } else {
            return false;
        }
        true
    }

    /// The messages that a filter takes.
    pub(crate) fn matching(&self, filter: &TopicFilter) -> Vec<Arc<Message>> {
        let text = filter.as_str();
        let literal = text.find(['+', '#']).unwrap_or(text.len());
        // "a/#" also takes "a" itself.
        let prefix = text[..literal].strip_suffix('/').unwrap_or(&text[..literal]);
        let now = now_us();
        self.messages
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .filter(|(topic, message)| {
                filter.matches(topic) && message.expires_at_us.is_none_or(|at_us| at_us > now)
            })
            .map(|(_, message)| Arc::clone(message))
            .collect()
    }

    /// Drops what has expired; returns the topics.
    pub(crate) fn expire(&mut self) -> Vec<ByteString> {
        let now = now_us();
        let over =
            self.messages.iter().filter(|(_, message)| message.expires_at_us.is_some_and(|at| at <= now));
        let topics: Vec<ByteString> = over.map(|(topic, _)| topic.clone()).collect();
        for topic in &topics {
            self.messages.remove(topic);
        }
        topics
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rmqtt_codec::types::QoS;

    use super::*;

    fn message(topic: &'static str, payload: &'static str, expires_at_us: Option<i64>) -> Arc<Message> {
        let payload = Bytes::from_static(payload.as_bytes());
        Arc::new(Message {
            topic: topic.into(),
            payload,
            properties: None,
            qos: QoS::AtMostOnce,
            expires_at_us,
        })
    }

    #[test]
    fn filters_find_what_was_kept_last() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "ab", "/a", "b/b", "$SYS/x"] {
            assert!(retained.set(message(topic, "1", None), 10));
        }
        assert!(!retained.set(message("c", "1", None), 7) && retained.set(message("a/b", "2", None), 7));
        assert!(retained.set(message("b/b", "", None), 7));
        assert!(retained.set(message("a/old", "x", Some(1)), 7));
        for (filter, expected) in [
            ("a/#", vec!["a", "a/b", "a/b/c"]),
            ("+/b", vec!["a/b"]),
            ("a/b", vec!["a/b"]),
            ("#", vec!["/a", "a", "a/b", "a/b/c", "ab"]),
            ("$SYS/#", vec!["$SYS/x"]),
            ("/+", vec!["/a"]),
            ("c", vec![]),
        ] {
            let filter = TopicFilter::parse(filter).expect("filter");
            let found = retained.matching(&filter);
            let topics: Vec<&str> = found.iter().map(|message| &*message.topic).collect();
            assert_eq!(topics, expected, "{}", filter.as_str());
        }
        assert_eq!(retained.matching(&TopicFilter::parse("a/b").expect("filter"))[0].payload, "2");
        assert_eq!(retained.expire(), ["a/old"]);
        assert!(retained.expire().is_empty());
    }
}
