//! Connections take and leave their sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytestring::ByteString;
use rmqtt_codec::v5::DisconnectReasonCode;
use twinlake_contracts::now_us;

use super::core::{Core, DelayedWill, lock};
use super::kept::Record;
use super::link::Link;
use super::session::{Session, Will};

impl Core {
    /// Gives the session of a client to a connection, and says whether it existed. Another connection of the same
    /// client is ended first; its QoS 2 publishes that are on their way to the log are waited for, so that a repeat of
    /// them is recognised. `None` when that takes too long.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        client: &ByteString,
        clean_start: bool,
        expiry_s: u32,
        will: Option<Box<Will>>,
        link: &Arc<Link>,
    ) -> Option<(Arc<Session>, bool)> {
        let patience = Duration::from_secs(u64::from(self.limits.connect_timeout_s));
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let mut ended = None;
            let found = {
                let mut sessions = lock(&self.sessions);
                let found = sessions.get(client).cloned();
                match found {
                    None => {
                        let session = Arc::new(Session::new(client.clone(), expiry_s));
                        self.own(&session, expiry_s, will, link);
                        sessions.insert(client.clone(), Arc::clone(&session));
                        return Some((session, false));
                    }
                    Some(session) => {
                        let state = session.state();
                        if let Some(other) = &state.link {
                            other.end(DisconnectReasonCode::SessionTakenOver);
                        }
                        if clean_start || (state.expiry_s == 0 && state.link.is_some()) || state.gone {
                            drop(state);
                            self.take_off(&mut sessions, &session);
                            ended = Some(Arc::clone(&session));
                        } else if state.link.is_none() {
                            drop(state);
                            self.own(&session, expiry_s, will, link);
                            return Some((session, true));
                        } else {
                            drop(state);
                        }
                        session
                    }
                }
            };
            if let Some(session) = ended {
                self.end_session(&session);
                continue;
            }
            let freed = found.freed.notified();
            // It may have been let go between the look above and this registration.
            if found.connected() && tokio::time::timeout_at(deadline, freed).await.is_err() {
                return None;
            }
        }
    }

    fn own(&self, session: &Arc<Session>, expiry_s: u32, will: Option<Box<Will>>, link: &Arc<Link>) {
        {
            let mut state = session.state();
            state.link = Some(Arc::clone(link));
            state.will = will;
            state.expiry_s = expiry_s;
            state.ended_at_us = 0;
            state.connections = state.connections.wrapping_add(1);
        }
        self.keep_session(session);
    }

    fn keep_session(&self, session: &Session) {
        let (expiry_s, ended_at_us) = {
            let state = session.state();
            (state.expiry_s, state.ended_at_us)
        };
        if expiry_s > 0 {
            self.keep(|| Record::Session { client: session.client_text(), expiry_s, ended_at_us });
        }
    }

    /// A connection lets go of its session. `with_will`: the client did not take its leave.
    pub(crate) fn leave(self: &Arc<Self>, session: &Arc<Session>, link: &Arc<Link>, with_will: bool) {
        let (will, expiry_s, connections) = {
            let mut state = session.state();
            if !state.link.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, link)) {
                return;
            }
            state.link = None;
            state.ended_at_us = now_us();
            let will = state.will.take().filter(|_| with_will);
            // A session that was replaced is over whatever its expiry says.
            (will, if state.gone { 0 } else { state.expiry_s }, state.connections)
        };
        if let Some(will) = will {
            let delay_s = will.delay_s.min(expiry_s);
            if delay_s == 0 {
                self.publish_will(will.publish);
            } else {
                let at_us = now_us() + i64::from(delay_s) * 1_000_000;
                let session = Arc::clone(session);
                let publish = will.publish;
                lock(&self.wills).push(DelayedWill { at_us, session, connections, publish });
            }
        }
        if expiry_s == 0 {
            self.end_session(session);
        } else {
            self.keep_session(session);
        }
        session.freed.notify_waiters();
    }

    /// A DISCONNECT may change how long the session is kept.
    pub(crate) fn change_expiry(&self, session: &Session, expiry_s: u32) {
        let expiry_s = expiry_s.min(self.limits.session_expiry_s);
        let before = std::mem::replace(&mut session.state().expiry_s, expiry_s);
        if before > 0 && expiry_s == 0 {
            self.keep(|| Record::Gone { client: session.client_text() });
        }
    }

    /// What time alone brings about: silent clients, delayed wills, sessions and messages that expire. Once a second.
    pub(crate) fn sweep(self: &Arc<Self>, now_s: u32) {
        self.now_s.store(now_s, Ordering::Relaxed);
        let now = now_us();
        let mut over = Vec::new();
        for session in lock(&self.sessions).values() {
            let state = session.state();
            if let Some(link) = &state.link {
                let silent_s = now_s.saturating_sub(link.heard_s.load(Ordering::Relaxed));
                let overdue = link.patience_s > 0 && silent_s > link.patience_s;
                if overdue && !link.held.load(Ordering::Relaxed) {
                    link.end(DisconnectReasonCode::KeepAliveTimeout);
                }
            } else {
                let until = state.ended_at_us.saturating_add(i64::from(state.expiry_s) * 1_000_000);
                if state.expiry_s < u32::MAX && until < now {
                    over.push(Arc::clone(session));
                }
            }
        }
        for session in over {
            if !session.connected() {
                self.end_session(&session);
            }
        }
        let mut due = Vec::new();
        lock(&self.wills).retain_mut(|will| {
            let state = will.session.state();
            let came_back = state.connections != will.connections && !state.gone;
            // The end of the session publishes a will that still waits.
            let is_due = will.at_us <= now || state.gone;
            if is_due && !came_back {
                due.push(will.publish.clone());
            }
            !(is_due || came_back)
        });
        for publish in due {
            self.publish_will(publish);
        }
        if now_s.is_multiple_of(60) {
            let topics = super::core::write(&self.retained).expire();
            for topic in topics {
                self.keep(|| Record::Cleared { topic });
            }
        }
    }
}
