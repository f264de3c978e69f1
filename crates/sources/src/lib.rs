//! Where messages come from: one file a protocol; bytes in, positions out.
//!
//! To add a source: one file with a settings struct that implements [`Component`], and one line in [`registry`].
//!
//! What every source promises is on [`Source`]; in short, nothing is acknowledged outward before the pipeline says
//! that it is on stable storage, and what was not acknowledged comes again (at least once). A message that comes
//! again has a new ordinal: whether it is the same reading is decided by the pipeline (a `clean` step with `dedup`),
//! since only the pipeline knows the reading's key.
//!
//! [`Component`]: twinlake_contracts::Component

mod broker;
mod files;
mod files_reader;
mod mqtt;
mod mqtt_broker;
mod mqtt_link;
mod received_at;
pub mod replay;
mod replay_publish;
mod topic_filter;

pub use broker::{
    AccessRule, Broker, BrokerLimits, BrokerOptions, BrokerSettings, BrokerStats, BrokerTls, TokenAlgorithm,
    TokenSettings, hash_password,
};
pub use files::{FilesSettings, LineFormat, Replay, Split};
pub use mqtt::{MqttSettings, Protocol};
pub use mqtt_broker::MqttBrokerSettings;
pub use received_at::{RECEIVED_AT_PROPERTY, ReceivedAt};
pub use replay_publish::{PublishReport, PublishSettings, publish_capture};
pub use topic_filter::TopicFilter;

use twinlake_contracts::{Registry, Source};

/// All sources.
pub fn registry() -> Registry<dyn Source> {
    Registry::new("source").with::<MqttSettings>().with::<MqttBrokerSettings>().with::<FilesSettings>()
}

#[cfg(test)]
mod conformance;
