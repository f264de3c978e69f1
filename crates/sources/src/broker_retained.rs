//! Retained messages of the embedded broker: in memory, for the life of the process, until cleared or expired.

use std::time::Duration;

use async_trait::async_trait;
use rmqtt::retain::{DefaultRetainStorage, RetainStorage};
use rmqtt::types::{Retain, TopicFilter, TopicName};

/// Keeps retained messages with rmqtt's own topic tree. A message expires only when its publisher says so (the v5
/// property), not after the listener's default.
#[derive(Default)]
pub(crate) struct Retained(DefaultRetainStorage);

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, topic: &TopicName, retain: Retain, _default: Option<Duration>) -> rmqtt::Result<()> {
        let expiry = retain
            .publish
            .properties
            .as_ref()
            .and_then(|properties| properties.message_expiry_interval)
            .map(|seconds| Duration::from_secs(u64::from(seconds.get())));
        self.0.set_with_timeout(topic, retain, expiry).await
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        self.0.get_message(filter).await
    }

    async fn count(&self) -> isize {
        self.0.count().await
    }

    async fn max(&self) -> isize {
        self.0.max().await
    }
}
