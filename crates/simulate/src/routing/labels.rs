//! Distances of many pairs: of each end the distances to all nodes above it, then the best node in common.
//!
//! A shortest way goes up in the elimination tree and down again, so it has a node that is above both ends, and distances to all
//! ancestors are enough (Dibbelt, Strasser, Wagner 2016). They are found once for each origin and destination, however many
//! pairs it has, and stand by depth: what two ends have in common is the beginning of both lists, over which the least sum is
//! taken in one pass (as in the labels of Ouyang et al. 2018, SIGMOD). Lists of destinations are made for as many at a time as
//! fit into a bounded memory.

use std::ops::Range;

use rayon::prelude::*;

use super::hierarchy::{INFINITE, Weighted};
use super::perfect::Upward;
use super::tree::{NONE, Tree};

/// So many numbers of destinations' lists are in memory at once: 64 MiB.
const ROOM: usize = 1 << 24;
/// Ends whose lists a thread makes as one piece of work.
const PIECE: usize = 64;

/// The distances of pairs of nodes; [`INFINITE`] where there is no way.
pub(crate) fn distances(weighted: &Weighted, pairs: &[(u32, u32)]) -> Vec<u32> {
    distances_within(weighted, pairs, ROOM)
}

/// The same with room for so many numbers of destinations' lists.
pub(super) fn distances_within(weighted: &Weighted, pairs: &[(u32, u32)], room: usize) -> Vec<u32> {
    let rank = &weighted.cch().rank;
    let ends: Vec<(u32, u32)> =
        pairs.iter().map(|(from, to)| (rank[*from as usize], rank[*to as usize])).collect();
    let mut destinations: Vec<u32> = ends.iter().map(|end| end.1).collect();
    destinations.sort_unstable();
    destinations.dedup();
    let mut rows: Vec<u32> = (0..ends.len() as u32).collect();
    let mut found = vec![INFINITE; pairs.len()];
    let mut rest = destinations.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(as_many_as_fit(weighted.tree(), rest, room));
        rest = later;
        let here = |row: &u32| now.binary_search(&ends[*row as usize].1).is_ok();
        let mut of_block: Vec<u32> = if later.is_empty() && now.len() == destinations.len() {
            std::mem::take(&mut rows)
        } else {
            rows.iter().copied().filter(here).collect()
        };
        of_block.sort_unstable_by_key(|row| ends[*row as usize]);
        let lists = Lists::new(weighted, now);
        let mut groups: Vec<Range<usize>> = Vec::new();
        for at in 0..of_block.len() {
            let origin = ends[of_block[at] as usize].0;
            match groups.last_mut() {
                Some(last) if ends[of_block[last.start] as usize].0 == origin => last.end = at + 1,
                _ => groups.push(Range { start: at, end: at + 1 }),
            }
        }
        let answers: Vec<Vec<u32>> = groups
            .par_chunks(PIECE)
            .map_init(
                || Search::new(weighted),
                |search, groups| {
                    let mut answers = Vec::new();
                    for group in groups {
                        search.from(ends[of_block[group.start] as usize].0, &weighted.up);
                        let of = |row: &u32| lists.least_sum(weighted.tree(), search, ends[*row as usize].1);
                        answers.extend(of_block[group.clone()].iter().map(of));
                    }
                    answers
                },
            )
            .collect();
        of_block
            .iter()
            .zip(answers.into_iter().flatten())
            .for_each(|(row, answer)| found[*row as usize] = answer);
    }
    found
}

fn as_many_as_fit(tree: &Tree, nodes: &[u32], room: usize) -> usize {
    let mut numbers = 0;
    let fits = |node: &&u32| {
        numbers += tree.depth(**node) + 1;
        numbers <= room
    };
    nodes.iter().take_while(fits).count().max(1)
}

/// One end: its ancestors and the distances to them, by depth.
struct Search<'a> {
    tree: &'a Tree,
    /// Infinite everywhere between searches.
    distance: Vec<u32>,
    path: Vec<u32>,
    to_ancestors: Vec<u32>,
}

impl<'a> Search<'a> {
    fn new(weighted: &'a Weighted) -> Self {
        let nodes = weighted.cch().node_count();
        Self {
            tree: weighted.tree(),
            distance: vec![INFINITE; nodes],
            path: Vec::new(),
            to_ancestors: Vec::new(),
        }
    }

    fn from(&mut self, node: u32, arcs: &Upward) {
        let length = self.tree.depth(node) + 1;
        self.path.resize(length, NONE);
        self.to_ancestors.resize(length, INFINITE);
        self.distance[node as usize] = 0;
        let mut at = node;
        for depth in (0..length).rev() {
            let here = std::mem::replace(&mut self.distance[at as usize], INFINITE);
            self.path[depth] = at;
            self.to_ancestors[depth] = here;
            if here < INFINITE {
                for &(head, weight) in arcs.arcs(at) {
                    let slot = &mut self.distance[head as usize];
                    // Both are below 2^31: the sum does not wrap.
                    *slot = (*slot).min(here.wrapping_add(weight));
                }
            }
            at = self.tree.parent(at);
        }
    }
}

/// The distances from all ancestors to each of some destinations.
struct Lists<'a> {
    destinations: &'a [u32],
    /// By piece of destinations, one list behind the other.
    numbers: Vec<Vec<u32>>,
    /// Where in its piece each list begins.
    begin: Vec<u32>,
}

impl<'a> Lists<'a> {
    fn new(weighted: &Weighted, destinations: &'a [u32]) -> Self {
        let numbers = destinations
            .par_chunks(PIECE)
            .map_init(
                || Search::new(weighted),
                |search, piece| {
                    let mut numbers = Vec::new();
                    for &node in piece {
                        search.from(node, &weighted.down);
                        numbers.extend_from_slice(&search.to_ancestors);
                    }
                    numbers
                },
            )
            .collect();
        let mut begin = Vec::with_capacity(destinations.len());
        for piece in destinations.chunks(PIECE) {
            let mut next = 0;
            for &node in piece {
                begin.push(next);
                next += weighted.tree().depth(node) as u32 + 1;
            }
        }
        Self { destinations, numbers, begin }
    }

    #[inline]
    fn least_sum(&self, tree: &Tree, origin: &Search<'_>, destination: u32) -> u32 {
        let Some(common) = tree.common_depth(&origin.path, destination) else { return INFINITE };
        let Ok(place) = self.destinations.binary_search(&destination) else { return INFINITE };
        let begin = self.begin[place] as usize;
        let from = &self.numbers[place / PIECE][begin..=begin + common];
        let sums = origin.to_ancestors[..=common].iter().zip(from).map(|(up, down)| up.wrapping_add(*down));
        sums.fold(INFINITE, u32::min)
    }
}
