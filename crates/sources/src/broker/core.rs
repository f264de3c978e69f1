//! What all connections of a broker share: sessions, subscriptions, retained messages; and the way of a message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytestring::ByteString;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::DisconnectReasonCode;
use twinlake_contracts::now_us;

use super::claims::{Claims, Offered};
use super::gate::Gate;
use super::kept::{Kept, KeptOutgoing, Record};
use super::link::Link;
use super::retained::Retained;
use super::session::{Message, Outgoing, Pushed, QueueLimits, Session};
use super::settings::BrokerLimits;
use super::state_file::StateFile;
use super::subscriptions::{Subscriber, Subscriptions, shared};
use super::wire::{Options, detached, detached_bytes};
use crate::topic_filter::TopicFilter;

/// Figures of a broker, counted where they happen.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicUsize,
    pub(crate) messages: AtomicU64,
    pub(crate) recorded: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// A will that waits for its delay.
pub(super) struct DelayedWill {
    pub(super) at_us: i64,
    pub(super) session: Arc<Session>,
    /// The session's count of connections then: another one means that the client came back.
    pub(super) connections: u32,
    pub(super) publish: Publish,
}

/// The shared part of a broker.
pub(crate) struct Core {
    pub(crate) claims: Arc<Claims>,
    pub(crate) counters: Counters,
    pub(crate) limits: BrokerLimits,
    pub(crate) gate: Gate,
    pub(crate) max_packet_bytes: u32,
    pub(crate) closing: AtomicBool,
    /// Seconds since the broker started, as of the last sweep.
    pub(crate) now_s: AtomicU32,
    pub(super) sessions: Mutex<HashMap<ByteString, Arc<Session>>>,
    pub(super) retained: RwLock<Retained>,
    pub(super) wills: Mutex<Vec<DelayedWill>>,
    subscriptions: RwLock<Subscriptions>,
    subscription_count: AtomicUsize,
    state: Option<StateFile>,
    numbers: AtomicU64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(shared: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}

/// One session that a message goes to.
struct Target {
    session: Arc<Session>,
    outgoing: Outgoing,
}

impl Core {
    pub(crate) fn new(
        claims: Arc<Claims>,
        limits: BrokerLimits,
        gate: Gate,
        max_packet_bytes: u32,
        state: Option<(StateFile, Kept)>,
    ) -> Self {
        let (state, kept) = state.map_or((None, Kept::default()), |(file, kept)| (Some(file), kept));
        let core = Self {
            claims,
            counters: Counters::default(),
            limits,
            gate,
            max_packet_bytes,
            closing: AtomicBool::new(false),
            now_s: AtomicU32::new(0),
            sessions: Mutex::default(),
            retained: RwLock::default(),
            wills: Mutex::default(),
            subscriptions: RwLock::default(),
            subscription_count: AtomicUsize::new(0),
            state,
            numbers: AtomicU64::new(1),
        };
        core.restore(kept);
        core
    }

    fn restore(&self, kept: Kept) {
        let mut most = 0;
        for message in kept.retained.into_values() {
            write(&self.retained).set(message, usize::MAX);
        }
        for (client, kept) in kept.sessions {
            let session = Arc::new(Session::new(client.clone(), kept.expiry_s));
            for (filter, options) in kept.subscriptions {
                self.place(&session, &filter, options);
            }
            for (number, message) in kept.queue {
                most = most.max(number);
                session.push(message.outgoing(number), self.queue_limits());
            }
            {
                let mut state = session.state();
                state.recorded = kept.recorded;
                // Whoever was connected when the process ended has been away since now.
                state.ended_at_us = if kept.ended_at_us > 0 { kept.ended_at_us } else { now_us() };
            }
            lock(&self.sessions).insert(client, session);
        }
        self.numbers.store(most + 1, Ordering::Relaxed);
    }

    pub(super) fn queue_limits(&self) -> QueueLimits {
        QueueLimits { messages: self.limits.queued_messages, bytes: self.limits.queued_bytes }
    }

    /// Keeps a record when there is a state file; returns the number to wait for, 0 for nothing.
    pub(crate) fn keep(&self, record: impl FnOnce() -> Record) -> u64 {
        self.state.as_ref().map_or(0, |state| state.append(record()))
    }

    /// Whether what was kept under this number is on stable storage; the link is woken when it is.
    pub(crate) fn kept(&self, number: u64, link: &Arc<Link>) -> bool {
        number == 0 || self.state.as_ref().is_none_or(|state| state.synced(number, link))
    }

    /// Whether what was kept under this number is on stable storage.
    pub(crate) fn is_kept(&self, number: u64) -> bool {
        number == 0 || self.state.as_ref().is_none_or(|state| state.is_synced(number))
    }

    fn place(&self, session: &Arc<Session>, filter: &ByteString, options: Options) -> bool {
        let mut subscriptions = write(&self.subscriptions);
        let new = subscriptions.subscribe(filter, Subscriber { session: Arc::clone(session), options });
        self.subscription_count.store(subscriptions.count(), Ordering::Release);
        let mut state = session.state();
        state.subscriptions.retain(|(known, _)| known != filter);
        state.subscriptions.push((filter.clone(), options));
        new
    }

    /// Subscribes a session and queues the retained messages that it asks for. The filter was checked. Returns the
    /// number to wait for.
    pub(crate) fn subscribe(&self, session: &Arc<Session>, filter: &TopicFilter, options: Options) -> u64 {
        let text = ByteString::from(filter.as_str().to_owned());
        let new = self.place(session, &text, options);
        let mut number = 0;
        if session.persistent() {
            let client = session.client_text();
            number = self.keep(|| Record::Subscribed { client, filter: text.clone(), options });
        }
        let wants_retained = options.retain_handling == 0 || (options.retain_handling == 1 && new);
        if wants_retained && shared(filter.as_str()).is_none() {
            let found = read(&self.retained).matching(filter);
            for message in found {
                let qos = message.qos.less_value(options.qos);
                let ids = options.id.into_iter().collect();
                let outgoing = Outgoing { message, qos, retain: true, ids, group: None, number: 0 };
                number = number.max(self.deliver(session, outgoing));
            }
        }
        number
    }

    /// Takes a subscription away; says whether it existed, and the number to wait for.
    pub(crate) fn unsubscribe(&self, session: &Arc<Session>, filter: &ByteString) -> (bool, u64) {
        let existed = {
            let mut subscriptions = write(&self.subscriptions);
            let existed = subscriptions.unsubscribe(filter, session);
            self.subscription_count.store(subscriptions.count(), Ordering::Release);
            session.state().subscriptions.retain(|(known, _)| known != filter);
            existed
        };
        let mut number = 0;
        if existed && session.persistent() {
            let (client, filter) = (session.client_text(), filter.clone());
            number = self.keep(|| Record::Unsubscribed { client, filter });
        }
        (existed, number)
    }

    /// Gives one message to one session; returns the number to wait for.
    fn deliver(&self, session: &Arc<Session>, mut outgoing: Outgoing) -> u64 {
        let mut number = 0;
        if self.state.is_some() && outgoing.qos > QoS::AtMostOnce && session.persistent() {
            // Kept before it can be sent, so that "done" never comes before "queued".
            outgoing.number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let (client, kept) = (session.client_text(), KeptOutgoing::new(&outgoing));
            number = self.keep(|| Record::Queued { client, number: outgoing.number, message: kept });
        }
        let kept = outgoing.number;
        let pushed = session.push(outgoing, self.queue_limits());
        if pushed != Pushed::Queued {
            self.done(session, kept);
        }
        if pushed == Pushed::Full {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        number
    }

    /// A kept message was delivered or will never be.
    pub(crate) fn done(&self, session: &Session, number: u64) {
        if number > 0 {
            self.keep(|| Record::Done { client: session.client_text(), number });
        }
    }

    /// Sends a message to all who subscribe to its topic, and retains it when it says so. Returns the number to wait
    /// for before its publisher may be told that it is safe.
    pub(crate) fn route(&self, publish: &Publish, publisher: Option<&Arc<Session>>) -> u64 {
        let mut made: Option<Arc<Message>> = None;
        let mut number = 0;
        if publish.retain {
            let message = Arc::clone(made.get_or_insert_with(|| message(publish)));
            // One after the other, so that the file has the same order as the table.
            let mut retained = write(&self.retained);
            if retained.set(Arc::clone(&message), self.limits.retained_messages) {
                number = self.keep(|| {
                    if message.payload.is_empty() {
                        Record::Cleared { topic: message.topic.clone() }
                    } else {
                        Record::Retained { message }
                    }
                });
            } else {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.subscription_count.load(Ordering::Acquire) == 0 {
            return number;
        }
        let mut targets: Vec<Target> = Vec::new();
        read(&self.subscriptions).matching(&publish.topic, |subscriber, group| {
            let own = publisher.is_some_and(|publisher| Arc::ptr_eq(publisher, &subscriber.session));
            if own && subscriber.options.no_local {
                return;
            }
            let qos = publish.qos.less_value(subscriber.options.qos);
            let retain = publish.retain && subscriber.options.retain_as_published;
            let same = |target: &&mut Target| {
                target.outgoing.group.is_none() && Arc::ptr_eq(&target.session, &subscriber.session)
            };
            // Subscriptions of one session that overlap give one message, with the best quality and all identifiers.
            if group.is_none()
                && let Some(target) = targets.iter_mut().find(same)
            {
                target.outgoing.qos = target.outgoing.qos.max(qos);
                target.outgoing.retain |= retain;
                target.outgoing.ids.extend(subscriber.options.id);
                return;
            }
            let message = Arc::clone(made.get_or_insert_with(|| message(publish)));
            let ids = subscriber.options.id.into_iter().collect();
            let group = group.map(Arc::from);
            let outgoing = Outgoing { message, qos, retain, ids, group, number: 0 };
            targets.push(Target { session: Arc::clone(&subscriber.session), outgoing });
        });
        for target in targets {
            number = number.max(self.deliver(&target.session, target.outgoing));
        }
        number
    }

    /// Ends a session: its subscriptions go, what a group's member has not acknowledged goes to another member.
    pub(super) fn end_session(&self, session: &Arc<Session>) {
        self.take_off(&mut lock(&self.sessions), session);
        let subscriptions = {
            let mut state = session.state();
            state.gone = true;
            std::mem::take(&mut state.subscriptions)
        };
        let mut table = write(&self.subscriptions);
        for (filter, _) in &subscriptions {
            table.unsubscribe(filter, session);
        }
        self.subscription_count.store(table.count(), Ordering::Release);
        let mut left = Vec::new();
        for outgoing in session.leave_to_groups() {
            let member = outgoing.group.as_deref().and_then(|group| {
                let filters = subscriptions.iter().filter_map(|(filter, _)| shared(filter));
                let mut filters = filters.filter(|(name, _)| *name == group).map(|(_, filter)| filter);
                filters.find_map(|filter| table.member(group, filter))
            });
            left.extend(member.map(|member| (member, outgoing)));
        }
        drop(table);
        for (member, mut outgoing) in left {
            outgoing.qos = outgoing.message.qos.less_value(member.options.qos);
            outgoing.number = 0;
            self.deliver(&member.session, outgoing);
        }
    }

    /// Takes a session off the table, if it is still the one of its client.
    pub(super) fn take_off(&self, sessions: &mut HashMap<ByteString, Arc<Session>>, session: &Arc<Session>) {
        if sessions.get(session.client()).is_some_and(|known| Arc::ptr_eq(known, session)) {
            sessions.remove(session.client());
            // Recorded while the table is held, so that a successor's record comes after it.
            if session.persistent() {
                self.keep(|| Record::Gone { client: session.client_text() });
            }
        }
    }

    /// Publishes a will: to the sources, without waiting for durability, and to subscribers.
    pub(super) fn publish_will(self: &Arc<Self>, publish: Publish) {
        self.counters.messages.fetch_add(1, Ordering::Relaxed);
        match self.claims.offer(&publish, || None) {
            Offered::Taken(taken) => {
                self.counters.recorded.fetch_add(u64::from(taken > 0), Ordering::Relaxed);
                self.route(&publish, None);
            }
            Offered::Waiting { left, .. } => {
                let core = Arc::clone(self);
                tokio::spawn(async move {
                    // Nobody is there any more to be refused; the counter shows a will that was not recorded.
                    let outcome = core.claims.wait(left, &publish, || None).await;
                    let counter =
                        if outcome.is_ok() { &core.counters.recorded } else { &core.counters.refused };
                    counter.fetch_add(1, Ordering::Relaxed);
                    core.route(&publish, None);
                });
            }
        }
    }

    /// Writes what is left of the state and gives its folder free.
    pub(crate) fn close_state(&self) {
        if let Some(state) = &self.state {
            state.close();
        }
    }

    /// A client identifier for a client that has none.
    pub(crate) fn new_client(&self) -> ByteString {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        format!("auto-{:x}-{number:x}", now_us()).into()
    }

    /// Ends every connection.
    pub(crate) fn end_connections(&self) {
        for session in lock(&self.sessions).values() {
            if let Some(link) = &session.state().link {
                link.end(DisconnectReasonCode::ServerShuttingDown);
            }
        }
    }
}

fn message(publish: &Publish) -> Arc<Message> {
    let mut properties = publish.properties.clone();
    let mut expires_at_us = None;
    if let Some(properties) = &mut properties {
        properties.topic_alias = None;
        properties.subscription_ids = Vec::new();
        let expiry = properties.message_expiry_interval.take();
        expires_at_us = expiry.map(|seconds| now_us() + i64::from(seconds.get()) * 1_000_000);
        properties.content_type = properties.content_type.as_ref().map(detached);
        properties.response_topic = properties.response_topic.as_ref().map(detached);
        properties.correlation_data = properties.correlation_data.as_ref().map(detached_bytes);
        for (name, value) in &mut properties.user_properties {
            (*name, *value) = (detached(name), detached(value));
        }
    }
    Arc::new(Message {
        topic: detached(&publish.topic),
        payload: detached_bytes(&publish.payload),
        properties,
        qos: publish.qos,
        expires_at_us,
    })
}
