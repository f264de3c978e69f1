//! Where messages come from.

use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;

use crate::{Checkpoint, Message, Result};

/// A stream of messages. It ends when the source is exhausted; an `Err` item is a failure that the source could not
/// mend by itself (it reconnects on its own).
pub type MessageStream = Pin<Box<dyn Stream<Item = Result<Message>> + Send>>;

/// A source of messages.
///
/// Promise: every message delivered after the last one acknowledged is delivered again after a restart, by the
/// source itself (files) or by the system behind it (an MQTT broker keeps what is not acknowledged). The source
/// never acknowledges outward before [`Source::acknowledge`] names the message.
#[async_trait]
pub trait Source: Send {
    /// Connects and starts after `resume`. Ordinals go on from `resume.ordinal() + 1`. Backpressure: the stream
    /// takes nothing in while nobody polls it.
    async fn open(&mut self, resume: &Checkpoint) -> Result<MessageStream>;

    /// Everything up to and including `upto` is durable: tell the outside so.
    async fn acknowledge(&mut self, upto: &Checkpoint) -> Result<()>;

    /// Whether the stream ends by itself when the input is exhausted.
    fn bounded(&self) -> bool;
}
