//! `st_collect_agg` for all groups of a query at once: members lie one after the other as WKB, and are sorted by their
//! groups when these come out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray};
use arrow::datatypes::FieldRef;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, EmitTo, GroupsAccumulator};

use crate::call::Call;
use crate::definition::{Kind, guarded};
use crate::geometry::plain_point;
use crate::shape::{Form, Shape};

const NAME: &str = "st_collect_agg";
/// Little-endian WKB of a point in the plane begins so, and is so long.
const POINT: [u8; 5] = [1, 1, 0, 0, 0];
const POINT_BYTES: usize = 21;
const MULTI_POINT: u8 = 4;
const COLLECTION: u8 = 7;

/// The members of all groups, in the order in which they came.
#[derive(Debug)]
pub(super) struct CollectGroups {
    result: FieldRef,
    groups: usize,
    /// The group of each member and where it ends in `bytes`.
    members: Vec<(u32, usize)>,
    /// ISO WKB, little-endian.
    bytes: Vec<u8>,
}

impl CollectGroups {
    pub(super) fn new(result: FieldRef) -> Self {
        Self { result, groups: 0, members: Vec::new(), bytes: Vec::new() }
    }

    fn grow_to(&mut self, groups: usize) -> Result<()> {
        if u32::try_from(groups).is_err() {
            return exec_err!("{NAME}: more than 4,294,967,295 groups");
        }
        self.groups = self.groups.max(groups);
        Ok(())
    }

    fn push(&mut self, group: usize, wkb: &[u8]) {
        self.bytes.extend_from_slice(wkb);
        self.members.push((group as u32, self.bytes.len()));
    }

    /// Checks and takes the geometries of some rows.
    fn add(&mut self, call: &Call<'_>, group_indices: &[usize], filter: Option<&BooleanArray>) -> Result<()> {
        let geometries = call.bytes(0)?;
        for (row, group) in group_indices.iter().enumerate() {
            if filter.is_some_and(|filter| !filter.is_valid(row) || !filter.value(row)) {
                continue;
            }
            match geometries.get(row) {
                Some(wkb) if plain_point(wkb).is_some() => self.push(*group, wkb),
                Some(wkb) => self.push(*group, &call.shape(wkb)?.encode()),
                None => {}
            }
        }
        Ok(())
    }

    /// Puts the members of each of the first groups together and forgets them; a group without any gives null.
    fn emit(
        &mut self,
        emit_to: EmitTo,
        mut put: impl FnMut(&[&[u8]], &mut BinaryBuilder) -> Result<()>,
    ) -> Result<ArrayRef> {
        let count = match emit_to {
            EmitTo::All => self.groups,
            EmitTo::First(count) => count.min(self.groups),
        };
        let members = std::mem::take(&mut self.members);
        let bytes = std::mem::take(&mut self.bytes);
        // A counting sort keeps the order within a group.
        let mut starts = vec![0_usize; count + 1];
        for (group, _) in &members {
            if let Some(next) = starts.get_mut(*group as usize + 1) {
                *next += 1;
            }
        }
        for group in 0..count {
            starts[group + 1] += starts[group];
        }
        let mut sorted: Vec<&[u8]> = vec![&[]; starts[count]];
        let mut next = starts.clone();
        let (mut start, mut longest) = (0, 0);
        for (group, end) in &members {
            let wkb = &bytes[start..*end];
            start = *end;
            if (*group as usize) < count {
                sorted[next[*group as usize]] = wkb;
                next[*group as usize] += 1;
                longest += wkb.len();
            } else {
                self.push(*group as usize - count, wkb);
            }
        }
        self.groups -= count;
        // Third coordinates that some member lacks are filled in, so the result may be twice as long.
        if longest.saturating_mul(2).saturating_add(count * 9) > i32::MAX as usize {
            return exec_err!("{NAME}: the geometries of all groups together are larger than 1 GiB");
        }
        let mut out = BinaryBuilder::with_capacity(count, longest + 9 * count);
        for group in 0..count {
            put(&sorted[starts[group]..starts[group + 1]], &mut out)?;
        }
        Ok(Arc::new(out.finish()))
    }
}

/// WKB of a type that holds others, from the WKB of these.
fn append_holder(kind: u8, members: &[&[u8]], whole: &mut Vec<u8>) {
    whole.clear();
    whole.extend([1, kind, 0, 0, 0]);
    whole.extend((members.len() as u32).to_le_bytes());
    for member in members {
        whole.extend_from_slice(member);
    }
}

fn is_point(wkb: &[u8]) -> bool {
    wkb.len() == POINT_BYTES && wkb[..5] == POINT
}

/// The members of a state; `None` when it is not one of points in the plane, as it mostly is.
fn points_of(state: &[u8]) -> Option<std::slice::ChunksExact<'_, u8>> {
    let (head, rest) = state.split_at_checked(9)?;
    let members = rest.chunks_exact(POINT_BYTES);
    let all = head[..5] == [1, COLLECTION, 0, 0, 0] && members.remainder().is_empty();
    (all && members.clone().all(is_point)).then_some(members)
}

impl GroupsAccumulator for CollectGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow_to(total_num_groups)?;
        let columns: Vec<ColumnarValue> =
            values.iter().map(|v| ColumnarValue::Array(Arc::clone(v))).collect();
        let result = Arc::clone(&self.result);
        let call = Call::new(NAME, group_indices.len(), &result, &columns, &[("geometry", Kind::Geometry)])?;
        guarded(NAME, || self.add(&call, group_indices, filter))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut whole = Vec::new();
        self.emit(emit_to, |members, out| {
            if members.is_empty() {
                out.append_null();
            } else if members.iter().all(|member| is_point(member)) {
                append_holder(MULTI_POINT, members, &mut whole);
                out.append_value(&whole);
            } else {
                let shapes = members.iter().map(|wkb| Shape::from_wkb(wkb).map(|(shape, _)| shape));
                match shapes.collect() {
                    Ok(shapes) => out.append_value(Shape::collect(shapes).encode()),
                    Err(error) => return exec_err!("{NAME}: {error}"),
                }
            }
            Ok(())
        })
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut whole = Vec::new();
        let states = self.emit(emit_to, |members, out| {
            if members.is_empty() {
                out.append_null();
            } else {
                append_holder(COLLECTION, members, &mut whole);
                out.append_value(&whole);
            }
            Ok(())
        })?;
        Ok(vec![states])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow_to(total_num_groups)?;
        let Some(states) = values.first().and_then(|column| column.as_binary_opt::<i32>()) else {
            return exec_err!("{NAME} got a state that is not its own");
        };
        for (state, group) in states.iter().zip(group_indices) {
            let Some(state) = state else { continue };
            if let Some(points) = points_of(state) {
                points.for_each(|point| self.push(*group, point));
                continue;
            }
            let Ok((Shape { form: Form::Collection(members), .. }, _)) = Shape::from_wkb(state) else {
                return exec_err!("{NAME} got a state that is not its own");
            };
            for member in members {
                self.push(*group, &member.encode());
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, Array::len);
        let mut each = Self::new(Arc::clone(&self.result));
        let own_group: Vec<usize> = (0..rows).collect();
        each.update_batch(values, &own_group, filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.members.capacity() * size_of::<(u32, usize)>() + self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::to_wkt;
    use arrow::array::BinaryArray;
    use twinlake_contracts::{CRS84, geometry_field};

    fn groups() -> CollectGroups {
        CollectGroups::new(Arc::new(geometry_field("geom", CRS84, true)))
    }

    fn wkb(wkt: &[Option<&str>]) -> ArrayRef {
        let bytes = |wkt: &&str| Shape::from_wkt(wkt).unwrap().0.encode();
        Arc::new(wkt.iter().map(|one| one.as_ref().map(bytes)).collect::<BinaryArray>())
    }

    fn texts(array: &ArrayRef) -> Vec<String> {
        let bytes = array.as_binary::<i32>();
        bytes.iter().map(|one| one.map_or("NULL".to_owned(), |one| to_wkt(one).unwrap())).collect()
    }

    #[test]
    fn members_keep_their_order_within_a_group() {
        let mut all = groups();
        let rows = wkb(&[Some("POINT(1 1)"), Some("POINT(2 2)"), None, Some("LINESTRING(0 0,1 1)")]);
        all.update_batch(&[Arc::clone(&rows)], &[0, 1, 2, 1], None, 3).unwrap();
        let only_first = BooleanArray::from(vec![Some(true), Some(false), None, Some(false)]);
        all.update_batch(&[rows], &[0, 0, 0, 0], Some(&only_first), 3).unwrap();
        assert_eq!(texts(&all.evaluate(EmitTo::First(1)).unwrap()), ["MULTIPOINT((1 1),(1 1))"]);
        all.update_batch(&[wkb(&[Some("POINT Z (5 6 7)")])], &[1], None, 2).unwrap();
        assert_eq!(
            texts(&all.evaluate(EmitTo::All).unwrap()),
            ["GEOMETRYCOLLECTION(POINT(2 2),LINESTRING(0 0,1 1))", "MULTIPOINT Z ((5 6 7))"]
        );
    }

    #[test]
    fn states_merge_to_the_same() {
        let rows = wkb(&[Some("POINT(1 1)"), Some("POINT EMPTY"), None, Some("POINT Z (1 2 3)")]);
        let (mut whole, mut merged) = (groups(), groups());
        whole.update_batch(&[Arc::clone(&rows)], &[1, 0, 0, 1], None, 2).unwrap();
        let states = groups().convert_to_state(&[Arc::clone(&rows)], None).unwrap();
        merged.merge_batch(&states, &[1, 0, 0, 1], 2).unwrap();
        let again = merged.state(EmitTo::All).unwrap();
        merged.merge_batch(&again, &[0, 1], 2).unwrap();
        assert_eq!(
            texts(&merged.evaluate(EmitTo::All).unwrap()),
            texts(&whole.evaluate(EmitTo::All).unwrap())
        );
    }
}
