//! The tree of subscriptions: which sessions want a topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::session::Session;
use super::wire::Options;

/// A subscription of one session.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) session: Arc<Session>,
    pub(crate) options: Options,
}

/// The members of one shared subscription.
#[derive(Default)]
struct Group {
    members: Vec<Subscriber>,
    turn: AtomicUsize,
}

impl Group {
    /// The next member in turn that can take a message now; when none can, the next in turn that keeps it.
    fn choose(&self) -> Option<&Subscriber> {
        let count = self.members.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..count).map(|step| &self.members[first.wrapping_add(step) % count]);
        in_turn()
            .find(|member| member.session.has_room())
            .or_else(|| in_turn().find(|member| member.session.connected()))
            .or_else(|| in_turn().next())
    }
}

/// The subscriptions that end at one node.
#[derive(Default)]
struct Ends {
    plain: Vec<Subscriber>,
    shared: HashMap<Box<str>, Group>,
}

impl Ends {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.shared.is_empty()
    }

    fn visit(&self, found: &mut impl FnMut(&Subscriber, Option<&str>)) {
        for subscriber in &self.plain {
            found(subscriber, None);
        }
        for (name, group) in &self.shared {
            if let Some(member) = group.choose() {
                found(member, Some(name));
            }
        }
    }
}

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    /// The child that stands for any one level.
    any: Option<Box<Node>>,
    here: Ends,
    /// Filters that go on with `#`.
    rest: Ends,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    fn visit<'t>(
        &self,
        mut levels: impl Iterator<Item = &'t str> + Clone,
        wildcards: bool,
        found: &mut impl FnMut(&Subscriber, Option<&str>),
    ) {
        if wildcards {
            self.rest.visit(found);
        }
        let Some(level) = levels.next() else {
            self.here.visit(found);
            return;
        };
        if let Some(child) = self.children.get(level) {
            child.visit(levels.clone(), true, found);
        }
        if wildcards && let Some(any) = &self.any {
            any.visit(levels, true, found);
        }
    }

    /// The place of a filter, made when it does not exist.
    fn place(&mut self, filter: &str) -> &mut Ends {
        let mut node = self;
        for level in filter.split('/') {
            match level {
                "#" => return &mut node.rest,
                "+" => node = node.any.get_or_insert_with(Box::default),
                _ => node = node.children.entry(level.into()).or_default(),
            }
        }
        &mut node.here
    }

    /// Lets `change` work on the place of a filter, and drops the nodes that are empty then.
    fn prune<'t>(
        &mut self,
        mut levels: impl Iterator<Item = &'t str>,
        change: &mut impl FnMut(&mut Ends) -> bool,
    ) -> bool {
        match levels.next() {
            None => change(&mut self.here),
            Some("#") => change(&mut self.rest),
            Some("+") => {
                let Some(any) = &mut self.any else { return false };
                let changed = any.prune(levels, change);
                if any.is_empty() {
                    self.any = None;
                }
                changed
            }
            Some(level) => {
                let Some(child) = self.children.get_mut(level) else { return false };
                let changed = child.prune(levels, change);
                if child.is_empty() {
                    self.children.remove(level);
                }
                changed
            }
        }
    }
}

/// The group and the filter proper of `$share/group/filter`.
pub(crate) fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// All subscriptions of a broker.
#[derive(Default)]
pub(crate) struct Subscriptions {
    root: Node,
    count: usize,
}

impl Subscriptions {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Adds a subscription or changes its options; says whether it is new.
    pub(crate) fn subscribe(&mut self, filter: &str, subscriber: Subscriber) -> bool {
        let list = match shared(filter) {
            Some((group, filter)) => {
                &mut self.root.place(filter).shared.entry(group.into()).or_default().members
            }
            None => &mut self.root.place(filter).plain,
        };
        let known = list.iter_mut().find(|known| Arc::ptr_eq(&known.session, &subscriber.session));
        if let Some(known) = known {
            known.options = subscriber.options;
            return false;
        }
        list.push(subscriber);
        self.count += 1;
        true
    }

    /// Takes a subscription away; says whether it existed.
    pub(crate) fn unsubscribe(&mut self, filter: &str, session: &Arc<Session>) -> bool {
        let leave = |list: &mut Vec<Subscriber>| {
            let before = list.len();
            list.retain(|known| !Arc::ptr_eq(&known.session, session));
            list.len() < before
        };
        let gone = match shared(filter) {
            Some((group, filter)) => self.root.prune(filter.split('/'), &mut |ends| {
                let Some(members) = ends.shared.get_mut(group) else { return false };
                let gone = leave(&mut members.members);
                if members.members.is_empty() {
                    ends.shared.remove(group);
                }
                gone
            }),
            None => self.root.prune(filter.split('/'), &mut |ends| leave(&mut ends.plain)),
        };
        self.count -= usize::from(gone);
        gone
    }

    /// Every subscriber that a message on `topic` goes to; of each group one, with the group's name.
    pub(crate) fn matching(&self, topic: &str, mut found: impl FnMut(&Subscriber, Option<&str>)) {
        // Topics that start with `$` are taken only by a filter that names that level.
        self.root.visit(topic.split('/'), !topic.starts_with('$'), &mut found);
    }

    /// Another member of a group, for a message that a member left behind.
    pub(crate) fn member(&mut self, group: &str, filter: &str) -> Option<Subscriber> {
        let mut chosen = None;
        self.root.prune(filter.split('/'), &mut |ends| {
            chosen = ends.shared.get(group).and_then(Group::choose).cloned();
            false
        });
        chosen
    }
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::types::QoS;

    use super::*;
    use crate::topic_filter::TopicFilter;

    const OPTIONS: Options = Options {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        id: None,
    };

    fn found(subscriptions: &Subscriptions, topic: &str) -> Vec<String> {
        let mut names = Vec::new();
        subscriptions.matching(topic, |subscriber, _| names.push(subscriber.session.client().to_owned()));
        names.sort();
        names
    }

    #[test]
    fn the_tree_agrees_with_the_filters_one_by_one() {
        let filters = ["#", "a/#", "a/+", "+/b", "a/b", "a", "+", "/+", "$SYS/#", "+/+/#", "a//b", "a/+/c"];
        let topics = ["a", "a/b", "a/b/c", "/a", "a/", "$SYS/x", "$SYS", "b", "a//b", "", "a/x/c", "x/b"];
        let mut tree = Subscriptions::default();
        let sessions: Vec<_> = filters.iter().map(|filter| Session::named(filter)).collect();
        for (filter, session) in filters.iter().zip(&sessions) {
            let subscriber = Subscriber { session: Arc::clone(session), options: OPTIONS };
            assert!(tree.subscribe(filter, subscriber.clone()));
            assert!(!tree.subscribe(filter, subscriber), "known already");
        }
        for topic in topics {
            let mut expected: Vec<_> = filters
                .iter()
                .filter(|filter| TopicFilter::parse(filter).expect("filter").matches(topic))
                .map(ToString::to_string)
                .collect();
            expected.sort();
            assert_eq!(found(&tree, topic), expected, "{topic}");
        }
        for (filter, session) in filters.iter().zip(&sessions) {
            assert!(tree.unsubscribe(filter, session));
            assert!(!tree.unsubscribe(filter, session));
        }
        assert!(tree.count() == 0 && tree.root.is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_group_gives_each_message_to_one_member_in_turn() {
        let mut tree = Subscriptions::default();
        let members = ["one", "two", "three"].map(Session::named);
        for session in &members {
            tree.subscribe("$share/g/a/+", Subscriber { session: Arc::clone(session), options: OPTIONS });
        }
        let mut all: Vec<_> = (0..6).flat_map(|_| found(&tree, "a/b")).collect();
        all.sort();
        assert_eq!(all, ["one", "one", "three", "three", "two", "two"]);
        for session in &members {
            assert!(tree.unsubscribe("$share/g/a/+", session));
        }
        assert!(tree.root.is_empty());
    }
}
