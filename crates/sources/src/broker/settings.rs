//! How a broker is started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result};

use super::rules::AccessRule;
use super::token::TokenSettings;

/// Certificate files of a broker that listens with TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerTls {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
    /// Certificates of the authorities that may sign device certificates, PEM; when given, a device must show one.
    pub client_authority: Option<PathBuf>,
}

/// What the clients of a broker may use up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerLimits {
    /// How many connections may be open; further ones are closed at once. The process needs an open file for each.
    pub connections: usize,
    /// How many publishes a second one client may send; a faster one is read more slowly, nothing is dropped.
    pub messages_per_second: Option<u32>,
    /// How many bytes a second one client may send; a faster one is read more slowly, nothing is dropped.
    pub bytes_per_second: Option<u32>,
    /// How many publishes of one client may be on their way to the log (MQTT v5 receive maximum). A client that sends
    /// more is not read meanwhile.
    pub inflight: u16,
    /// How many messages are kept for a client that is away or slow; what comes on top is dropped for that client.
    pub queued_messages: usize,
    /// How many bytes of payload are kept for a client that is away or slow.
    pub queued_bytes: usize,
    /// How many topics may have a retained message; those of further topics are routed and not retained.
    pub retained_messages: usize,
    /// How long a connection may take until its CONNECT is accepted, in seconds.
    pub connect_timeout_s: u16,
    /// The longest time that a session is kept after its connection, in seconds.
    pub session_expiry_s: u32,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            messages_per_second: None,
            bytes_per_second: None,
            inflight: 1024,
            queued_messages: 100_000,
            queued_bytes: 64 * 1024 * 1024,
            retained_messages: 1_000_000,
            connect_timeout_s: 10,
            session_expiry_s: 7 * 24 * 60 * 60,
        }
    }
}

/// Who may connect and what clients may do: the part of a broker's settings that is written in a TOML file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerOptions {
    /// Certificate files; plain TCP without them.
    pub tls: Option<BrokerTls>,
    /// A file of users, one a line: `name:hash`, the hash in the PHC form of Argon2 or PBKDF2.
    pub users: Option<PathBuf>,
    /// How tokens (JWT) in place of the password are checked.
    pub token: Option<TokenSettings>,
    /// Whether clients without any credentials may connect. Without this key: only when no users, tokens or client
    /// certificates are set up and the broker listens on a loopback address.
    pub anonymous: Option<bool>,
    /// What clients may publish and subscribe to; all, when there are no rules.
    pub rules: Vec<AccessRule>,
    /// What clients may use up.
    pub limits: BrokerLimits,
    /// A folder for sessions and retained messages, which then survive a restart. In memory only without it.
    pub state: Option<PathBuf>,
    /// Lets several processes of this machine listen on the same address; the system spreads connections over them.
    /// Each has sessions, subscriptions and retained messages of its own.
    pub reuse_port: bool,
}

impl BrokerOptions {
    /// Reads a TOML file; paths in it are relative to the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::config(format!("cannot read {}: {error}", path.display())))?;
        let mut options: Self = toml::from_str(&text)
            .map_err(|error| Error::config(format!("{}: {error}", path.display()).trim_end().to_owned()))?;
        options.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(options)
    }

    /// Puts relative paths into `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        let beside = |path: &mut PathBuf| *path = folder.join(&*path);
        if let Some(tls) = &mut self.tls {
            beside(&mut tls.certificate);
            beside(&mut tls.key);
            tls.client_authority.iter_mut().for_each(beside);
        }
        self.users.iter_mut().chain(&mut self.state).for_each(beside);
        self.token.iter_mut().for_each(|token| beside(&mut token.key));
    }
}

/// How a broker is started.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// The address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Certificate files; plain TCP without them. They go before those of the options.
    pub tls: Option<BrokerTls>,
    /// Sets of topic filters that sources will record. Named here, publishers on them wait for their source instead of
    /// being acknowledged for a message that nobody records. The broker takes no connection before these are set.
    pub claims: Vec<Vec<String>>,
    /// The largest packet that is taken, in bytes.
    pub max_packet_bytes: u32,
    /// How long a publish on a claimed topic waits for a source to attach before its connection is closed.
    pub patience: Duration,
    /// Access, limits, state.
    pub options: BrokerOptions,
}

impl BrokerSettings {
    /// Plain TCP on `listen` with the defaults: packets to 1 MiB, 30 s of patience.
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            tls: None,
            claims: Vec::new(),
            max_packet_bytes: 1024 * 1024,
            patience: Duration::from_secs(30),
            options: BrokerOptions::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_settings_are_the_settings() {
        #[derive(Deserialize)]
        struct File {
            broker: BrokerOptions,
        }
        let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/mqtt.md");
        let text = std::fs::read_to_string(path).expect("docs/mqtt.md");
        let (_, rest) = text.split_once("```toml").expect("an example");
        let (example, _) = rest.split_once("```").expect("its end");
        let mut broker = toml::from_str::<File>(example).expect("the example is valid").broker;
        broker.resolve(Path::new("/etc/twinlake"));
        assert_eq!(broker.users.as_deref(), Some(Path::new("/etc/twinlake/mqtt-users")));
        let mut limits = broker.limits.clone();
        (limits.messages_per_second, limits.bytes_per_second) = (None, None);
        assert_eq!(limits, BrokerLimits::default(), "the other limits of the example are the defaults");
        assert!(toml::from_str::<File>("[broker]\nanonymus = true").is_err());
    }
}
