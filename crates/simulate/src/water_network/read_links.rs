//! From the tables of links to the model.

use std::f64::consts::PI;

use ahash::AHashMap;
use arrow::array::RecordBatch;
use twinlake_contracts::{Error, Result, Snapshot};

use super::leakage;
use super::model::{
    BIG, LARGE, Link, LinkKind, M_PER_FT, M3_PER_FT3, Names, Pump, PumpCurve, SMALL, Status, TINY,
};
use super::options::{Headloss, Reading};
use super::read::{Index, Rows, SECONDS_PER_DAY, Series};

/// Pipes, pumps and valves, in this order.
pub(super) fn read_links(
    city: &Snapshot,
    series: &Series,
    nodes: &Names,
    reading: &Reading,
    junctions: usize,
) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    pipes(city.table("pipes")?, nodes, reading, &mut links)?;
    if let Some(batch) = city.tables.get("pumps") {
        pumps(batch, series, nodes, &mut links)?;
    }
    if let Some(batch) = city.tables.get("valves") {
        valves(batch, series, nodes, junctions, &mut links)?;
    }
    let mut seen = AHashMap::with_capacity(links.len());
    for (place, link) in links.iter().enumerate() {
        if seen.insert(link.id.as_str(), place).is_some() {
            return Err(Error::config(format!("the link '{}' is there twice", link.id)));
        }
    }
    Ok(links)
}

/// Both ends of the links of a table.
fn ends(rows: &Rows<'_>, nodes: &Names) -> Result<Vec<(usize, usize)>> {
    let (from, to) = (rows.texts("from_node")?, rows.texts("to_node")?);
    let index = Index { what: "node", of: nodes };
    (0..rows.count)
        .map(|row| {
            let named_by = || format!("the link {}", rows.name(row));
            let ends = (index.find(from.get(row), &named_by)?, index.find(to.get(row), &named_by)?);
            if ends.0 == ends.1 {
                return Err(Error::config(format!("{} begins and ends at the same node", named_by())));
            }
            Ok(ends)
        })
        .collect()
}

fn status(rows: &Rows<'_>, row: usize, word: Option<&str>, missing: Status) -> Result<Status> {
    match word {
        None => Ok(missing),
        Some("open") => Ok(Status::Open),
        Some("closed") => Ok(Status::Closed),
        Some("active") if missing == Status::Active => Ok(Status::Active),
        Some(other) => Err(Error::config(format!("the link {} has the status '{other}'", rows.name(row)))),
    }
}

/// From `k v²/2g` to `m q²`, with EPANET's 8 / (π² g).
fn minor(coefficient: f64, diameter: f64) -> f64 {
    0.02517 * coefficient / diameter.powi(4)
}

fn pipes(batch: &RecordBatch, nodes: &Names, reading: &Reading, links: &mut Vec<Link>) -> Result<()> {
    let rows = Rows::new("pipes", batch, "link_id")?;
    let ends = ends(&rows, nodes)?;
    let (length, diameter, roughness) =
        (rows.positive("length_m")?, rows.positive("diameter_m")?, rows.positive("roughness")?);
    let (minor_loss, check) = (rows.or("minor_loss", 0.0)?, rows.flags("check_valve")?);
    let statuses = rows.texts("status")?;
    let (bulk, wall) = (rows.or("bulk_coefficient", 0.0)?, rows.or("wall_coefficient", 0.0)?);
    let leak_area = rows.not_negative("leak_area_m2")?;
    let leak_expansion = rows.not_negative("leak_expansion_m")?;
    for row in 0..rows.count {
        let (length, diameter) = (length[row] / M_PER_FT, diameter[row] / M_PER_FT);
        let square = diameter * diameter;
        let (roughness, resistance) = match reading.headloss {
            Headloss::HazenWilliams => {
                let c = roughness[row];
                (c, 4.727 * length / c.powf(1.852) / diameter.powf(4.871))
            }
            Headloss::DarcyWeisbach => {
                (roughness[row] / M_PER_FT, length / 2.0 / 32.2 / diameter / (PI * square / 4.0).powi(2))
            }
            Headloss::ChezyManning => {
                let n = roughness[row];
                (n, (4.0 * n / (1.49 * PI * square)).powi(2) * (diameter / 4.0).powf(-1.333) * length)
            }
        };
        // Zero order wall reactions are per area, those of first order a velocity.
        let wall_unit = if reading.wall_order == 0.0 { M_PER_FT.powi(2) } else { 1.0 / M_PER_FT };
        links.push(Link {
            id: rows.id(row).to_owned(),
            kind: if check[row] { LinkKind::CheckValve } else { LinkKind::Pipe },
            from: ends[row].0,
            to: ends[row].1,
            diameter,
            length,
            roughness,
            resistance,
            minor_loss: minor(minor_loss[row], diameter),
            status: status(&rows, row, statuses.get(row), Status::Open)?,
            setting: Some(roughness),
            pump: None,
            curve: None,
            bulk: bulk[row] / SECONDS_PER_DAY,
            wall: wall[row] / SECONDS_PER_DAY * wall_unit,
            leak: leakage::coefficients(leak_area[row], leak_expansion[row]),
        });
    }
    Ok(())
}

fn pumps(batch: &RecordBatch, series: &Series, nodes: &Names, links: &mut Vec<Link>) -> Result<()> {
    let rows = Rows::new("pumps", batch, "link_id")?;
    let ends = ends(&rows, nodes)?;
    let (curves, patterns, statuses) =
        (rows.texts("curve_id")?, rows.texts("pattern_id")?, rows.texts("status")?);
    let (power, speed) = (rows.or("power_kw", 0.0)?, rows.or("speed", 1.0)?);
    for row in 0..rows.count {
        let named = || format!("the pump {}", rows.name(row));
        let mut pump = match series.curve(curves.get(row), &named)? {
            Some(curve) => pump_with_curve(&series.points[curve], curve, &named)?,
            None if power[row] > 0.0 => Pump {
                curve: PumpCurve::ConstantPower { r: 8.814 * power[row] / 0.7457 },
                start_flow: 1.0,
                most_head: BIG,
                most_flow: BIG,
                pattern: None,
            },
            None => {
                return Err(Error::config(format!("{} has neither curve_id nor power_kw", named())));
            }
        };
        pump.pattern = series.pattern(patterns.get(row), &named)?;
        links.push(Link {
            id: rows.id(row).to_owned(),
            kind: LinkKind::Pump,
            from: ends[row].0,
            to: ends[row].1,
            diameter: 0.0,
            length: 0.0,
            roughness: 0.0,
            resistance: LARGE,
            minor_loss: 0.0,
            status: status(&rows, row, statuses.get(row), Status::Open)?,
            setting: Some(speed[row]),
            pump: Some(pump),
            curve: None,
            bulk: 0.0,
            wall: 0.0,
            leak: [0.0; 2],
        });
    }
    Ok(())
}

/// One point: a parabola-like curve whose shutoff head is 4/3 of it and which ends at twice its flow. Three points from
/// flow 0: `h = a − b qᶜ` through them. Any other: lines.
fn pump_with_curve(points: &[(f64, f64)], curve: usize, named: &dyn Fn() -> String) -> Result<Pump> {
    let falls = points.windows(2).all(|pair| pair[1].1 < pair[0].1);
    let power_law = match points {
        [(q, h)] => Some([1.33334 * h, *h, 0.0, *q, 2.0 * q]),
        [(zero, h0), (q1, h1), (q2, h2)] if *zero == 0.0 => Some([*h0, *h1, *h2, *q1, *q2]),
        _ => None,
    };
    let bad = || {
        Error::config(format!(
            "{} has a curve that is not one of a pump: head must fall as flow rises",
            named()
        ))
    };
    let Some([h0, h1, h2, q1, q2]) = power_law else {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Err(bad()) };
        if !falls || points.len() < 2 {
            return Err(bad());
        }
        return Ok(Pump {
            curve: PumpCurve::Points { curve },
            start_flow: f64::midpoint(first.0, last.0),
            most_head: first.1,
            most_flow: last.0,
            pattern: None,
        });
    };
    let (drop1, drop2) = (h0 - h1, h0 - h2);
    if h0 < TINY || drop1 < TINY || h1 - h2 < TINY || q1 <= 0.0 || q2 <= q1 {
        return Err(bad());
    }
    let n = (drop2 / drop1).ln() / (q2 / q1).ln();
    if !(n > 0.0 && n <= 20.0) {
        return Err(bad());
    }
    let r = drop1 / q1.powf(n);
    Ok(Pump {
        curve: PumpCurve::Power { shutoff: h0, r, n },
        start_flow: q1,
        most_head: h0,
        most_flow: (h0 / r).powf(1.0 / n),
        pattern: None,
    })
}

fn valves(
    batch: &RecordBatch,
    series: &Series,
    nodes: &Names,
    junctions: usize,
    links: &mut Vec<Link>,
) -> Result<()> {
    let rows = Rows::new("valves", batch, "link_id")?;
    let ends = ends(&rows, nodes)?;
    let (diameter, setting) = (rows.positive("diameter_m")?, rows.or("setting", 0.0)?);
    let (kinds, curves, statuses) = (rows.texts("kind")?, rows.texts("curve_id")?, rows.texts("status")?);
    let minor_loss = rows.or("minor_loss", 0.0)?;
    for row in 0..rows.count {
        let named = || format!("the valve {}", rows.name(row));
        let (kind, unit) = match kinds.get(row) {
            Some("prv") => (LinkKind::PressureReducing, M_PER_FT),
            Some("psv") => (LinkKind::PressureSustaining, M_PER_FT),
            Some("pbv") => (LinkKind::PressureBreaker, M_PER_FT),
            Some("fcv") => (LinkKind::FlowControl, M3_PER_FT3),
            Some("tcv") => (LinkKind::Throttle, 1.0),
            Some("gpv") => (LinkKind::GeneralPurpose, 1.0),
            Some("pcv") => (LinkKind::Positional, 1.0),
            other => {
                let other = other.unwrap_or("none");
                return Err(Error::config(format!("{} is of kind '{other}'", named()))
                    .with_help("write one of: prv, psv, pbv, fcv, tcv, gpv, pcv"));
            }
        };
        if kind.regulates() && (ends[row].0 >= junctions || ends[row].1 >= junctions) {
            return Err(Error::config(format!("{} is joined to a tank or reservoir", named()))
                .with_help("put a junction and a short pipe between them"));
        }
        let curve = series.curve(curves.get(row), &named)?;
        if kind == LinkKind::GeneralPurpose && curve.is_none_or(|curve| series.points[curve].len() < 2) {
            return Err(Error::config(format!("{} needs a curve_id with at least two points", named())));
        }
        let general = kind == LinkKind::GeneralPurpose;
        let status = status(&rows, row, statuses.get(row), Status::Active)?;
        let status = if general && status == Status::Active { Status::Open } else { status };
        // What is fixed open or closed has no setting.
        let regulated = status == Status::Active || general;
        let diameter = diameter[row] / M_PER_FT;
        links.push(Link {
            id: rows.id(row).to_owned(),
            kind,
            from: ends[row].0,
            to: ends[row].1,
            diameter,
            length: 0.0,
            roughness: 0.0,
            resistance: SMALL,
            minor_loss: minor(minor_loss[row], diameter),
            status,
            setting: regulated.then_some(setting[row] / unit),
            pump: None,
            curve,
            bulk: 0.0,
            wall: 0.0,
            leak: [0.0; 2],
        });
    }
    Ok(())
}
