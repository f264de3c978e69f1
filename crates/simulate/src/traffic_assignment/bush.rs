//! A bush: all routes that the trips of one class of users from one origin use, as an acyclic graph with a flow on each link.
//!
//! Dial, R. B. (2006), *A path-based user-equilibrium traffic assignment algorithm that obviates path storage and
//! enumeration*, Transportation Research Part B 40(10), 917–936 (Algorithm B). Two steps take turns:
//! - [`Bush::shift_flow`] moves flow from the longest used to the shortest route between the node where they part and
//!   the node where they meet, by a Newton step on their difference in cost;
//! - [`Bush::improve`] drops the links without flow and takes in those that shorten a route. A link from `i` to `j` may
//!   enter if the longest route to `i` plus its cost is below the longest route to `j`; along each link of the new bush
//!   that label does not fall, and along each new link it grows, so that no cycle can arise (Nie, Y. 2010, *A class of
//!   bush-based algorithms for the traffic assignment problem*, Transportation Research Part B 44(1), 73–89).
//!
//! A bush spans every node that the origin reaches. Its nodes are stored in topological order and each node's incoming
//! links side by side, so that labels are computed in one walk over contiguous arrays.

use twinlake_contracts::{Error, Result};

use super::input::OriginDemand;
use super::link_states::LinkStates;
use super::network::Network;
use super::shortest_path::{NO_LINK, ShortestPaths};

/// Positions are places in `nodes`; entries are places in `tail`, `link` and `flow`. The incoming links of the node at
/// position `k` are the entries `first_in[k]..first_in[k + 1]`.
#[derive(Default)]
pub(crate) struct Bush {
    class: usize,
    nodes: Vec<u32>,
    first_in: Vec<u32>,
    tail: Vec<u32>,
    link: Vec<u32>,
    flow: Vec<f64>,
    /// The positions where more than one link arrives, in order.
    merges: Vec<u32>,
}

/// Reusable memory of [`Bush::shift_flow`].
#[derive(Default)]
pub(crate) struct ShiftScratch {
    /// By position.
    labels: Vec<Label>,
    from_longer: Vec<Step>,
    to_shorter: Vec<Step>,
}

/// The shortest and the longest used route from the origin to a node, and the entries by which they arrive.
struct Label {
    shortest: f64,
    longest: f64,
    shortest_in: u32,
    longest_in: u32,
}

/// A link on one of the two routes between which flow is shifted, with its flows before the shift.
struct Step {
    entry: u32,
    link: u32,
    bush_flow: f64,
    link_flow: f64,
}

/// Reusable memory of [`Bush::load_tree`] and [`Bush::improve`], indexed by node or link.
pub(crate) struct ImproveScratch {
    pub(crate) paths: ShortestPaths,
    throughput: Vec<f64>,
    shortest: Vec<f64>,
    longest: Vec<f64>,
    incoming: Vec<u32>,
    position: Vec<u32>,
    /// Flow of the links of the new bush; negative for links outside it.
    flow: Vec<f64>,
    inside: Vec<u32>,
}

impl ImproveScratch {
    pub(crate) fn new(network: &Network) -> Self {
        Self {
            paths: ShortestPaths::new(network),
            throughput: vec![0.0; network.nodes()],
            shortest: vec![f64::INFINITY; network.nodes()],
            longest: vec![f64::INFINITY; network.nodes()],
            incoming: vec![0; network.nodes()],
            position: vec![0; network.nodes()],
            flow: vec![OUTSIDE; network.links()],
            inside: Vec::new(),
        }
    }
}

const OUTSIDE: f64 = -1.0;
const NO_ENTRY: u32 = u32::MAX;
/// A flow below this part of the origin's trips is rounding error: it goes to the other links of its node.
const NEGLIGIBLE_SHARE: f64 = 1e-14;
/// Newton steps of one shift. Near the equilibrium one is enough; where the cost rises infinitely steeply at flow 0, the
/// bracket is halved down to the tiny flow that belongs there.
const SHIFT_STEPS: usize = 60;
/// A shift may leave this part of the difference in cost: the next sweep sees changed costs anyway.
const SHIFT_PRECISION: f64 = 0.1;

impl Bush {
    /// The shortest-path tree with all trips on it. `scratch.paths` holds the tree; every destination is reachable.
    pub(crate) fn load_tree(
        network: &Network,
        demand: &OriginDemand,
        scratch: &mut ImproveScratch,
    ) -> Result<Self> {
        // A bush of all reachable nodes without links: reloading it puts every trip on the tree.
        let mut bush = Self { class: demand.class, nodes: scratch.paths.order.clone(), ..Self::default() };
        bush.first_in.resize(bush.nodes.len() + 1, 0);
        bush.reload(network, demand, scratch);
        bush.rebuild(network, demand.origin, scratch)?;
        Ok(bush)
    }

    /// Puts this bush's flows on the links, on top of what is there.
    pub(crate) fn load_onto(&self, links: &mut LinkStates) {
        for (&link, &flow) in self.link.iter().zip(&self.flow) {
            if flow > 0.0 {
                links.set_flow(link as usize, links.flow[link as usize] + flow);
            }
        }
    }

    /// Whose trips these are: a place in the list of user classes.
    pub(crate) fn class(&self) -> usize {
        self.class
    }

    /// The flow of every entry; keeps its meaning until the bush is renewed.
    pub(crate) fn flows(&self) -> &[f64] {
        &self.flow
    }

    /// The link of every entry.
    pub(crate) fn links(&self) -> &[u32] {
        &self.link
    }

    /// Goes on by `stretch` times the way from `before` to the present flows; none becomes negative.
    pub(crate) fn go_on(&mut self, before: &[f64], stretch: f64) {
        for (flow, before) in self.flow.iter_mut().zip(before) {
            *flow = (*flow + stretch * (*flow - before)).max(0.0);
        }
    }

    /// Adds this bush's flows to those of the links, by link.
    pub(crate) fn add_flows_to(&self, link_flow: &mut [f64]) {
        for (&link, &flow) in self.link.iter().zip(&self.flow) {
            link_flow[link as usize] += flow;
        }
    }

    /// Shifts flow once at every node, from the farthest back to the origin, where longest and shortest route differ
    /// by more than `tolerance` of the shortest. Returns the excess cost within the bush that it found: `Σ flow ·
    /// (shortest cost to tail + cost − shortest cost to head)`.
    pub(crate) fn shift_flow(
        &mut self,
        links: &mut LinkStates,
        scratch: &mut ShiftScratch,
        tolerance: f64,
    ) -> f64 {
        let excess = self.label(links, scratch);
        for place in (0..self.merges.len()).rev() {
            let position = self.merges[place] as usize;
            let label = &scratch.labels[position];
            if label.longest_in != NO_ENTRY
                && label.longest_in != label.shortest_in
                && label.longest - label.shortest > tolerance * label.shortest
            {
                self.collect_routes(links, scratch, position);
                self.equalise(links, &scratch.from_longer, &scratch.to_shorter);
            }
        }
        excess
    }

    /// Labels every position with its shortest route and its longest route over links that carry flow.
    fn label(&self, links: &LinkStates, scratch: &mut ShiftScratch) -> f64 {
        let labels = &mut scratch.labels;
        labels.clear();
        labels.push(Label { shortest: 0.0, longest: 0.0, shortest_in: NO_ENTRY, longest_in: NO_ENTRY });
        let link_cost = links.cost[self.class].as_slice();
        let mut excess = 0.0;
        for bounds in self.first_in[1..].windows(2) {
            let entries = bounds[0] as usize..bounds[1] as usize;
            let mut label = Label {
                shortest: f64::INFINITY,
                longest: f64::NEG_INFINITY,
                shortest_in: NO_ENTRY,
                longest_in: NO_ENTRY,
            };
            let (mut flow_in, mut cost_in) = (0.0, 0.0);
            let into = self.tail[entries.clone()].iter().zip(&self.link[entries.clone()]);
            for ((&tail, &link), (&flow, entry)) in
                into.zip(self.flow[entries.clone()].iter().zip(bounds[0]..))
            {
                let (before, cost) = (&labels[tail as usize], link_cost[link as usize]);
                let short = before.shortest + cost;
                if short < label.shortest {
                    (label.shortest, label.shortest_in) = (short, entry);
                }
                if flow > 0.0 {
                    flow_in += flow;
                    cost_in += flow * short;
                    let long = before.longest + cost;
                    if long > label.longest {
                        (label.longest, label.longest_in) = (long, entry);
                    }
                }
            }
            excess += (cost_in - flow_in * label.shortest).max(0.0);
            labels.push(label);
        }
        excess
    }

    /// Walks both routes back from `position` to where they part. A tail's position is below its head's, so stepping
    /// back on whichever route is farther from the origin meets the first common node.
    fn collect_routes(&self, links: &LinkStates, scratch: &mut ShiftScratch, position: usize) {
        scratch.from_longer.clear();
        scratch.to_shorter.clear();
        let step = |entry: u32| {
            let link = self.link[entry as usize];
            Step { entry, link, bush_flow: self.flow[entry as usize], link_flow: links.flow[link as usize] }
        };
        let (mut longer, mut shorter) = (position, position);
        loop {
            if longer >= shorter {
                let entry = scratch.labels[longer].longest_in;
                scratch.from_longer.push(step(entry));
                longer = self.tail[entry as usize] as usize;
            } else {
                let entry = scratch.labels[shorter].shortest_in;
                scratch.to_shorter.push(step(entry));
                shorter = self.tail[entry as usize] as usize;
            }
            if longer == shorter {
                return;
            }
        }
    }

    /// Shifts flow between two routes until their costs are nearly equal or the longer one has none left: Newton's
    /// method, kept within a bracket since the slope may be 0 or infinite at flow 0.
    fn equalise(&mut self, links: &mut LinkStates, from_longer: &[Step], to_shorter: &[Step]) {
        let room = from_longer.iter().map(|step| step.bush_flow).fold(f64::INFINITY, f64::min);
        let sum = |values: &[f64], steps: &[Step]| -> f64 {
            steps.iter().map(|step| values[step.link as usize]).sum()
        };
        let initial = sum(&links.cost[self.class], from_longer) - sum(&links.cost[self.class], to_shorter);
        if room <= 0.0 || initial <= 0.0 {
            return;
        }
        let (mut low, mut high) = (0.0, room);
        let (mut moved, mut difference) = (0.0, initial);
        for _ in 0..SHIFT_STEPS {
            let slope = sum(&links.slope, from_longer) + sum(&links.slope, to_shorter);
            let newton = moved + difference / slope;
            moved = if newton >= room && high == room {
                room
            } else if newton > low && newton < high {
                newton
            } else {
                0.5 * (low + high)
            };
            for step in from_longer {
                self.flow[step.entry as usize] = step.bush_flow - moved;
                links.set_flow(step.link as usize, (step.link_flow - moved).max(0.0));
            }
            for step in to_shorter {
                self.flow[step.entry as usize] = step.bush_flow + moved;
                links.set_flow(step.link as usize, step.link_flow + moved);
            }
            difference = sum(&links.cost[self.class], from_longer) - sum(&links.cost[self.class], to_shorter);
            if difference > 0.0 {
                low = moved;
            } else {
                high = moved;
            }
            if difference.abs() <= SHIFT_PRECISION * initial || low == room {
                break;
            }
        }
    }

    /// Renews the set of links. `scratch.paths` must hold the shortest paths at `link_cost`; returns the excess cost of
    /// this origin's trips over them, `Σ flow · (cost to tail + cost − cost to head)`, in which every term is exact to
    /// rounding and none is negative.
    pub(crate) fn improve(
        &mut self,
        network: &Network,
        demand: &OriginDemand,
        link_cost: &[f64],
        scratch: &mut ImproveScratch,
    ) -> Result<f64> {
        let mut excess = 0.0;
        for (&link, &flow) in self.link.iter().zip(&self.flow) {
            let (link, cost) = (link as usize, &scratch.paths.cost);
            let over =
                cost[network.tail(link) as usize] + link_cost[link] - cost[network.head(link) as usize];
            excess += flow * over.max(0.0);
        }
        self.reload(network, demand, scratch);
        self.relabel(network, link_cost, scratch);
        Self::take_in_shortcuts(network, demand.origin, link_cost, scratch);
        self.rebuild(network, demand.origin, scratch)?;
        Ok(excess)
    }

    /// Sends the trips back over the used links in the proportions that they have, which removes the rounding errors
    /// of many shifts, and hangs the nodes that nobody passes on the shortest-path tree.
    fn reload(&self, network: &Network, demand: &OriginDemand, scratch: &mut ImproveScratch) {
        scratch.set_throughput(&self.nodes, demand);
        let trips: f64 = demand.destinations.iter().map(|(_, flow)| flow).sum();
        let least = NEGLIGIBLE_SHARE * trips;
        for position in (1..self.nodes.len()).rev() {
            let node = self.nodes[position] as usize;
            let throughput = scratch.throughput[node];
            let entries = self.first_in[position] as usize..self.first_in[position + 1] as usize;
            if throughput == 0.0 || entries.is_empty() {
                scratch.send_back(network, scratch.paths.last_link[node], throughput);
                continue;
            }
            let kept: f64 = self.flow[entries.clone()].iter().filter(|flow| **flow > least).sum();
            if kept > 0.0 {
                for entry in entries {
                    let flow = self.flow[entry];
                    if flow > least {
                        scratch.send_back(network, self.link[entry], throughput * (flow / kept));
                    }
                }
            } else {
                // Only rounding errors came in: all of it takes the best of the bush's own links.
                let cost_of =
                    |entry: &usize| scratch.paths.cost[self.nodes[self.tail[*entry] as usize] as usize];
                let best = entries.min_by(|one, other| cost_of(one).total_cmp(&cost_of(other)));
                if let Some(entry) = best {
                    scratch.send_back(network, self.link[entry], throughput);
                }
            }
        }
    }

    /// Shortest and longest route to every node over the links taken in so far. Nodes with flow come first, in the old
    /// order, since their links are old ones; the others follow in the order of the shortest-path tree.
    fn relabel(&self, network: &Network, link_cost: &[f64], scratch: &mut ImproveScratch) {
        for &node in &self.nodes {
            scratch.shortest[node as usize] = f64::INFINITY;
            scratch.longest[node as usize] = f64::NEG_INFINITY;
        }
        let origin = self.nodes[0] as usize;
        (scratch.shortest[origin], scratch.longest[origin]) = (0.0, 0.0);
        for (position, &node) in self.nodes.iter().enumerate().skip(1) {
            if scratch.throughput[node as usize] == 0.0 {
                continue;
            }
            for entry in self.first_in[position] as usize..self.first_in[position + 1] as usize {
                if scratch.flow[self.link[entry] as usize] >= 0.0 {
                    scratch.label_over(network, self.link[entry], link_cost);
                }
            }
        }
        for place in 1..scratch.paths.order.len() {
            let node = scratch.paths.order[place] as usize;
            if scratch.throughput[node] == 0.0 {
                scratch.label_over(network, scratch.paths.last_link[node], link_cost);
            }
        }
    }

    fn take_in_shortcuts(network: &Network, origin: u32, link_cost: &[f64], scratch: &mut ImproveScratch) {
        for place in 0..scratch.paths.order.len() {
            let tail = scratch.paths.order[place];
            let (shortest, longest) = (scratch.shortest[tail as usize], scratch.longest[tail as usize]);
            for link in network.way_out(tail, origin) {
                let head = network.head(link) as usize;
                if shortest + link_cost[link] < scratch.shortest[head]
                    && longest + link_cost[link] < scratch.longest[head]
                    && scratch.flow[link] < 0.0
                {
                    scratch.take_in(link as u32, 0.0);
                }
            }
        }
    }

    /// Sorts the links taken in topologically (Kahn 1962) and stores them as this bush; `scratch` is left clean.
    fn rebuild(&mut self, network: &Network, origin: u32, scratch: &mut ImproveScratch) -> Result<()> {
        for &node in &scratch.paths.order {
            scratch.incoming[node as usize] = 0;
        }
        for &link in &scratch.inside {
            scratch.incoming[network.head(link as usize) as usize] += 1;
        }
        self.nodes.clear();
        self.first_in.clear();
        self.nodes.push(origin);
        self.first_in.extend([0, 0]);
        let mut next = 0;
        let mut entries = 0;
        while let Some(&node) = self.nodes.get(next) {
            scratch.position[node as usize] = next as u32;
            next += 1;
            for link in network.way_out(node, origin) {
                if scratch.flow[link] >= 0.0 {
                    let head = network.head(link);
                    scratch.incoming[head as usize] -= 1;
                    if scratch.incoming[head as usize] == 0 {
                        self.nodes.push(head);
                    }
                }
            }
        }
        if self.nodes.len() != scratch.paths.order.len() {
            return Err(Error::internal("the routes of an origin form a cycle"));
        }
        for &link in &scratch.inside {
            scratch.incoming[network.head(link as usize) as usize] += 1;
        }
        // `incoming` becomes the place of each node's next entry.
        self.merges.clear();
        for (&node, position) in self.nodes[1..].iter().zip(1..) {
            let count = std::mem::replace(&mut scratch.incoming[node as usize], entries);
            entries += count;
            self.first_in.push(entries);
            if count > 1 {
                self.merges.push(position);
            }
        }
        self.tail.clear();
        self.link.clear();
        self.flow.clear();
        self.tail.resize(entries as usize, 0);
        self.link.resize(entries as usize, NO_LINK);
        self.flow.resize(entries as usize, 0.0);
        for (position, &node) in self.nodes.iter().enumerate() {
            for link in network.way_out(node, origin) {
                if scratch.flow[link] >= 0.0 {
                    let place = &mut scratch.incoming[network.head(link) as usize];
                    self.tail[*place as usize] = position as u32;
                    self.link[*place as usize] = link as u32;
                    self.flow[*place as usize] = scratch.flow[link];
                    *place += 1;
                }
            }
        }
        for link in scratch.inside.drain(..) {
            scratch.flow[link as usize] = OUTSIDE;
        }
        Ok(())
    }
}

impl ImproveScratch {
    /// The trips that end at each of `nodes`.
    fn set_throughput(&mut self, nodes: &[u32], demand: &OriginDemand) {
        for &node in nodes {
            self.throughput[node as usize] = 0.0;
        }
        for &(destination, flow) in &demand.destinations {
            self.throughput[destination as usize] = flow;
        }
    }

    /// Makes the link one of the new bush.
    fn take_in(&mut self, link: u32, flow: f64) {
        self.flow[link as usize] = flow;
        self.inside.push(link);
    }

    /// Makes the link one of the new bush and lets its flow pass through its tail.
    fn send_back(&mut self, network: &Network, link: u32, flow: f64) {
        self.take_in(link, flow);
        self.throughput[network.tail(link as usize) as usize] += flow;
    }

    /// Extends the routes to the link's tail to its head.
    fn label_over(&mut self, network: &Network, link: u32, link_cost: &[f64]) {
        let link = link as usize;
        let (tail, head) = (network.tail(link) as usize, network.head(link) as usize);
        self.shortest[head] = self.shortest[head].min(self.shortest[tail] + link_cost[link]);
        self.longest[head] = self.longest[head].max(self.longest[tail] + link_cost[link]);
    }
}
