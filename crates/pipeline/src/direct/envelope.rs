//! A delivery as a message of the log, and back. All that its rows depend on is in the message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{BodyFormat, Error, Message, Position, Result};

use super::keys::fingerprint;

/// What goes with a body, in the token of its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Envelope {
    #[serde(flatten)]
    pub format: BodyFormat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Envelope {
    /// The message without its ordinal.
    pub fn message(&self, body: Bytes, received_at_us: i64) -> Result<Message> {
        let token = serde_json::to_string(self).map_err(Error::internal)?;
        let origin = self.origin().into();
        Ok(Message { payload: body, origin, position: Position { ordinal: 0, token }, received_at_us })
    }

    pub fn of(message: &Message) -> Result<Self> {
        serde_json::from_str(&message.position.token)
            .map_err(|error| Error::data("unknown_format", format!("a body of another release: {error}")))
    }

    /// A fingerprint of a body with its format; 0 without a key, which is all that it is for.
    pub fn fingerprint(&self, body: &[u8]) -> u64 {
        if self.key.is_none() {
            return 0;
        }
        let format = serde_json::to_vec(&self.format).unwrap_or_default();
        fingerprint(&[&format, body])
    }

    /// Where the body came in, in words.
    fn origin(&self) -> String {
        match &self.format {
            BodyFormat::LineProtocol { database, .. } => format!("line_protocol/{database}"),
            BodyFormat::JsonRows { table } => format!("json/{table}"),
            BodyFormat::ArrowStream { table } => format!("arrow/{table}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use twinlake_contracts::{Precision, TableName};

    use super::*;

    #[test]
    fn comes_back_from_the_log() {
        let table = TableName::parse("a.b").unwrap();
        for (format, origin) in [
            (
                BodyFormat::LineProtocol { database: "my \"db\"".into(), precision: Precision::Milliseconds },
                "line_protocol/my \"db\"",
            ),
            (BodyFormat::JsonRows { table: table.clone() }, "json/a.b"),
            (BodyFormat::ArrowStream { table }, "arrow/a.b"),
        ] {
            let envelope = Envelope { format, key: Some("k".into()) };
            let message = envelope.message(Bytes::from_static(b"x"), 7).unwrap();
            assert_eq!(&*message.origin, origin);
            assert_eq!(Envelope::of(&message).unwrap(), envelope);
        }
    }
}
