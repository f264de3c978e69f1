//! Publishes of one connection that wait until they are safe, in the order in which they came.

use std::collections::VecDeque;

use rmqtt_codec::types::{Publish, QoS};

/// How far a publish is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// So many sources have not made it durable yet.
    Log(u32),
    /// It is in the log and routed; what the broker itself keeps of it has this number.
    State(u64),
    /// A source will not make it durable.
    Failed,
    /// The client may not publish it.
    Refused,
}

/// A publish that has no acknowledgement yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) publish: Box<Publish>,
    pub(crate) stage: Stage,
    /// Whether a source records it.
    pub(crate) recorded: bool,
}

/// Publishes in their order; each has a sequence that counts them on its connection.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pending: VecDeque<Pending>,
    /// The sequence of the first one.
    first: u64,
}

impl Window {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The sequence that the next one will have.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.pending.len() as u64
    }

    pub(crate) fn push(&mut self, pending: Pending) {
        self.pending.push_back(pending);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    pub(crate) fn get_mut(&mut self, sequence: u64) -> Option<&mut Pending> {
        self.pending.get_mut(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn front(&self) -> Option<&Pending> {
        self.pending.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.first += 1;
        if self.pending.is_empty() {
            // An idle connection keeps no buffer.
            self.pending = VecDeque::new();
        }
        Some(pending)
    }

    /// The last one was not handed over after all.
    pub(crate) fn pop_last(&mut self) -> Option<Pending> {
        self.pending.pop_back()
    }

    /// A source has spoken about a publish.
    pub(crate) fn tell(&mut self, sequence: u64, durable: bool) {
        if let Some(pending) = self.get_mut(sequence)
            && let Stage::Log(open) = pending.stage
        {
            pending.stage = if durable { Stage::Log(open.saturating_sub(1)) } else { Stage::Failed };
        }
    }

    /// The first publish from `sequence` on that is durable, together with all before it, and not yet routed.
    pub(crate) fn durable(&mut self) -> impl Iterator<Item = &mut Pending> {
        let settled = self
            .pending
            .iter_mut()
            .take_while(|pending| !matches!(pending.stage, Stage::Failed | Stage::Log(1..)));
        settled.filter(|pending| pending.stage == Stage::Log(0))
    }

    /// Whether a publish of QoS 2 waits here.
    pub(crate) fn has_exactly_once(&self) -> bool {
        self.pending.iter().any(|pending| pending.publish.qos == QoS::ExactlyOnce)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn pending(open: u32) -> Pending {
        let publish = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: "t".into(),
            packet_id: None,
            payload: Bytes::new(),
            properties: None,
        };
        Pending { publish: Box::new(publish), stage: Stage::Log(open), recorded: true }
    }

    #[test]
    fn nobody_overtakes() {
        let mut window = Window::default();
        for open in [1, 2, 0] {
            window.push(pending(open));
        }
        window.tell(1, true);
        assert_eq!(window.durable().count(), 0, "the first one waits");
        window.tell(0, true);
        assert_eq!(window.durable().count(), 1);
        window.tell(1, true);
        assert_eq!(window.durable().count(), 3);
        assert!(window.pop().is_some() && window.pop().is_some());
        assert_eq!((window.len(), window.next()), (1, 3));
        window.tell(0, false);
        window.push(pending(1));
        window.tell(3, false);
        assert_eq!(window.durable().count(), 1);
        assert_eq!(window.get_mut(3).map(|last| last.stage), Some(Stage::Failed));
    }
}
