//! A packed R-tree: boxes sorted once, sixteen to a node, without pointers.
//!
//! Packing is sort-tile-recursive (Leutenegger, Lopez & Edgington 1997), which treats time like any other axis; the
//! crate's nearest-neighbour index packs along a curve in the plane and could not. The search for the nearest is
//! best-first (Hjaltason & Samet 1999).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::prepared::bounds::Bounds;

const NODE: usize = 16;

/// An index over boxes; each carries the number of what it stands for.
#[derive(Debug)]
pub(super) struct PackedTree<const D: usize> {
    /// `levels[0]` are the boxes themselves in packed order; a box of `levels[n + 1]` holds sixteen of `levels[n]`.
    levels: Vec<Vec<Bounds<D>>>,
    numbers: Vec<u32>,
}

impl<const D: usize> PackedTree<D> {
    /// Packs boxes; those around nothing must not be among them.
    pub(super) fn pack(mut items: Vec<(Bounds<D>, u32)>) -> Self {
        tile(&mut items, 0);
        let numbers = items.iter().map(|(_, number)| *number).collect();
        let mut levels: Vec<Vec<Bounds<D>>> = vec![items.into_iter().map(|(bounds, _)| bounds).collect()];
        while let Some(below) = levels.last().filter(|level| level.len() > NODE) {
            let above = below
                .chunks(NODE)
                .map(|chunk| {
                    let mut around = Bounds::NOTHING;
                    for bounds in chunk {
                        around.extend(bounds);
                    }
                    around
                })
                .collect();
            levels.push(above);
        }
        Self { levels, numbers }
    }

    /// How many bytes a tree of so many boxes takes, packing included.
    pub(super) const fn bytes(count: usize) -> usize {
        count * (2 * size_of::<(Bounds<D>, u32)>() + size_of::<u32>() + size_of::<Bounds<D>>() / 8)
    }

    /// The boxes at the top, sixteen at most, that hold all others.
    pub(super) fn top(&self) -> &[Bounds<D>] {
        self.levels.last().map_or(&[], Vec::as_slice)
    }

    /// Calls `visit` with the number of each box that meets the query.
    #[inline]
    pub(super) fn search(&self, query: &Bounds<D>, visit: &mut impl FnMut(u32)) {
        let top = self.levels.len() - 1;
        self.descend(top, 0..self.levels[top].len(), query, visit);
    }

    fn descend(
        &self,
        level: usize,
        range: std::ops::Range<usize>,
        query: &Bounds<D>,
        visit: &mut impl FnMut(u32),
    ) {
        let start = range.start;
        for (offset, bounds) in self.levels[level][range].iter().enumerate() {
            if !bounds.meets(query) {
                continue;
            }
            let index = start + offset;
            if level == 0 {
                visit(self.numbers[index]);
            } else {
                let below = index * NODE..((index + 1) * NODE).min(self.levels[level - 1].len());
                self.descend(level - 1, below, query, visit);
            }
        }
    }
}

/// Room for a search of the nearest, kept from one to the next.
#[derive(Default)]
pub(super) struct Search {
    open: BinaryHeap<Open>,
    /// Distance and number of the nearest, nearest first.
    pub found: Vec<(f64, u32)>,
}

impl PackedTree<2> {
    /// The `count` nearest to a query, nearest first; equal distances in the order of their numbers. `lower` gives a
    /// measure below which nothing in a box can be, `measure` that of a distance, and `exact` the distance itself as
    /// far as it is at most a limit; `None` for what has none.
    pub(super) fn nearest<E>(
        &self,
        count: usize,
        lower: impl Fn(&Bounds<2>) -> f64,
        measure: impl Fn(f64) -> f64,
        mut exact: impl FnMut(u32, f64) -> Result<Option<f64>, E>,
        search: &mut Search,
    ) -> Result<(), E> {
        let Search { open, found } = search;
        open.clear();
        found.clear();
        if count == 0 {
            return Ok(());
        }
        // What is farther than this is not among the nearest.
        let (mut worst, mut bound) = (f64::INFINITY, f64::INFINITY);
        let top = self.levels.len() - 1;
        let mut node = Some((top, 0..self.levels[top].len()));
        while let Some((level, range)) = node.take() {
            let start = range.start;
            if level > 0 {
                for (offset, bounds) in self.levels[level][range].iter().enumerate() {
                    let least = lower(bounds);
                    if least <= bound {
                        open.push(Open { least, level, index: start + offset });
                    }
                }
            } else {
                let mut near = [(0.0, 0_u32); NODE];
                // A tree of one level may have a root of any size up to that of a node.
                let mut kept = 0;
                for (offset, bounds) in self.levels[0][range].iter().enumerate() {
                    let least = lower(bounds);
                    if least <= bound {
                        near[kept] = (least, self.numbers[start + offset]);
                        kept += 1;
                    }
                }
                near[..kept].sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                for (least, number) in &near[..kept] {
                    if *least > bound {
                        break;
                    }
                    let Some(distance) = exact(*number, worst)? else { continue };
                    let place = found.partition_point(|known| {
                        known.0.total_cmp(&distance).then(known.1.cmp(number)) == Ordering::Less
                    });
                    if place < count {
                        found.truncate(count - 1);
                        found.insert(place, (distance, *number));
                        if found.len() == count {
                            worst = found[count - 1].0;
                            bound = measure(worst);
                        }
                    }
                }
            }
            let Some(next) = open.pop() else { break };
            if next.least > bound {
                break;
            }
            let below = self.levels[next.level - 1].len();
            node = Some((next.level - 1, next.index * NODE..((next.index + 1) * NODE).min(below)));
        }
        Ok(())
    }
}

/// A node that may still hold something near; the nearest comes first.
struct Open {
    least: f64,
    level: usize,
    index: usize,
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        other.least.total_cmp(&self.least).then(other.level.cmp(&self.level))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Open {}

/// Sorts by one axis, cuts into slices of whole nodes, and goes on with the next axis in each.
fn tile<const D: usize>(items: &mut [(Bounds<D>, u32)], axis: usize) {
    items.sort_unstable_by(|a, b| a.0.middle(axis).total_cmp(&b.0.middle(axis)).then(a.1.cmp(&b.1)));
    if axis + 1 == D || items.len() <= NODE {
        return;
    }
    let nodes = items.len().div_ceil(NODE);
    let slices = (nodes as f64).powf(1.0 / (D - axis) as f64).ceil().max(1.0) as usize;
    for slice in items.chunks_mut(nodes.div_ceil(slices) * NODE) {
        tile(slice, axis + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::testing::Random;

    fn boxes<const D: usize>(count: u32, random: &mut Random) -> Vec<(Bounds<D>, u32)> {
        (0..count)
            .map(|number| {
                let min: [f64; D] = std::array::from_fn(|_| random.next() * 100.0);
                let max = std::array::from_fn(|axis| min[axis] + random.next() * 3.0);
                (Bounds { min, max }, number)
            })
            .collect()
    }

    fn finds_what_a_scan_finds<const D: usize>() {
        let mut random = Random::new(3);
        for count in [0, 1, 15, 16, 17, 300, 5_000] {
            let items = boxes::<D>(count, &mut random);
            let tree = PackedTree::pack(items.clone());
            for (query, _) in boxes::<D>(100, &mut random) {
                let mut found = Vec::new();
                tree.search(&query, &mut |number| found.push(number));
                found.sort_unstable();
                let expected: Vec<u32> =
                    items.iter().filter(|(bounds, _)| bounds.meets(&query)).map(|(_, n)| *n).collect();
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn finds_what_a_scan_finds_in_the_plane_and_in_time() {
        finds_what_a_scan_finds::<2>();
        finds_what_a_scan_finds::<3>();
    }

    #[test]
    fn the_nearest_are_those_of_a_sort() {
        let mut random = Random::new(5);
        for count in [0, 3, 40, 2_000] {
            let items = boxes::<2>(count, &mut random);
            let tree = PackedTree::pack(items.clone());
            for (query, _) in boxes::<2>(50, &mut random) {
                let exact = |number: u32| Some(items[number as usize].0.distance_squared(&query));
                let mut search = Search::default();
                let exact = |number: u32, _: f64| Ok::<_, ()>(exact(number));
                let lower = |bounds: &Bounds<2>| bounds.distance_squared(&query);
                tree.nearest(7, lower, |distance| distance, exact, &mut search).unwrap();
                let mut expected: Vec<(f64, u32)> = (0..count)
                    .map(|number| (items[number as usize].0.distance_squared(&query), number))
                    .collect();
                expected.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                expected.truncate(7);
                assert_eq!(search.found, expected);
            }
        }
    }
}
