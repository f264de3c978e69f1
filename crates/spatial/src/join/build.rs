//! The build side: its rows, an index over their boxes, and which of them have met something.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::datatypes::DataType;
use datafusion::common::{JoinSide, Result, ScalarValue, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;

use super::condition::Condition;
use super::filter::constant;
use super::keys::{Key, Keys, name, reach};
use super::predicate::{Limit, Test};
use super::rows::Rows;
use super::tree::PackedTree;
use crate::prepared::bounds::Bounds;
use crate::prepared::scan::Extent;
use crate::prepared::shape::{Held, Shape};

/// The boxes of the build side in the plane, or in the plane and time.
#[derive(Debug)]
pub(super) enum Index {
    Plane(PackedTree<2>),
    SpaceTime(PackedTree<3>),
}

/// Everything that probing needs of the build side. Shared by all partitions.
pub(super) struct BuildSide {
    pub rows: Rows,
    pub index: Index,
    function: String,
    keys: Vec<Keys>,
    extents: Vec<Extent>,
    /// The distance of each row, when it depends on the row.
    limits: Vec<f64>,
    /// Rows without a geometry to be near to, when a search fills up with them.
    pub without_distance: Vec<u32>,
    /// Decoded when first met; nothing here when all are points.
    shapes: Vec<OnceLock<Shape>>,
    /// A bit for each row that has met something.
    matched: Option<Vec<AtomicU64>>,
    /// How many partitions still probe.
    probing: AtomicUsize,
    reservation: MemoryReservation,
}

impl std::fmt::Debug for BuildSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildSide").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

/// How many bytes the index of so many rows takes, beside the rows themselves.
pub(super) fn index_bytes(rows: usize) -> usize {
    rows * (size_of::<Extent>() + size_of::<OnceLock<Shape>>() + 1) + PackedTree::<3>::bytes(rows)
}

impl BuildSide {
    /// Indexes the rows. `reservation` already holds [`index_bytes`] and the rows.
    pub(super) fn new(
        rows: Rows,
        condition: &Condition,
        track_matched: bool,
        partitions: usize,
        reservation: MemoryReservation,
    ) -> Result<Self> {
        if u32::try_from(rows.len()).is_err() {
            return exec_err!("a spatial join indexes at most 4,294,967,295 rows, it got {}", rows.len());
        }
        let on_left = matches!(condition.predicate.test, Test::Distance { limit: Limit::Left(_), .. });
        let mut keys = Vec::with_capacity(rows.batches().len());
        let mut extents = Vec::with_capacity(rows.len());
        let mut limits = Vec::new();
        let mut boxes: Vec<(Bounds<2>, u32)> = Vec::with_capacity(rows.len());
        let mut spans: Vec<(f64, f64)> = Vec::new();
        let mut all_points = true;
        let fill = matches!(condition.predicate.test, Test::Nearest { fill: true, .. });
        let mut without_distance = Vec::new();
        for batch in rows.batches() {
            let batch_keys = Keys::evaluate(condition, JoinSide::Left, batch)?;
            for row in 0..batch.num_rows() {
                let key = batch_keys.get(row)?;
                let number = extents.len() as u32;
                extents.push(key.map_or(Extent::Empty, |key| key.extent));
                if on_left {
                    limits.push(key.map_or(0.0, |key| key.limit));
                }
                if key.is_none() && fill {
                    without_distance.push(number);
                }
                let Some(key) = key else { continue };
                let Some(bounds) = key.extent.bounds() else { continue };
                all_points &= matches!(key.extent, Extent::Point(_));
                let Some(bounds) = indexed_bounds(condition, &key, &bounds) else { continue };
                boxes.push((bounds, number));
                if condition.window.is_some() {
                    spans.push(key.span);
                }
            }
            keys.push(batch_keys);
        }
        let index = if condition.window.is_some() {
            let boxes = boxes
                .into_iter()
                .zip(spans)
                .map(|((bounds, number), (from, to))| (bounds.during(from, to), number))
                .collect();
            Index::SpaceTime(PackedTree::pack(boxes))
        } else {
            Index::Plane(PackedTree::pack(boxes))
        };
        let shapes = if all_points { Vec::new() } else { (0..rows.len()).map(|_| OnceLock::new()).collect() };
        let matched =
            track_matched.then(|| (0..rows.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect());
        Ok(Self {
            rows,
            index,
            function: condition.predicate.function.clone(),
            keys,
            extents,
            limits,
            without_distance,
            shapes,
            matched,
            probing: AtomicUsize::new(partitions),
            reservation,
        })
    }

    /// A few boxes that what the probe side may meet has to meet; `None` when it may lie anywhere.
    pub(super) fn reach(&self, condition: &Condition) -> Option<Vec<Bounds<2>>> {
        let mut boxes: Vec<Bounds<2>> = match &self.index {
            Index::Plane(tree) => tree.top().to_vec(),
            Index::SpaceTime(tree) => tree
                .top()
                .iter()
                .map(|b| Bounds { min: [b.min[0], b.min[1]], max: [b.max[0], b.max[1]] })
                .collect(),
        };
        if let Test::Distance { limit: Limit::Right(limit), sphere, .. } = &condition.predicate.test {
            let ScalarValue::Float64(Some(limit)) = constant(limit)?.cast_to(&DataType::Float64).ok()? else {
                return None;
            };
            let limit = inexact(condition, limit);
            boxes = boxes.iter().map(|bounds| reach(bounds, limit, *sphere)).collect();
        }
        if condition.predicate.test.on_sphere() {
            let turned = |bounds: &Bounds<2>, turn: f64| Bounds {
                min: [bounds.min[0] + turn, bounds.min[1]],
                max: [bounds.max[0] + turn, bounds.max[1]],
            };
            boxes = boxes
                .iter()
                .flat_map(|bounds| [-360.0, 0.0, 360.0].map(|turn| turned(bounds, turn)))
                .collect();
        }
        Some(boxes)
    }

    /// The key of a row.
    pub(super) fn key(&self, row: u32) -> Result<Option<Key>> {
        let (batch, place) = self.rows.place(row as usize);
        self.keys[batch].get(place)
    }

    pub(super) fn limit(&self, row: u32) -> f64 {
        self.limits[row as usize]
    }

    pub(super) fn bounds(&self, row: u32) -> Option<Bounds<2>> {
        self.extents[row as usize].bounds()
    }

    /// The geometry of a row that is in the index, prepared for many points.
    pub(super) fn shape(&self, row: u32) -> Result<Held<'_>> {
        let extent = self.extents[row as usize];
        if let Extent::Point(at) = extent {
            return Ok(Held::Own(Shape::Point(at)));
        }
        let slot = &self.shapes[row as usize];
        if let Some(known) = slot.get() {
            return Ok(Held::Kept(known));
        }
        let (batch, place) = self.rows.place(row as usize);
        let bytes = self.keys[batch].wkb(place);
        let shape = Shape::decode(extent, bytes).map_err(|error| name(&self.function, error))?;
        shape.prepare();
        // Without memory to keep it, it is decoded again next time.
        if self.reservation.try_grow(bytes.len() + shape.bytes()).is_err() {
            return Ok(Held::Own(shape));
        }
        Ok(Held::Kept(slot.get_or_init(|| shape)))
    }

    /// Notes that a row has met something.
    #[inline]
    pub(super) fn mark(&self, row: u32) {
        if let Some(matched) = &self.matched {
            let bit = 1 << (row % 64);
            let word = &matched[row as usize / 64];
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Whether a row has met something.
    pub(super) fn is_marked(&self, row: u32) -> bool {
        self.matched.as_ref().is_some_and(|matched| {
            matched[row as usize / 64].load(Ordering::Relaxed) & (1 << (row % 64)) != 0
        })
    }

    /// A partition has probed all it has; true for the last one, which sees all marks.
    pub(super) fn done_probing(&self) -> bool {
        self.probing.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// The limit as far as boxes go: the ellipsoid is nowhere half a percent off the mean sphere.
pub(super) fn inexact(condition: &Condition, limit: f64) -> f64 {
    match condition.predicate.test {
        Test::Distance { exact: false, .. } => limit * 1.01,
        _ => limit,
    }
}

/// The box that stands for a row of the build side; `None` when its distance, below 0, reaches nothing.
pub(super) fn indexed_bounds(condition: &Condition, key: &Key, bounds: &Bounds<2>) -> Option<Bounds<2>> {
    let Test::Distance { limit: Limit::Left(_), sphere, .. } = &condition.predicate.test else {
        return Some(*bounds);
    };
    let reached = reach(bounds, inexact(condition, key.limit), *sphere);
    (0..2).all(|axis| reached.min[axis] <= reached.max[axis]).then_some(reached)
}

/// The box that a row of the probe side asks for.
pub(super) fn query(condition: &Condition, key: &Key, bounds: &Bounds<2>) -> Bounds<2> {
    match &condition.predicate.test {
        Test::Distance { limit: Limit::Right(_), sphere, .. } => {
            reach(bounds, inexact(condition, key.limit), *sphere)
        }
        _ => *bounds,
    }
}
