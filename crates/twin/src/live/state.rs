//! The newest reading of each instance, in memory.
//!
//! Rows stay in the Arrow batches that they came in; an instance is a slot that says which row of which batch is its state. A
//! reading costs a look-up of the key, a comparison of times and, where it wins, two numbers: batches are never changed. Batches
//! most of whose rows have been overtaken are rewritten a few at a time ([`State::tidy`]), so that memory stays within a small
//! multiple of what is shown and no reading waits for a large clean-up.
//!
//! Which of two readings wins is the fold's order (see `state.rs` of the crate): time, then when it became known, then the log
//! sequence (a null is the least, each time), then the greatest values.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::Hash;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    make_comparator,
};
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};

use twinlake_contracts::{Error, Result};

use super::grid::{Extent, Grid, Place};

/// Below so many rows nothing is rewritten.
const SMALL: usize = 16_384;
/// About as many rows are rewritten after each batch of readings at most.
const TIDY_ROWS: usize = 16_384;
/// A batch of fewer rows is small.
const SMALL_BATCH: usize = 1024;
/// Rows of a batch that is made for a query.
const BATCH_ROWS: usize = 8_192;

/// Readings in the shape of the state: the columns that are shown, and what the order needs.
pub(crate) struct Readings {
    /// The columns of [`State::schema`].
    pub rows: RecordBatch,
    /// The keys: `Utf8` or `Int64`, without nulls.
    pub keys: ArrayRef,
    /// Times, without nulls.
    pub valid: TimestampMicrosecondArray,
    pub known: TimestampMicrosecondArray,
    pub sequence: Int64Array,
    /// The geometry by which instances are found.
    pub places: Option<BinaryArray>,
}

/// Where the state of an instance is, and what a new reading is held against.
#[derive(Debug, Clone, Copy)]
struct Slot {
    batch: u32,
    row: u32,
    valid_us: i64,
    known_us: Option<i64>,
    sequence: Option<i64>,
    place: Place,
}

#[derive(Debug)]
struct Held {
    rows: RecordBatch,
    /// The slot of each row, or of the one that it lost to.
    owners: Vec<u32>,
    /// How many rows are somebody's state.
    alive: usize,
}

/// Slots by key. The key itself is in the slot's row.
#[derive(Debug, Default)]
enum Keys {
    #[default]
    None,
    Text(HashMap<Box<str>, u32, ahash::RandomState>),
    Number(HashMap<i64, u32, ahash::RandomState>),
}

/// The newest reading of each instance.
#[derive(Debug)]
pub(super) struct State {
    schema: SchemaRef,
    /// Columns that break ties, in their order.
    deciding: Vec<usize>,
    keys: Keys,
    slots: Vec<Slot>,
    batches: Vec<Option<Held>>,
    free: Vec<u32>,
    /// Rows in batches, alive or not.
    rows_held: usize,
    /// The next batch that is looked at for tidying.
    next_tidy: usize,
    grid: Option<Grid>,
    /// All instances as batches, made for a query and good until the next reading.
    all: Option<Vec<RecordBatch>>,
}

/// The middle of a point; anywhere for all else.
fn place(wkb: Option<&[u8]>) -> Place {
    let Some(bytes) = wkb else { return Place::Nowhere };
    match bytes {
        [1, 1, 0, 0, 0, rest @ ..] if rest.len() == 16 => {
            let number = |at: usize| f64::from_le_bytes(std::array::from_fn(|i| rest[at + i]));
            let (x, y) = (number(0), number(8));
            if x.is_finite() && y.is_finite() { Place::At(x, y) } else { Place::Anywhere }
        }
        _ => Place::Anywhere,
    }
}

fn find_or_add<K, Q>(map: &mut HashMap<K, u32, ahash::RandomState>, key: &Q, next: u32) -> (u32, bool)
where
    K: std::borrow::Borrow<Q> + Eq + Hash + for<'a> From<&'a Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(slot) = map.get(key) {
        return (*slot, false);
    }
    map.insert(K::from(key), next);
    (next, true)
}

impl State {
    /// `deciding` are the columns that break ties, in their order; `degrees` says whether places are in degrees, `None` that
    /// instances have no place.
    pub(super) fn new(schema: SchemaRef, deciding: Vec<usize>, degrees: Option<bool>) -> Self {
        Self {
            schema,
            deciding,
            keys: Keys::None,
            slots: Vec::new(),
            batches: Vec::new(),
            free: Vec::new(),
            rows_held: 0,
            next_tidy: 0,
            grid: degrees.map(Grid::new),
            all: None,
        }
    }

    /// How many instances there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many rows are held, shown or overtaken.
    #[cfg(test)]
    pub(super) fn rows_held(&self) -> usize {
        self.rows_held
    }

    /// About how many bytes the state takes.
    pub(super) fn bytes(&self) -> usize {
        let batches = self.batches.iter().flatten();
        let rows: usize = batches.map(|held| held.rows.get_array_memory_size() + held.owners.len() * 4).sum();
        rows + self.slots.len() * (size_of::<Slot>() + 48)
    }

    /// Takes readings in.
    pub(super) fn apply(&mut self, readings: &Readings) -> Result<()> {
        let count = readings.rows.num_rows();
        if count == 0 {
            return Ok(());
        }
        self.all = None;
        // One more than is alive, so that it does not go while it is taken in.
        let id = self.hold(Held { rows: readings.rows.clone(), owners: vec![0; count], alive: 1 });
        for row in 0..count {
            let (slot, is_new) = self.slot_of(&readings.keys, row)?;
            let reading = Slot {
                batch: id,
                row: row as u32,
                valid_us: readings.valid.value(row),
                known_us: readings.known.is_valid(row).then(|| readings.known.value(row)),
                sequence: readings.sequence.is_valid(row).then(|| readings.sequence.value(row)),
                place: match &readings.places {
                    Some(places) => place(places.is_valid(row).then(|| places.value(row))),
                    None => Place::Nowhere,
                },
            };
            if let Some(Some(held)) = self.batches.get_mut(id as usize) {
                held.owners[row] = slot;
            }
            if is_new {
                self.slots.push(reading);
                if let Some(grid) = &mut self.grid {
                    grid.insert(slot, reading.place);
                }
            } else {
                let before = self.slots[slot as usize];
                if self.order(&reading, &before)? != Ordering::Greater {
                    continue;
                }
                self.leave(before.batch);
                self.slots[slot as usize] = reading;
                if let Some(grid) = &mut self.grid {
                    grid.shift(slot, before.place, reading.place);
                }
            }
            if let Some(Some(held)) = self.batches.get_mut(id as usize) {
                held.alive += 1;
            }
        }
        self.leave(id);
        self.tidy()
    }

    fn slot_of(&mut self, keys: &ArrayRef, row: usize) -> Result<(u32, bool)> {
        let next = u32::try_from(self.slots.len())
            .map_err(|_| Error::config("a twin has more than 4 billion instances"))?;
        if let Some(texts) = keys.as_any().downcast_ref::<StringArray>() {
            if matches!(self.keys, Keys::None) {
                self.keys = Keys::Text(HashMap::default());
            }
            if let Keys::Text(map) = &mut self.keys {
                return Ok(find_or_add(map, texts.value(row), next));
            }
        } else if let Some(numbers) = keys.as_primitive_opt::<Int64Type>() {
            if matches!(self.keys, Keys::None) {
                self.keys = Keys::Number(HashMap::default());
            }
            if let Keys::Number(map) = &mut self.keys {
                let key = numbers.value(row);
                if let Some(slot) = map.get(&key) {
                    return Ok((*slot, false));
                }
                map.insert(key, next);
                return Ok((next, true));
            }
        }
        Err(Error::internal(format!("a twin's key is {}", keys.data_type())))
    }

    /// Which of two readings of an instance comes later in the fold's order.
    fn order(&self, a: &Slot, b: &Slot) -> Result<Ordering> {
        let times = (a.valid_us, a.known_us, a.sequence).cmp(&(b.valid_us, b.known_us, b.sequence));
        if times != Ordering::Equal {
            return Ok(times);
        }
        let rows = |slot: &Slot| self.batches.get(slot.batch as usize).and_then(Option::as_ref);
        let (Some(left), Some(right)) = (rows(a), rows(b)) else {
            return Err(Error::internal("a twin's state lost its rows"));
        };
        let options = SortOptions { descending: false, nulls_first: true };
        for column in &self.deciding {
            let compare = make_comparator(left.rows.column(*column), right.rows.column(*column), options)?;
            let order = compare(a.row as usize, b.row as usize);
            if order != Ordering::Equal {
                return Ok(order);
            }
        }
        Ok(Ordering::Equal)
    }

    fn hold(&mut self, held: Held) -> u32 {
        self.rows_held += held.rows.num_rows();
        if let Some(id) = self.free.pop() {
            self.batches[id as usize] = Some(held);
            return id;
        }
        self.batches.push(Some(held));
        (self.batches.len() - 1) as u32
    }

    /// A row of a batch is nobody's state any more; a batch without any goes.
    fn leave(&mut self, batch: u32) {
        let Some(place) = self.batches.get_mut(batch as usize) else { return };
        let Some(held) = place else { return };
        held.alive -= 1;
        if held.alive == 0 {
            self.rows_held -= held.rows.num_rows();
            *place = None;
            self.free.push(batch);
        }
    }

    fn is_untidy(&self) -> bool {
        let batches = self.batches.len() - self.free.len();
        self.rows_held > 2 * self.slots.len() + SMALL || batches > 64 + self.slots.len() / SMALL_BATCH
    }

    /// Rewrites some batches that are mostly overtaken, or small, as one.
    fn tidy(&mut self) -> Result<()> {
        if !self.is_untidy() {
            return Ok(());
        }
        let (mut seen, mut chosen, mut alive) = (0, Vec::new(), 0);
        while seen < self.batches.len() && alive < TIDY_ROWS {
            self.next_tidy = (self.next_tidy + 1) % self.batches.len();
            seen += 1;
            let Some(Some(held)) = self.batches.get(self.next_tidy) else { continue };
            let rows = held.rows.num_rows();
            if held.alive * 2 < rows || rows < SMALL_BATCH {
                alive += held.alive;
                chosen.push(self.next_tidy as u32);
            }
        }
        let mut moved: Vec<u32> = Vec::with_capacity(alive);
        for batch in &chosen {
            let Some(Some(held)) = self.batches.get(*batch as usize) else { continue };
            let owned = held.owners.iter().enumerate().filter(|(row, slot)| {
                let state = &self.slots[**slot as usize];
                state.batch == *batch && state.row as usize == *row
            });
            moved.extend(owned.map(|(_, slot)| *slot));
        }
        if moved.is_empty() {
            return Ok(());
        }
        let rows = self.gather(&moved)?;
        let count = moved.len();
        let id = self.hold(Held { rows, owners: moved.clone(), alive: count });
        for (row, slot) in moved.into_iter().enumerate() {
            let before = self.slots[slot as usize].batch;
            let state = &mut self.slots[slot as usize];
            (state.batch, state.row) = (id, row as u32);
            self.leave(before);
        }
        Ok(())
    }

    /// The rows of slots as one batch.
    fn gather(&self, slots: &[u32]) -> Result<RecordBatch> {
        let mut places: HashMap<u32, usize, ahash::RandomState> = HashMap::default();
        let mut batches: Vec<&RecordBatch> = Vec::new();
        let mut indices = Vec::with_capacity(slots.len());
        for slot in slots {
            let state = self.slots[*slot as usize];
            let place = if let Some(place) = places.get(&state.batch) {
                *place
            } else {
                let held = self.batches.get(state.batch as usize).and_then(Option::as_ref);
                let held = held.ok_or_else(|| Error::internal("a twin's state lost its rows"))?;
                batches.push(&held.rows);
                places.insert(state.batch, batches.len() - 1);
                batches.len() - 1
            };
            indices.push((place, state.row as usize));
        }
        if indices.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        Ok(interleave_record_batch(&batches, &indices)?)
    }

    fn gathered(&self, slots: &[u32]) -> Result<Vec<RecordBatch>> {
        slots.chunks(BATCH_ROWS).map(|slots| self.gather(slots)).collect()
    }

    /// All instances, in the order in which they came.
    pub(super) fn all(&mut self) -> Result<Vec<RecordBatch>> {
        if let Some(all) = &self.all {
            return Ok(all.clone());
        }
        let slots: Vec<u32> = (0..self.slots.len() as u32).collect();
        let all = self.gathered(&slots)?;
        self.all = Some(all.clone());
        Ok(all)
    }

    /// All instances with the log sequences of their readings, as far as known.
    pub(super) fn with_sequences(&self) -> Result<Vec<(RecordBatch, Int64Array)>> {
        let slots: Vec<u32> = (0..self.slots.len() as u32).collect();
        let parts = slots.chunks(BATCH_ROWS).map(|part| {
            let sequences = part.iter().map(|slot| self.slots[*slot as usize].sequence).collect();
            Ok((self.gather(part)?, sequences))
        });
        parts.collect()
    }

    /// The instances of these keys (texts of them), as far as there are.
    pub(super) fn of_keys<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Result<Vec<RecordBatch>> {
        let mut slots: Vec<u32> = Vec::new();
        for key in keys {
            let slot = match &self.keys {
                Keys::None => None,
                Keys::Text(map) => map.get(key).copied(),
                Keys::Number(map) => key.parse::<i64>().ok().and_then(|key| map.get(&key).copied()),
            };
            slots.extend(slot);
        }
        slots.sort_unstable();
        slots.dedup();
        self.gathered(&slots)
    }

    /// The instances whose place may lie in a box; all, when they have no place.
    pub(super) fn in_extent(&mut self, extent: Extent) -> Result<Vec<RecordBatch>> {
        let Some(grid) = &self.grid else { return self.all() };
        let inside = |slot: &u32| match self.slots[*slot as usize].place {
            Place::At(x, y) => extent[0] <= x && x <= extent[2] && extent[1] <= y && y <= extent[3],
            Place::Anywhere => true,
            Place::Nowhere => false,
        };
        let mut slots: Vec<u32> = grid.candidates(extent).into_iter().filter(inside).collect();
        slots.sort_unstable();
        self.gathered(&slots)
    }
}
