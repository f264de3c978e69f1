//! SUBSCRIBE and UNSUBSCRIBE of a client.

use std::num::NonZeroU16;
use std::sync::atomic::Ordering;

use bytestring::ByteString;

use super::connection::Connection;
use super::subscriptions::shared;
use super::wire::{Granted, Wanted};
use crate::topic_filter::TopicFilter;

impl Connection {
    pub(super) fn subscribe(&mut self, id: NonZeroU16, wanted: &[Wanted]) {
        let granted: Vec<Granted> = wanted.iter().map(|wanted| self.grant(wanted)).collect();
        // The acknowledgement goes before the retained messages, which take the session's queue.
        self.wire.suback(id, &granted, &mut self.out);
        self.link.outgoing.store(true, Ordering::Release);
    }

    fn grant(&self, wanted: &Wanted) -> Granted {
        let Ok(filter) = TopicFilter::parse(&wanted.filter) else { return Granted::Invalid };
        let is_shared = shared(&wanted.filter).is_some();
        if wanted.filter.starts_with("$share") && !is_shared || is_shared && wanted.options.no_local {
            return Granted::Invalid;
        }
        let allowed =
            self.permissions.as_ref().is_none_or(|permissions| permissions.may_subscribe(&wanted.filter));
        if !allowed {
            tracing::debug!(client = %self.session.client(), filter = %wanted.filter, "not allowed to subscribe");
            return Granted::NotAuthorized;
        }
        self.core.subscribe(&self.session, &filter, wanted.options);
        Granted::Qos(wanted.options.qos)
    }

    pub(super) fn unsubscribe(&mut self, id: NonZeroU16, filters: &[ByteString]) {
        let existed: Vec<bool> =
            filters.iter().map(|filter| self.core.unsubscribe(&self.session, filter).0).collect();
        self.wire.unsuback(id, &existed, &mut self.out);
    }
}
