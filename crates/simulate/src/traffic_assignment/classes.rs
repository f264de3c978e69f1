//! User classes: groups of trips that take different room on the road and weigh toll and distance differently.
//!
//! All classes share the roads: a link's time depends on `v = Σ pce_m v_m`, the flow in passenger-car equivalents. A vehicle of
//! class `m` pays `t(v) + toll_weight_m · toll + distance_weight_m · length`. With flows `y_m = pce_m v_m` the equilibrium
//! minimises `Σ ∫₀^Σy t(s) ds + Σ_m Σ_a s_m y_m` (Dafermos 1972; convex here, since all classes have the same time on a link), so
//! that times and the sum of flows on links whose time rises are unique; how the classes share them need not be.

use arrow::array::RecordBatch;
use twinlake_contracts::{Error, Result};

use crate::columns::Table;

/// A class.
pub(crate) struct UserClass {
    /// `None` for the only class of a run without a table of classes.
    pub(crate) name: Option<String>,
    /// Passenger-car equivalents of a vehicle.
    pub(crate) pce: f64,
    pub(crate) toll_weight: f64,
    pub(crate) distance_weight: f64,
    /// Its part of every pair's trips, where the demand does not say whose they are.
    pub(crate) share: f64,
}

impl UserClass {
    /// The only class: all trips.
    pub(crate) fn everybody(toll_weight: f64, distance_weight: f64) -> Self {
        Self { name: None, pce: 1.0, toll_weight, distance_weight, share: 1.0 }
    }

    /// The table `classes`; `everybody` says what a column that is left out is.
    pub(crate) fn read(batch: &RecordBatch, everybody: &Self) -> Result<Vec<Self>> {
        let table = Table::new("classes", batch);
        let names = table.texts("class")?;
        let column = |name: &str, missing: f64| {
            if table.has(name) { table.numbers(name) } else { Ok(vec![Some(missing); names.len()]) }
        };
        let pce = column("pce", everybody.pce)?;
        let toll = column("toll_weight", everybody.toll_weight)?;
        let distance = column("distance_weight", everybody.distance_weight)?;
        let share = column("share", everybody.share)?;
        let mut classes: Vec<Self> = Vec::with_capacity(names.len());
        for (row, name) in names.into_iter().enumerate() {
            let name =
                name.ok_or_else(|| Error::config(format!("row {} of 'classes' has no class", row + 1)))?;
            let number = |of: &str, value: Option<f64>, wanted: &str, allowed: fn(f64) -> bool| {
                value.filter(|value| value.is_finite() && allowed(*value)).ok_or_else(|| {
                    Error::config(format!("class '{name}' (row {} of 'classes') has {of} {value:?}", row + 1))
                        .with_help(format!("{of} must be {wanted}"))
                })
            };
            if classes.iter().any(|class| class.name.as_ref() == Some(&name)) {
                return Err(Error::config(format!("class '{name}' is there twice in 'classes'")));
            }
            classes.push(Self {
                pce: number("pce", pce[row], "a number above 0", |pce| pce > 0.0)?,
                toll_weight: number("toll_weight", toll[row], "a finite number", |_| true)?,
                distance_weight: number("distance_weight", distance[row], "a finite number", |_| true)?,
                share: number("share", share[row], "a number, not negative", |share| share >= 0.0)?,
                name: Some(name),
            });
        }
        if classes.is_empty() {
            return Err(
                Error::config("the table 'classes' has no row").with_help("leave it out for one class")
            );
        }
        Ok(classes)
    }

    /// How messages call it.
    pub(crate) fn shown(&self) -> String {
        self.name.as_ref().map_or_else(String::new, |name| format!(" of class '{name}'"))
    }
}
