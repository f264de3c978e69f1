//! Probing: which rows of the build side a row of the other side meets.

use std::cell::OnceCell;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{DataFusionError, JoinSide, Result};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::metrics::Count;

use super::build::{BuildSide, Index, query};
use super::condition::Condition;
use super::keys::{Key, Keys, name};
use super::predicate::{Limit, Test};
use super::rows::{Chosen, Rows, assemble};
use super::tree::Search;
use crate::metric::{EARTH_MEAN_RADIUS_M, METRES_PER_DEGREE};
use crate::prepared::bounds::Bounds;
use crate::prepared::shape::{Relation, Shape};

/// Fewer points than this are held against a polygon of the probe side without preparing it.
const WORTH_PREPARING: usize = 8;

/// A batch of the probe side with its keys.
pub(super) struct Probe {
    pub rows: Rows,
    keys: Keys,
    /// The next row to probe with.
    pub next: usize,
}

/// Pairs found: rows of the build side and of the probe batch, in the order of the latter.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub left: Vec<u32>,
    pub right: Vec<u32>,
    /// How far apart they are, when the nearest are searched for, else nothing.
    pub distances: Vec<Option<f64>>,
}

impl Probe {
    pub(super) fn new(condition: &Condition, batch: RecordBatch) -> Result<Self> {
        let keys = Keys::evaluate(condition, JoinSide::Right, &batch)?;
        Ok(Self { rows: Rows::of(batch), keys, next: 0 })
    }

    pub(super) fn is_done(&self) -> bool {
        self.next == self.rows.len()
    }

    /// Probes row after row until about `enough` pairs are found; `keep` leaves out candidates beforehand.
    pub(super) fn pairs(
        &mut self,
        build: &BuildSide,
        condition: &Condition,
        enough: usize,
        keep: &dyn Fn(u32, &Key) -> bool,
        first_only: bool,
        candidates: &Count,
    ) -> Result<Pairs> {
        let mut pairs = Pairs::default();
        let (mut found, mut search) = (Vec::new(), Search::default());
        let mut met = 0;
        while self.next < self.rows.len() && pairs.left.len() < enough {
            let row = self.next;
            self.next += 1;
            found.clear();
            let Some(key) = self.keys.get(row)? else {
                // Every row is as good as any other when none has a distance.
                if let Test::Nearest { count, fill: true, .. } = condition.predicate.test {
                    let count = count.min(build.rows.len());
                    pairs.left.extend(0..count as u32);
                    pairs.distances.resize(pairs.left.len(), None);
                    pairs.right.resize(pairs.left.len(), row as u32);
                }
                continue;
            };
            let probe = One { key: &key, wkb: self.keys.wkb(row), shape: OnceCell::new(), condition };
            if let Test::Nearest { count, sphere, fill, .. } = condition.predicate.test {
                probe.nearest(build, count, sphere, &mut search)?;
                found.extend(search.found.iter().map(|(_, left)| *left));
                pairs.distances.extend(search.found.iter().map(|(distance, _)| Some(*distance)));
                if fill {
                    let more = build.without_distance.iter().take(count.saturating_sub(found.len()));
                    found.extend(more);
                    pairs.distances.resize(pairs.left.len() + found.len(), None);
                }
                met += found.len();
            } else {
                probe.candidates(build, &mut found);
                found.retain(|left| keep(*left, &key));
                met += found.len();
                probe.test(build, &mut found, first_only)?;
            }
            pairs.left.extend_from_slice(&found);
            pairs.right.resize(pairs.left.len(), row as u32);
        }
        candidates.add(met);
        Ok(pairs)
    }
}

/// One row of the probe side.
struct One<'a> {
    key: &'a Key,
    wkb: &'a [u8],
    shape: OnceCell<Shape>,
    condition: &'a Condition,
}

impl One<'_> {
    fn shape(&self) -> Result<&Shape> {
        if let Some(known) = self.shape.get() {
            return Ok(known);
        }
        let shape = Shape::decode(self.key.extent, self.wkb)
            .map_err(|error| name(&self.condition.predicate.function, error))?;
        Ok(self.shape.get_or_init(|| shape))
    }

    /// Rows of the build side whose boxes are near enough.
    fn candidates(&self, build: &BuildSide, found: &mut Vec<u32>) {
        let Some(bounds) = self.key.extent.bounds() else { return };
        let bounds = query(self.condition, self.key, &bounds);
        if !self.condition.predicate.test.on_sphere() {
            search(&build.index, &bounds, self.key.span, found);
            return;
        }
        // The earth is round: what is near may be written a turn away.
        for turn in [-360.0, 0.0, 360.0] {
            let mut turned = bounds;
            turned.min[0] += turn;
            turned.max[0] += turn;
            search(&build.index, &turned, self.key.span, found);
        }
        found.sort_unstable();
        found.dedup();
    }

    /// Keeps the candidates for which the condition holds, or the first of them.
    fn test(&self, build: &BuildSide, found: &mut Vec<u32>, first_only: bool) -> Result<()> {
        if found.is_empty()
            || matches!(
                self.condition.predicate.test,
                Test::Boxes { .. } | Test::Distance { exact: false, .. }
            )
        {
            return Ok(());
        }
        if found.len() >= WORTH_PREPARING {
            self.shape()?.prepare();
        }
        let mut kept = 0;
        for at in 0..found.len() {
            if self.holds(build, found[at])? {
                found[kept] = found[at];
                kept += 1;
                if first_only {
                    break;
                }
            }
        }
        found.truncate(kept);
        Ok(())
    }

    fn holds(&self, build: &BuildSide, left: u32) -> Result<bool> {
        match &self.condition.predicate.test {
            Test::Relation { relation, left_first } => {
                if !self.may_relate(build, left, *relation, *left_first) {
                    return Ok(false);
                }
                let (left, right) = (build.shape(left)?, self.shape()?);
                Ok(if *left_first { left.relates(*relation, right) } else { right.relates(*relation, &left) })
            }
            Test::Distance { sphere, limit, inclusive, compared, .. } => {
                let limit = match limit {
                    Limit::Left(_) => build.limit(left),
                    Limit::Right(_) => self.key.limit,
                };
                let (left, right) = (build.shape(left)?, self.shape()?);
                let distance =
                    if *sphere { left.sphere_distance_m(right) } else { left.planar_distance(right, limit) };
                Ok(distance.is_some_and(|distance| match (compared, inclusive) {
                    // SQL compares by the total order, in which NaN is above everything.
                    (true, true) => distance.total_cmp(&limit).is_le(),
                    (true, false) => distance.total_cmp(&limit).is_lt(),
                    (false, _) => distance <= limit,
                }))
            }
            Test::Boxes { .. } | Test::Nearest { .. } => Ok(true),
        }
    }

    /// What holds another holds its box.
    fn may_relate(&self, build: &BuildSide, left: u32, relation: Relation, left_first: bool) -> bool {
        let left_holds = match relation {
            Relation::Intersects => return true,
            Relation::Contains | Relation::Covers => left_first,
            Relation::Within | Relation::CoveredBy => !left_first,
        };
        let (Some(left), Some(right)) = (build.bounds(left), self.key.extent.bounds()) else { return false };
        let (outer, inner) = if left_holds { (left, right) } else { (right, left) };
        (0..2).all(|axis| outer.min[axis] <= inner.min[axis] && inner.max[axis] <= outer.max[axis])
    }

    /// The nearest rows of the build side.
    fn nearest(&self, build: &BuildSide, count: usize, sphere: bool, search: &mut Search) -> Result<()> {
        search.found.clear();
        let (Index::Plane(tree), Some(from)) = (&build.index, self.key.extent.bounds()) else {
            return Ok(());
        };
        let exact = |left: u32, limit: f64| -> Result<Option<f64>> {
            let (left, right) = (build.shape(left)?, self.shape()?);
            Ok(if sphere { left.sphere_distance_m(right) } else { left.planar_distance(right, limit) })
        };
        if sphere {
            tree.nearest(count, |bounds| sphere_gap_m(bounds, &from), |distance| distance, exact, search)
        } else {
            // A little more than its square, since the distance itself may be rounded down.
            let square = |distance: f64| distance * distance * (1.0 + 16.0 * f64::EPSILON);
            tree.nearest(count, |bounds| bounds.distance_squared(&from), square, exact, search)
        }
    }
}

fn search(index: &Index, bounds: &Bounds<2>, span: (f64, f64), found: &mut Vec<u32>) {
    match index {
        Index::Plane(tree) => tree.search(bounds, &mut |left| found.push(left)),
        Index::SpaceTime(tree) => tree.search(&bounds.during(span.0, span.1), &mut |left| found.push(left)),
    }
}

/// A distance in metres that two boxes in degrees are at least apart: that of their latitudes, or that of a point to a
/// meridian (Snyder 1987, eq. 5-3 solved for the right angle).
fn sphere_gap_m(a: &Bounds<2>, b: &Bounds<2>) -> f64 {
    let north = (a.min[1] - b.max[1]).max(b.min[1] - a.max[1]).max(0.0);
    let east = [-360.0, 0.0, 360.0]
        .into_iter()
        .map(|turn| (a.min[0] + turn - b.max[0]).max(b.min[0] - a.max[0] - turn).max(0.0))
        .fold(f64::INFINITY, f64::min);
    let cosine = b.min[1].abs().max(b.max[1].abs()).to_radians().cos().max(0.0);
    let meridian = (cosine * east.min(90.0).to_radians().sin()).asin() * EARTH_MEAN_RADIUS_M;
    (north * METRES_PER_DEGREE).max(meridian) * (1.0 - 1e-9)
}

/// Pairs checked at once: a row may meet very many.
const PIECE: usize = 16 * 1024;

/// Keeps the pairs for which the rest of the condition holds.
pub(super) fn keep_where(pairs: Pairs, rest: &JoinFilter, build: &Rows, probe: &Rows) -> Result<Pairs> {
    let mut kept = Pairs::default();
    for (left, right) in pairs.left.chunks(PIECE).zip(pairs.right.chunks(PIECE)) {
        let (left, right) = (UInt32Array::from(left.to_vec()), UInt32Array::from(right.to_vec()));
        let batch = assemble(
            rest.schema(),
            rest.column_indices(),
            Chosen { rows: build, numbers: Some(&left) },
            Chosen { rows: probe, numbers: Some(&right) },
            None,
            left.len(),
        )?;
        let holds = rest.expression().evaluate(&batch)?.into_array(batch.num_rows())?;
        let holds: &BooleanArray = as_boolean_array(&holds)?;
        for (pairs, numbers) in [(&mut kept.left, &left), (&mut kept.right, &right)] {
            let numbers = filter(numbers, holds)?;
            let numbers = numbers.as_any().downcast_ref::<UInt32Array>().ok_or_else(|| {
                DataFusionError::Internal("a filter changed the type of row numbers".to_owned())
            })?;
            pairs.extend_from_slice(numbers.values());
        }
    }
    Ok(kept)
}
