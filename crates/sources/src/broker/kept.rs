//! What a broker keeps over a restart, as records and as the state that they add up to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::types::QoS;
use serde::{Deserialize, Serialize};

use super::session::{Message, Outgoing};
use super::wire::Options;

/// One change. Applying a record twice, or one that is older than the state, changes nothing that matters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Record {
    Session {
        client: ByteString,
        expiry_s: u32,
        ended_at_us: i64,
    },
    Gone {
        client: ByteString,
    },
    Subscribed {
        client: ByteString,
        filter: ByteString,
        options: Options,
    },
    Unsubscribed {
        client: ByteString,
        filter: ByteString,
    },
    Queued {
        client: ByteString,
        number: u64,
        message: KeptOutgoing,
    },
    /// The message was delivered, or will never be.
    Done {
        client: ByteString,
        number: u64,
    },
    /// A QoS 2 publish of the client is in the log.
    Recorded {
        client: ByteString,
        packet_id: u16,
    },
    Released {
        client: ByteString,
        packet_id: u16,
    },
    Retained {
        message: Arc<Message>,
    },
    Cleared {
        topic: ByteString,
    },
}

/// A message that waits for a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptOutgoing {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) ids: Vec<NonZeroU32>,
    pub(crate) group: Option<Arc<str>>,
}

impl KeptOutgoing {
    pub(crate) fn new(outgoing: &Outgoing) -> Self {
        Self {
            message: Arc::clone(&outgoing.message),
            qos: outgoing.qos,
            retain: outgoing.retain,
            ids: outgoing.ids.clone(),
            group: outgoing.group.clone(),
        }
    }

    pub(crate) fn outgoing(&self, number: u64) -> Outgoing {
        Outgoing {
            message: Arc::clone(&self.message),
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.clone(),
            group: self.group.clone(),
            number,
        }
    }
}

/// One session of [`Kept`].
#[derive(Debug, Clone, Default)]
pub(crate) struct KeptSession {
    pub(crate) expiry_s: u32,
    pub(crate) ended_at_us: i64,
    pub(crate) subscriptions: BTreeMap<ByteString, Options>,
    pub(crate) queue: BTreeMap<u64, KeptOutgoing>,
    pub(crate) recorded: BTreeSet<u16>,
}

/// The sum of records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) sessions: HashMap<ByteString, KeptSession>,
    pub(crate) retained: BTreeMap<ByteString, Arc<Message>>,
}

impl Kept {
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Session { client, expiry_s, ended_at_us } => {
                let session = self.sessions.entry(client).or_default();
                (session.expiry_s, session.ended_at_us) = (expiry_s, ended_at_us);
            }
            Record::Gone { client } => drop(self.sessions.remove(&client)),
            Record::Subscribed { client, filter, options } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.subscriptions.insert(filter, options);
                }
            }
            Record::Unsubscribed { client, filter } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.subscriptions.remove(&filter);
                }
            }
            Record::Queued { client, number, message } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.queue.insert(number, message);
                }
            }
            Record::Done { client, number } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.queue.remove(&number);
                }
            }
            Record::Recorded { client, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.recorded.insert(packet_id);
                }
            }
            Record::Released { client, packet_id } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.recorded.remove(&packet_id);
                }
            }
            Record::Retained { message } => drop(self.retained.insert(message.topic.clone(), message)),
            Record::Cleared { topic } => drop(self.retained.remove(&topic)),
        }
    }

    /// The fewest records that add up to this state.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        let retained =
            self.retained.values().map(|message| Record::Retained { message: Arc::clone(message) });
        retained.chain(self.sessions.iter().flat_map(|(client, session)| {
            let head = Record::Session {
                client: client.clone(),
                expiry_s: session.expiry_s,
                ended_at_us: session.ended_at_us,
            };
            let subscriptions = session.subscriptions.iter().map(|(filter, options)| Record::Subscribed {
                client: client.clone(),
                filter: filter.clone(),
                options: *options,
            });
            let queue = session.queue.iter().map(|(number, message)| Record::Queued {
                client: client.clone(),
                number: *number,
                message: message.clone(),
            });
            let recorded = session
                .recorded
                .iter()
                .map(|packet_id| Record::Recorded { client: client.clone(), packet_id: *packet_id });
            std::iter::once(head).chain(subscriptions).chain(queue).chain(recorded)
        }))
    }
}
