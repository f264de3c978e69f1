//! The electrical network of a power flow, read from the tables and turned to admittances.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, StringArray};
use faer::c64;
use twinlake_contracts::{Error, Result, Snapshot};

use super::layout::Layout;
use crate::columns::Table;

/// What holds a bus: the unknowns are the angle except at a slack, and the voltage at a `Pq` bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BusKind {
    /// Consumption and generation are given.
    Pq,
    /// Active power and voltage are given.
    Pv,
    /// Voltage and angle are given.
    Slack,
    /// Switched off by the input.
    Isolated,
}

/// A bus, powers in per unit.
#[derive(Debug, Clone)]
pub(super) struct Bus {
    pub(super) id: i64,
    pub(super) kind: BusKind,
    pub(super) demand: c64,
    pub(super) shunt: c64,
    /// Where to start; at a bus with a generator the generator's set point.
    pub(super) vm: f64,
    pub(super) va: f64,
    /// Generators in service, by row.
    pub(super) generators: Vec<usize>,
}

/// A generator, powers in per unit.
#[derive(Debug, Clone)]
pub(super) struct Generator {
    pub(super) id: i64,
    pub(super) bus: usize,
    pub(super) p: f64,
    pub(super) q: f64,
    pub(super) q_max: f64,
    pub(super) q_min: f64,
    pub(super) in_service: bool,
}

/// A line or transformer: the π model with an ideal transformer at its from end.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) id: i64,
    pub(super) from: usize,
    pub(super) to: usize,
    /// `[I_from; I_to] = [y_ff y_ft; y_tf y_tt] [V_from; V_to]`, in this order.
    pub(super) admittance: [c64; 4],
    /// `1 / (x · ratio)` and the phase shift, for the DC approximation; infinite where x is 0.
    pub(super) susceptance: f64,
    pub(super) shift: f64,
    /// Per unit.
    pub(super) rating: Option<f64>,
    pub(super) in_service: bool,
}

/// The network: buses, generators and branches in the order of their tables.
pub(super) struct Grid {
    pub(super) base_mva: f64,
    pub(super) buses: Vec<Bus>,
    /// What people call the buses, where there is such a column.
    pub(super) names: Option<StringArray>,
    pub(super) generators: Vec<Generator>,
    pub(super) branches: Vec<Branch>,
    pub(super) layout: Arc<Layout>,
    /// The bus admittance matrix over the pattern of the layout, with all branches in service.
    pub(super) admittance: Vec<c64>,
}

impl Grid {
    pub(super) fn read(city: &Snapshot, flat_start: bool) -> Result<Self> {
        let base_mva = base_mva(city)?;
        let (mut buses, names, index) = read_buses(city, base_mva, flat_start)?;
        let generators = read_generators(city, base_mva, &mut buses, &index)?;
        for bus in &mut buses {
            // Without a generator in service nothing holds the voltage.
            if bus.kind == BusKind::Pv && bus.generators.is_empty() {
                bus.kind = BusKind::Pq;
            }
        }
        let branches = read_branches(city, base_mva, &buses, &index)?;
        let edges = branches.iter().map(|branch| (branch.from, branch.to)).collect();
        let layout = Layout::of_graph(buses.len(), edges)?;
        let mut admittance = vec![c64::new(0.0, 0.0); layout.pattern.columns.len()];
        for (bus, &at) in buses.iter().zip(&layout.diagonal) {
            admittance[at] += bus.shunt;
        }
        for (branch, at) in branches.iter().zip(&layout.places) {
            if branch.in_service {
                at.iter().zip(branch.admittance).for_each(|(&at, y)| admittance[at] += y);
            }
        }
        Ok(Self { base_mva, buses, names, generators, branches, layout, admittance })
    }

    /// Which buses a slack reaches over branches in service, `without` taken away.
    pub(super) fn supplied(&self, without: Option<usize>) -> Vec<bool> {
        let mut supplied = vec![false; self.buses.len()];
        let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); self.buses.len()];
        for (row, branch) in self.branches.iter().enumerate() {
            if branch.in_service && Some(row) != without {
                neighbours[branch.from].push(branch.to);
                neighbours[branch.to].push(branch.from);
            }
        }
        let mut open: Vec<usize> =
            (0..self.buses.len()).filter(|&bus| self.buses[bus].kind == BusKind::Slack).collect();
        for &bus in &open {
            supplied[bus] = true;
        }
        while let Some(bus) = open.pop() {
            for &next in &neighbours[bus] {
                if !supplied[next] {
                    supplied[next] = true;
                    open.push(next);
                }
            }
        }
        supplied
    }

    /// Generation minus demand at a bus as given, per unit.
    pub(super) fn scheduled(&self, bus: usize) -> c64 {
        let bus = &self.buses[bus];
        let generation = bus.generators.iter().fold(c64::new(0.0, 0.0), |sum, &generator| {
            let generator = &self.generators[generator];
            sum + c64::new(generator.p, generator.q)
        });
        generation - bus.demand
    }

    /// Sum of the reactive limits (least, most) of the generators in service at a bus.
    pub(super) fn reactive_limits(&self, bus: usize) -> (f64, f64) {
        self.buses[bus].generators.iter().fold((0.0, 0.0), |(least, most), &generator| {
            let generator = &self.generators[generator];
            (least + generator.q_min, most + generator.q_max)
        })
    }
}

fn base_mva(city: &Snapshot) -> Result<f64> {
    let Some(batch) = city.tables.get("system") else { return Ok(100.0) };
    match Table::new("system", batch).numbers("base_mva")?.as_slice() {
        [Some(base)] if base.is_finite() && *base > 0.0 => Ok(*base),
        _ => Err(Error::config("the table 'system' must have one row with a base_mva above 0")),
    }
}

/// A number that must be there and finite.
fn finite(values: &[Option<f64>], row: usize, name: &str, of: &dyn Fn() -> String) -> Result<f64> {
    match values[row] {
        Some(value) if value.is_finite() => Ok(value),
        Some(value) => {
            Err(Error::config(format!("{} has {name} {value}, which is not a finite number", of())))
        }
        None => Err(Error::config(format!("{} has no {name}", of()))),
    }
}

/// Rows by identifier.
enum Index {
    /// Identifiers that lie close together: from the least one on, `u32::MAX` where there is none.
    Dense {
        least: i64,
        rows: Vec<u32>,
    },
    Sparse(HashMap<i64, usize>),
}

impl Index {
    /// An error is the row of the second of two that are the same.
    fn new(ids: &[i64]) -> Result<Self, usize> {
        let (least, most) = (ids.iter().min().copied().unwrap_or(0), ids.iter().max().copied().unwrap_or(0));
        let span = i128::from(most) - i128::from(least);
        if span < 16 * ids.len() as i128 + 64 {
            let mut rows = vec![u32::MAX; span as usize + 1];
            for (row, id) in ids.iter().enumerate() {
                let slot = &mut rows[(id - least) as usize];
                if *slot != u32::MAX {
                    return Err(row);
                }
                *slot = row as u32;
            }
            return Ok(Self::Dense { least, rows });
        }
        let mut rows = HashMap::with_capacity(ids.len());
        match ids.iter().enumerate().find(|(row, id)| rows.insert(**id, *row).is_some()) {
            Some((row, _)) => Err(row),
            None => Ok(Self::Sparse(rows)),
        }
    }

    fn get(&self, id: i64) -> Option<usize> {
        match self {
            Self::Dense { least, rows } => {
                let slot = id.checked_sub(*least).and_then(|at| usize::try_from(at).ok())?;
                rows.get(slot).filter(|row| **row != u32::MAX).map(|row| *row as usize)
            }
            Self::Sparse(rows) => rows.get(&id).copied(),
        }
    }
}

type Buses = (Vec<Bus>, Option<StringArray>, Index);

fn read_buses(city: &Snapshot, base: f64, flat_start: bool) -> Result<Buses> {
    let batch = city.table("buses")?;
    let table = Table::new("buses", batch);
    let rows = batch.num_rows();
    if rows == 0 {
        return Err(Error::config("the network is empty: the table 'buses' has no row"));
    }
    let ids = table.integers("bus_id")?;
    let names = if table.has("name") { Some(table.strings("name")?) } else { None };
    let kinds = table.strings("kind")?;
    let or_zero = |name: &str| if table.has(name) { table.numbers(name) } else { Ok(vec![Some(0.0); rows]) };
    let columns = [
        table.numbers("demand_mw")?,
        table.numbers("demand_mvar")?,
        or_zero("shunt_mw")?,
        or_zero("shunt_mvar")?,
    ];
    let (vm, va) = (
        if table.has("vm_pu") { table.numbers("vm_pu")? } else { vec![Some(1.0); rows] },
        or_zero("va_deg")?,
    );
    let mut buses = Vec::with_capacity(rows);
    let twice =
        |row: usize| Error::config(format!("bus {} (row {} of 'buses') is there twice", ids[row], row + 1));
    let index = Index::new(&ids).map_err(twice)?;
    for (row, &id) in ids.iter().enumerate() {
        let of = || format!("bus {id} (row {} of 'buses')", row + 1);
        let kind = match kinds.is_valid(row).then(|| kinds.value(row)) {
            Some("pq") => BusKind::Pq,
            Some("pv") => BusKind::Pv,
            Some("slack") => BusKind::Slack,
            Some("isolated") => BusKind::Isolated,
            other => {
                let other = other.unwrap_or("none");
                return Err(Error::config(format!("{} has the kind '{other}'", of()))
                    .with_help("a kind is one of 'pq', 'pv', 'slack', 'isolated'"));
            }
        };
        let per_unit = |column: usize, name: &str| -> Result<f64> {
            Ok(finite(&columns[column], row, name, &of)? / base)
        };
        let start = if flat_start && kind != BusKind::Slack {
            (1.0, 0.0)
        } else {
            (finite(&vm, row, "vm_pu", &of)?, finite(&va, row, "va_deg", &of)?)
        };
        if start.0 <= 0.0 {
            return Err(Error::config(format!("{} has vm_pu {}, which must be above 0", of(), start.0)));
        }
        buses.push(Bus {
            id,
            kind,
            demand: c64::new(per_unit(0, "demand_mw")?, per_unit(1, "demand_mvar")?),
            shunt: c64::new(per_unit(2, "shunt_mw")?, per_unit(3, "shunt_mvar")?),
            vm: start.0,
            va: start.1.to_radians(),
            generators: Vec::new(),
        });
    }
    let slack: Vec<&Bus> = buses.iter().filter(|bus| bus.kind == BusKind::Slack).collect();
    let Some(first) = slack.first() else {
        return Err(Error::config("no bus is of the kind 'slack'").with_help(
            "set the kind of the bus that keeps the balance, for example the largest plant, to 'slack'",
        ));
    };
    if flat_start {
        let angle = first.va;
        buses.iter_mut().filter(|bus| bus.kind != BusKind::Slack).for_each(|bus| bus.va = angle);
    }
    Ok((buses, names, index))
}

fn bus_of(index: &Index, id: i64, of: &dyn Fn() -> String) -> Result<usize> {
    index.get(id).ok_or_else(|| {
        Error::config(format!("{} names bus {id}, which the table 'buses' does not have", of()))
    })
}

/// True where the table has no such column, or no value.
fn in_service(table: &Table<'_>, rows: usize) -> Result<Vec<bool>> {
    if !table.has("in_service") {
        return Ok(vec![true; rows]);
    }
    Ok(table.flags("in_service")?.into_iter().map(|flag| flag.unwrap_or(true)).collect())
}

fn read_generators(city: &Snapshot, base: f64, buses: &mut [Bus], index: &Index) -> Result<Vec<Generator>> {
    let batch = city.table("generators")?;
    let table = Table::new("generators", batch);
    let rows = batch.num_rows();
    let ids = table.integers("generator_id")?;
    let at = table.integers("bus_id")?;
    let on = in_service(&table, rows)?;
    let (p, setpoint) = (table.numbers("p_mw")?, table.numbers("vm_setpoint_pu")?);
    let optional = |name: &str, missing: f64| {
        if table.has(name) { table.numbers(name) } else { Ok(vec![Some(missing); rows]) }
    };
    let q = optional("q_mvar", 0.0)?;
    let (q_max, q_min) = (optional("q_max_mvar", f64::INFINITY)?, optional("q_min_mvar", f64::NEG_INFINITY)?);
    let mut generators = Vec::with_capacity(rows);
    for (row, &id) in ids.iter().enumerate() {
        let of = || format!("generator {id} (row {} of 'generators')", row + 1);
        let bus = bus_of(index, at[row], &of)?;
        let on = on[row] && buses[bus].kind != BusKind::Isolated;
        let limit = |values: &[Option<f64>], name: &str, missing: f64| match values[row] {
            Some(value) if value.is_nan() => {
                Err(Error::config(format!("{} has a {name} that is no number", of())))
            }
            value => Ok(value.unwrap_or(missing) / base),
        };
        let generator = Generator {
            id,
            bus,
            p: finite(&p, row, "p_mw", &of)? / base,
            q: finite(&q, row, "q_mvar", &of)? / base,
            q_max: limit(&q_max, "q_max_mvar", f64::INFINITY)?,
            q_min: limit(&q_min, "q_min_mvar", f64::NEG_INFINITY)?,
            in_service: on,
        };
        if on {
            if generator.q_min > generator.q_max {
                return Err(Error::config(format!("{} has q_min_mvar above q_max_mvar", of())));
            }
            let setpoint = finite(&setpoint, row, "vm_setpoint_pu", &of)?;
            if setpoint <= 0.0 {
                return Err(Error::config(format!(
                    "{} has vm_setpoint_pu {setpoint}, which must be above 0",
                    of()
                )));
            }
            // The last generator of a bus decides, as in MATPOWER.
            if buses[bus].kind != BusKind::Pq {
                buses[bus].vm = setpoint;
            }
            buses[bus].generators.push(row);
        }
        generators.push(generator);
    }
    Ok(generators)
}

fn read_branches(city: &Snapshot, base: f64, buses: &[Bus], index: &Index) -> Result<Vec<Branch>> {
    let batch = city.table("branches")?;
    let table = Table::new("branches", batch);
    let rows = batch.num_rows();
    let ids = table.integers("branch_id")?;
    let (from, to) = (table.integers("from_bus")?, table.integers("to_bus")?);
    let on = in_service(&table, rows)?;
    let (r, x) = (table.numbers("r_pu")?, table.numbers("x_pu")?);
    let optional = |name: &str, missing: Option<f64>| {
        if table.has(name) { table.numbers(name) } else { Ok(vec![missing; rows]) }
    };
    let b = optional("b_pu", Some(0.0))?;
    let ratio = optional("tap_ratio", Some(1.0))?;
    let shift = optional("shift_deg", Some(0.0))?;
    let rating = optional("rating_mva", None)?;
    let mut branches = Vec::with_capacity(rows);
    for (row, &id) in ids.iter().enumerate() {
        let of = || format!("branch {id} (row {} of 'branches')", row + 1);
        let ends = (bus_of(index, from[row], &of)?, bus_of(index, to[row], &of)?);
        let open = |bus: usize| buses[bus].kind == BusKind::Isolated;
        let on = on[row] && !open(ends.0) && !open(ends.1);
        let impedance = c64::new(finite(&r, row, "r_pu", &of)?, finite(&x, row, "x_pu", &of)?);
        let ratio = finite(&ratio, row, "tap_ratio", &of)?;
        if on && impedance.re == 0.0 && impedance.im == 0.0 {
            return Err(Error::config(format!("{} has no impedance: r_pu and x_pu are 0", of()))
                .with_help("join its two buses to one, or give it a small x_pu"));
        }
        if on && ends.0 == ends.1 {
            return Err(Error::config(format!("{} begins and ends at the same bus", of())));
        }
        if on && ratio <= 0.0 {
            return Err(Error::config(format!(
                "{} has tap_ratio {ratio}, which must be above 0; 1 for a line",
                of()
            )));
        }
        let shift = finite(&shift, row, "shift_deg", &of)?.to_radians();
        let series = if on { 1.0 / impedance } else { c64::new(0.0, 0.0) };
        let tap = c64::from_polar(ratio, shift);
        let y_tt = series + c64::new(0.0, finite(&b, row, "b_pu", &of)? / 2.0);
        branches.push(Branch {
            id,
            from: ends.0,
            to: ends.1,
            admittance: [y_tt / (ratio * ratio), -series / tap.conj(), -series / tap, y_tt],
            susceptance: 1.0 / (impedance.im * ratio),
            shift,
            rating: rating[row]
                .filter(|rating| *rating > 0.0 && rating.is_finite())
                .map(|rating| rating / base),
            in_service: on,
        });
    }
    Ok(branches)
}
