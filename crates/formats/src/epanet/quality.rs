//! [QUALITY], [SOURCES], [REACTIONS] and [MIXING]: columns added to nodes, tanks and pipes, and a table of sources.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use twinlake_contracts::Result;

use super::lines::Line;
use super::options::{Headloss, M_PER_FT};
use super::{Network, batch, floats, optional_texts, texts};

/// Which of `ids` lie between two: by number if both bounds are numbers, else by letters.
pub(super) fn in_range(first: &str, last: &str, ids: &[&str]) -> Vec<usize> {
    let number = |id: &str| -> i64 {
        let digits = id.find(|c: char| !c.is_ascii_digit()).unwrap_or(id.len());
        id[..digits].parse().unwrap_or(0)
    };
    let bounds = (number(first), number(last));
    let numeric = bounds.0 > 0 && bounds.1 > 0;
    let inside = |id: &str| {
        if numeric { (bounds.0..=bounds.1).contains(&number(id)) } else { (first..=last).contains(&id) }
    };
    (0..ids.len()).filter(|&index| inside(ids[index])).collect()
}

/// The tables that these sections change or add.
pub(super) fn tables(
    network: &mut Network<'_>,
    tables: &BTreeMap<String, RecordBatch>,
) -> Result<BTreeMap<String, RecordBatch>> {
    let quality = initial_quality(network)?;
    let reactions = reactions(network, tables)?;
    let (mixing, fraction) = mixing(network)?;
    let rows_of = |table: &RecordBatch| -> Vec<usize> {
        table["node_id"].as_string::<i32>().iter().flatten().map(|id| network.nodes[id]).collect()
    };
    let pick = |values: &[f64], rows: &[usize]| floats(rows.iter().map(|&row| values[row]).collect());
    let mut changed = BTreeMap::new();
    for role in ["junctions", "reservoirs", "tanks"] {
        let table = &tables[role];
        let rows = rows_of(table);
        let mut columns = vec![("initial_quality", pick(&quality, &rows))];
        if role == "tanks" {
            columns.push(("mixing", texts(rows.iter().map(|&row| mixing[row]))));
            columns.push(("mixing_fraction", pick(&fraction, &rows)));
            columns.push(("bulk_coefficient", pick(&reactions.tank, &rows)));
        }
        changed.insert(role.to_owned(), with_columns(table, columns)?);
    }
    let columns =
        vec![("bulk_coefficient", floats(reactions.bulk)), ("wall_coefficient", floats(reactions.wall))];
    changed.insert("pipes".to_owned(), with_columns(&tables["pipes"], columns)?);
    changed.insert("sources".to_owned(), sources(network)?);
    for (name, value) in reactions.options {
        network.options.add(name, value);
    }
    Ok(changed)
}

fn with_columns(table: &RecordBatch, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let schema = table.schema();
    let before = schema.fields().iter().zip(table.columns());
    let before = before.map(|(field, column)| (field.name().as_str(), column.clone()));
    batch(before.chain(columns).collect())
}

fn initial_quality(network: &Network<'_>) -> Result<Vec<f64>> {
    let mut quality = vec![0.0; network.node_ids.len()];
    for line in network.sections.lines("QUALITY") {
        if line.words.len() == 2 {
            quality[network.node(line, 0)?] = line.not_negative(1, "the quality", 0.0)?;
        } else if line.words.len() > 2 {
            let value = line.not_negative(2, "the quality", 0.0)?;
            for node in in_range(line.words[0], line.words[1], &network.node_ids) {
                quality[node] = value;
            }
        }
    }
    Ok(quality)
}

fn mixing(network: &Network<'_>) -> Result<(Vec<&'static str>, Vec<f64>)> {
    let nodes = network.node_ids.len();
    let (mut models, mut fractions) = (vec!["mixed"; nodes], vec![1.0; nodes]);
    for line in network.sections.lines("MIXING") {
        if line.words.len() < 2 {
            continue;
        }
        let node = network.node(line, 0)?;
        models[node] = match () {
            () if line.is(1, "MIXED") => "mixed",
            () if line.is(1, "2COMP") => "two_compartments",
            () if line.is(1, "FIFO") => "fifo",
            () if line.is(1, "LIFO") => "lifo",
            () => return Err(line.error(1, "the mixing model is none of MIXED, 2COMP, FIFO, LIFO")),
        };
        let fraction = line.not_negative(2, "the fraction", 1.0)?;
        fractions[node] = if fraction == 0.0 { 1.0 } else { fraction };
    }
    Ok((models, fractions))
}

fn sources(network: &Network<'_>) -> Result<RecordBatch> {
    // The last line of a node counts.
    let mut rows: BTreeMap<usize, (&'static str, f64, Option<&str>)> = BTreeMap::new();
    for line in network.sections.lines("SOURCES") {
        let node = network.node(line, 0)?;
        let kind = match () {
            () if line.is(1, "CONCEN") => Some("concentration"),
            () if line.is(1, "MASS") => Some("mass"),
            () if line.is(1, "SETPOINT") => Some("set_point"),
            () if line.is(1, "FLOWPACED") => Some("flow_paced"),
            () => None,
        };
        let at = if kind.is_some() { 2 } else { 1 };
        let strength = line.number(at, "the strength")?;
        rows.insert(node, (kind.unwrap_or("concentration"), strength, network.pattern(line, at + 1)?));
    }
    batch(vec![
        ("node_id", texts(rows.keys().map(|&node| network.node_ids[node]))),
        ("kind", texts(rows.values().map(|row| row.0))),
        ("strength", floats(rows.values().map(|row| row.1).collect())),
        ("pattern_id", optional_texts(rows.values().map(|row| row.2))),
    ])
}

struct Reactions {
    /// By pipe.
    bulk: Vec<f64>,
    wall: Vec<f64>,
    /// By node.
    tank: Vec<f64>,
    options: Vec<(&'static str, f64)>,
}

fn reactions(network: &Network<'_>, tables: &BTreeMap<String, RecordBatch>) -> Result<Reactions> {
    let (pipes, nodes) = (tables["pipes"].num_rows(), network.node_ids.len());
    let (mut global_bulk, mut global_wall, mut roughness_factor) = (0.0, 0.0, 0.0);
    let (mut bulk, mut wall, mut tank) = (vec![None; pipes], vec![None; pipes], vec![None; nodes]);
    let mut options = Vec::new();
    let mut wall_order = 1.0;
    for line in network.sections.lines("REACTIONS") {
        if line.words.len() < 3 && !line.is(0, "ROUG") {
            continue;
        }
        let last = line.words.len() - 1;
        let value = line.number(last, "the value")?;
        match () {
            () if line.is(0, "ORDER") && line.is(1, "BULK") => options.push(("bulk_order", value)),
            () if line.is(0, "ORDER") && line.is(1, "TANK") => options.push(("tank_order", value)),
            () if line.is(0, "ORDER") && line.is(1, "WALL") => {
                if value != 0.0 && value != 1.0 {
                    return Err(line.error(last, "the order of a wall reaction is 0 or 1"));
                }
                wall_order = value;
                options.push(("wall_order", value));
            }
            () if line.is(0, "ROUG") => roughness_factor = value,
            () if line.is(0, "LIMIT") => options.push(("limiting_concentration", value)),
            () if line.is(0, "GLOB") && line.is(1, "BULK") => global_bulk = value,
            () if line.is(0, "GLOB") && line.is(1, "WALL") => global_wall = value,
            () if line.is(0, "BULK") => set(line, value, &network.link_ids, &mut bulk),
            () if line.is(0, "WALL") => set(line, value, &network.link_ids, &mut wall),
            () if line.is(0, "TANK") => set(line, value, &network.node_ids, &mut tank),
            () => return Err(line.error(0, "this reaction is unknown")),
        }
    }
    // A wall coefficient that depends on roughness is computed from roughness and diameter in the file's units.
    let units = network.options.units;
    let column = |name: &str| tables["pipes"][name].as_primitive::<Float64Type>().values().to_vec();
    let (roughness, diameter) = (column("roughness"), column("diameter_m"));
    let by_roughness = |row: usize| match network.options.headloss {
        Headloss::HazenWilliams => roughness_factor / roughness[row],
        Headloss::ChezyManning => roughness_factor * roughness[row],
        Headloss::DarcyWeisbach => {
            let in_file = roughness[row] / (units.length / 1000.0) / (diameter[row] / units.diameter);
            roughness_factor / in_file.ln().abs()
        }
    };
    let unit = match (units.metric, wall_order == 0.0) {
        (true, _) => 1.0,
        (false, false) => M_PER_FT,
        (false, true) => M_PER_FT.powi(-2),
    };
    let wall_of = |row: usize, given: Option<f64>| {
        given.unwrap_or_else(|| if roughness_factor == 0.0 { global_wall } else { by_roughness(row) }) * unit
    };
    Ok(Reactions {
        bulk: bulk.into_iter().map(|given| given.unwrap_or(global_bulk)).collect(),
        wall: wall.into_iter().enumerate().map(|(row, given)| wall_of(row, given)).collect(),
        tank: tank.into_iter().map(|given| given.unwrap_or(global_bulk)).collect(),
        options,
    })
}

/// Sets the coefficient of one id, or of a range of them; ids that are not there are passed over, as the format's own
/// program does.
fn set(line: &Line<'_>, value: f64, ids: &[&str], of: &mut [Option<f64>]) {
    let chosen = if line.words.len() == 3 {
        ids.iter().position(|id| *id == line.words[1]).into_iter().collect()
    } else {
        in_range(line.words[1], line.words[2], ids)
    };
    for index in chosen {
        if let Some(of) = of.get_mut(index) {
            *of = Some(value);
        }
    }
}
