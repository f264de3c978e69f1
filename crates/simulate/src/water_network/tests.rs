//! The operator on networks small enough to check by hand, on EPANET's first example, and on bad input.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde_json::Value;
use twinlake_contracts::{Horizon, Operator, Outcome, Result, Snapshot};

use super::WaterNetwork;

pub(super) type Tables = BTreeMap<String, RecordBatch>;

pub(super) fn run(tables: Tables, set: &[(&str, Value)]) -> Result<Outcome> {
    let parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let city = Snapshot { tables };
    WaterNetwork.run(&city, Horizon { from_us: 0, to_us: 0 }, 0, &parameters, &|_, _| true)
}
