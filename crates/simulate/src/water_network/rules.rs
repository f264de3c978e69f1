//! Simple controls and rules: which they are, and when they act.

use twinlake_contracts::{Error, Result, Snapshot};

use super::model::{LinkKind, M_PER_FT, M3_PER_FT3, Model, Names, Network, Status};
use super::read::Index;
use super::state::State;
use crate::columns::Table;

/// When a control acts. Heads in feet, times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum When {
    Below { node: usize, head: f64 },
    Above { node: usize, head: f64 },
    Time(i64),
    ClockTime(i64),
}

/// `LINK … IF NODE …`, `LINK … AT TIME …`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Control {
    pub(super) link: usize,
    pub(super) status: Status,
    pub(super) setting: Option<f64>,
    pub(super) when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Demand,
    Head,
    Pressure,
    FillTime,
    DrainTime,
    Flow,
    Status,
    Setting,
    Time,
    ClockTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
    Below,
    Above,
}

/// The word of a status in a premise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Open,
    Closed,
    Active,
}

#[derive(Debug, Clone)]
struct Premise {
    or: bool,
    /// None for the system.
    object: Option<usize>,
    variable: Variable,
    relation: Relation,
    /// In the solver's units, with the tolerance that goes with it.
    value: f64,
    tolerance: f64,
    word: Option<Word>,
}

#[derive(Debug, Clone, Copy)]
struct Action {
    link: usize,
    /// Opened, closed, or left.
    opens: Option<bool>,
    setting: Option<f64>,
}

/// IF … THEN … ELSE … PRIORITY.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    priority: f64,
    premises: Vec<Premise>,
    then: Vec<Action>,
    otherwise: Vec<Action>,
}

/// The factor from the unit of a setting in the tables to the solver's.
fn setting_unit(kind: LinkKind) -> f64 {
    match kind {
        LinkKind::PressureReducing | LinkKind::PressureSustaining | LinkKind::PressureBreaker => {
            1.0 / M_PER_FT
        }
        LinkKind::FlowControl => 1.0 / M3_PER_FT3,
        _ => 1.0,
    }
}

pub(super) fn read_controls(city: &Snapshot, network: &Network, links: &Names) -> Result<Vec<Control>> {
    let Some(batch) = city.tables.get("controls") else { return Ok(Vec::new()) };
    let table = Table::new("controls", batch);
    let (ids, statuses, settings) =
        (table.texts("link_id")?, table.texts("status")?, table.numbers("setting")?);
    let (kinds, nodes) = (table.texts("kind")?, table.texts("node_id")?);
    let (levels, times) = (table.numbers("level_m")?, table.numbers("time_s")?);
    let enabled = if table.has("enabled") { table.flags("enabled")? } else { vec![None; batch.num_rows()] };
    let mut controls = Vec::new();
    for row in 0..batch.num_rows() {
        let named_by = || format!("row {} of 'controls'", row + 1);
        let link = Index { what: "link", of: links }.find(ids[row].as_deref(), &named_by)?;
        let kind = network.links[link].kind;
        let node = || Index { what: "node", of: &network.node_index }.find(nodes[row].as_deref(), &named_by);
        let need = |value: Option<f64>, what: &str| {
            value.ok_or_else(|| Error::config(format!("{} has no {what}", named_by())))
        };
        let head = |node: usize| {
            Ok::<f64, Error>(network.nodes[node].elevation + need(levels[row], "level_m")? / M_PER_FT)
        };
        let when = match kinds[row].as_deref() {
            Some("below") => node().and_then(|node| Ok(When::Below { node, head: head(node)? }))?,
            Some("above") => node().and_then(|node| Ok(When::Above { node, head: head(node)? }))?,
            Some("time") => When::Time(need(times[row], "time_s")? as i64),
            Some("clock_time") => When::ClockTime(need(times[row], "time_s")? as i64 % 86400),
            other => {
                let other = other.unwrap_or("none");
                return Err(Error::config(format!("{} is of kind '{other}'", named_by()))
                    .with_help("write one of: below, above, time, clock_time"));
            }
        };
        let setting = settings[row].map(|setting| setting * setting_unit(kind));
        let status = match statuses[row].as_deref() {
            Some("open") => Status::Open,
            Some("closed") => Status::Closed,
            None | Some("active") => Status::Active,
            Some(other) => return Err(Error::config(format!("{} has the status '{other}'", named_by()))),
        };
        // A general-purpose valve keeps its curve.
        let setting = if kind == LinkKind::GeneralPurpose { network.links[link].setting } else { setting };
        if enabled[row].unwrap_or(true) {
            controls.push(Control { link, status, setting, when });
        }
    }
    Ok(controls)
}

pub(super) fn read_rules(city: &Snapshot, network: &Network, links: &Names) -> Result<Vec<Rule>> {
    let Some(batch) = city.tables.get("rules") else { return Ok(Vec::new()) };
    let table = Table::new("rules", batch);
    let (ids, priority) = (table.texts("rule_id")?, table.numbers("priority")?);
    let enabled = if table.has("enabled") { table.flags("enabled")? } else { vec![None; batch.num_rows()] };
    let mut index: Names = Names::default();
    let mut rules: Vec<Rule> = Vec::new();
    for (row, id) in ids.into_iter().enumerate() {
        let Some(id) = id else {
            return Err(Error::config(format!("row {} of 'rules' has no rule_id", row + 1)));
        };
        index.insert(id, rules.len());
        let priority = priority[row].unwrap_or(0.0);
        rules.push(Rule { priority, premises: Vec::new(), then: Vec::new(), otherwise: Vec::new() });
    }
    read_premises(city, network, links, &index, &mut rules)?;
    read_actions(city, network, links, &index, &mut rules)?;
    let mut on = enabled.into_iter().map(|flag| flag.unwrap_or(true));
    rules.retain(|_| on.next().unwrap_or(true));
    Ok(rules)
}

fn read_premises(
    city: &Snapshot,
    network: &Network,
    links: &Names,
    rules_by_id: &Names,
    rules: &mut [Rule],
) -> Result<()> {
    let batch = city.table("rule_premises")?;
    let table = Table::new("rule_premises", batch);
    let (of, conjunctions, objects) =
        (table.texts("rule_id")?, table.texts("conjunction")?, table.texts("object")?);
    let (object_ids, variables) = (table.texts("object_id")?, table.texts("variable")?);
    let (relations, values) = (table.texts("relation")?, table.numbers("value")?);
    let (words, tolerances) = (table.texts("status")?, table.numbers("tolerance")?);
    for row in 0..batch.num_rows() {
        let named_by = || format!("row {} of 'rule_premises'", row + 1);
        let unknown = |what: &str, value: Option<&String>| {
            let value = value.map_or("none", String::as_str);
            Error::config(format!("{} has the {what} '{value}', which is unknown", named_by()))
        };
        let rule = Index { what: "rule", of: rules_by_id }.find(of[row].as_deref(), &named_by)?;
        let object = match objects[row].as_deref() {
            Some("system") => None,
            Some("node") => Some(
                Index { what: "node", of: &network.node_index }
                    .find(object_ids[row].as_deref(), &named_by)?,
            ),
            Some("link") => {
                Some(Index { what: "link", of: links }.find(object_ids[row].as_deref(), &named_by)?)
            }
            _ => return Err(unknown("object", objects[row].as_ref())),
        };
        let flow = 1.0 / M3_PER_FT3;
        let (variable, unit) = match variables[row].as_deref() {
            Some("demand") => (Variable::Demand, flow),
            Some("head") => (Variable::Head, 1.0 / M_PER_FT),
            // Both are heads above the node.
            Some("level" | "pressure") => (Variable::Pressure, 1.0 / M_PER_FT),
            Some("fill_time") => (Variable::FillTime, 1.0),
            Some("drain_time") => (Variable::DrainTime, 1.0),
            Some("flow") => (Variable::Flow, flow),
            Some("status") => (Variable::Status, 1.0),
            Some("setting") => {
                (Variable::Setting, object.map_or(1.0, |link| setting_unit(network.links[link].kind)))
            }
            Some("time") => (Variable::Time, 1.0),
            Some("clock_time") => (Variable::ClockTime, 1.0),
            _ => return Err(unknown("variable", variables[row].as_ref())),
        };
        let relation = match relations[row].as_deref() {
            Some("=") => Relation::Equal,
            Some("<>") => Relation::NotEqual,
            Some("<=") => Relation::AtMost,
            Some(">=") => Relation::AtLeast,
            Some("<") => Relation::Below,
            Some(">") => Relation::Above,
            _ => return Err(unknown("relation", relations[row].as_ref())),
        };
        let word = match words[row].as_deref() {
            None => None,
            Some("open") => Some(Word::Open),
            Some("closed") => Some(Word::Closed),
            Some("active") => Some(Word::Active),
            Some(_) => return Err(unknown("status", words[row].as_ref())),
        };
        let value = match (values[row], word) {
            (Some(value), _) => value * unit,
            (None, Some(_)) => 0.0,
            (None, None) => {
                return Err(Error::config(format!("{} has neither value nor status", named_by())));
            }
        };
        let tolerance = tolerances[row].unwrap_or(0.0) * unit;
        let or = conjunctions[row].as_deref() == Some("or");
        rules[rule].premises.push(Premise { or, object, variable, relation, value, tolerance, word });
    }
    Ok(())
}

fn read_actions(
    city: &Snapshot,
    network: &Network,
    links: &Names,
    rules_by_id: &Names,
    rules: &mut [Rule],
) -> Result<()> {
    let batch = city.table("rule_actions")?;
    let table = Table::new("rule_actions", batch);
    let (of, branches, ids) = (table.texts("rule_id")?, table.texts("branch")?, table.texts("link_id")?);
    let (statuses, settings) = (table.texts("status")?, table.numbers("setting")?);
    for row in 0..batch.num_rows() {
        let named_by = || format!("row {} of 'rule_actions'", row + 1);
        let rule = Index { what: "rule", of: rules_by_id }.find(of[row].as_deref(), &named_by)?;
        let link = Index { what: "link", of: links }.find(ids[row].as_deref(), &named_by)?;
        let opens = match statuses[row].as_deref() {
            Some("open") => Some(true),
            Some("closed") => Some(false),
            _ => None,
        };
        let setting = settings[row].map(|setting| setting * setting_unit(network.links[link].kind));
        let action = Action { link, opens, setting };
        match branches[row].as_deref() {
            Some("else") => rules[rule].otherwise.push(action),
            _ => rules[rule].then.push(action),
        }
    }
    Ok(())
}

/// Where a rule looks at time: from after the last look to now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) from: i64,
    pub(super) now: i64,
}

/// Lets all rules act; how many links changed.
pub(super) fn act(model: &Model, state: &mut State, look: Look) -> usize {
    // By link: the action, and the priority of its rule. The first rule wins among equals.
    let mut chosen: Vec<(Action, f64)> = Vec::new();
    for rule in &model.rules {
        let actions = if holds(model, state, rule, look) { &rule.then } else { &rule.otherwise };
        for action in actions {
            match chosen.iter_mut().find(|(other, _)| other.link == action.link) {
                Some(other) if rule.priority > other.1 => *other = (*action, rule.priority),
                Some(_) => {}
                None => chosen.push((*action, rule.priority)),
            }
        }
    }
    chosen.iter().rev().filter(|(action, _)| take(model, state, *action)).count()
}

fn holds(model: &Model, state: &State, rule: &Rule, look: Look) -> bool {
    let mut result = true;
    for premise in &rule.premises {
        if premise.or {
            result = result || premise_holds(model, state, premise, look);
        } else {
            if !result {
                return false;
            }
            result = premise_holds(model, state, premise, look);
        }
    }
    result
}

fn premise_holds(model: &Model, state: &State, premise: &Premise, look: Look) -> bool {
    if matches!(premise.variable, Variable::Time | Variable::ClockTime) {
        return time_holds(model, premise, look);
    }
    if let Some(word) = premise.word {
        let Some(link) = premise.object else { return false };
        let is = match state.status[link] {
            status if status.is_closed() => Word::Closed,
            Status::Active => Word::Active,
            _ => Word::Open,
        };
        return match premise.relation {
            Relation::Equal => is == word,
            Relation::NotEqual => is != word,
            _ => false,
        };
    }
    let Some(value) = value_of(model, state, premise) else { return false };
    let (limit, tolerance) = (premise.value, premise.tolerance);
    match premise.relation {
        Relation::Equal => (value - limit).abs() <= tolerance,
        Relation::NotEqual => (value - limit).abs() >= tolerance,
        Relation::Below => value <= limit + tolerance,
        Relation::AtMost => value <= limit - tolerance,
        Relation::Above => value >= limit - tolerance,
        Relation::AtLeast => value >= limit + tolerance,
    }
}

fn time_holds(model: &Model, premise: &Premise, look: Look) -> bool {
    let day = |time: i64| (time + model.options.times.clock_start).rem_euclid(86400);
    let (from, now) = if premise.variable == Variable::Time {
        (look.from, look.now)
    } else {
        (day(look.from), day(look.now))
    };
    let at = premise.value as i64;
    let within = if now < from { at >= from || at <= now } else { (from..=now).contains(&at) };
    match premise.relation {
        Relation::Below => now < at,
        Relation::AtMost => now <= at,
        Relation::Above => now > at,
        Relation::AtLeast => now >= at,
        Relation::Equal => within,
        Relation::NotEqual => !within,
    }
}

/// The value that a premise asks for, None where there is none.
fn value_of(model: &Model, state: &State, premise: &Premise) -> Option<f64> {
    let Some(at) = premise.object else { return Some(state.system_demand) };
    // Time to the volume `to` at the present inflow, if it goes that way.
    let until = |to: fn(&super::model::Tank) -> f64, sign: f64| {
        let tank = model.tank(at).filter(|tank| !tank.is_reservoir())?;
        let inflow = state.demand[at];
        (sign * inflow > super::model::TINY).then(|| (to(tank) - state.volume[at - model.junctions]) / inflow)
    };
    match premise.variable {
        Variable::Demand => Some(state.demand[at]),
        Variable::Head => Some(state.head[at]),
        Variable::Pressure => Some(state.head[at] - model.nodes[at].elevation),
        Variable::FillTime => until(|tank| tank.most_volume, 1.0),
        Variable::DrainTime => until(|tank| tank.least_volume, -1.0),
        Variable::Flow => Some(state.flow[at].abs()),
        Variable::Setting => state.setting[at],
        Variable::Status | Variable::Time | Variable::ClockTime => None,
    }
}

/// Whether the action changed its link.
fn take(model: &Model, state: &mut State, action: Action) -> bool {
    let link = action.link;
    let closed = state.status[link].is_closed();
    match (action.opens, action.setting) {
        (Some(true), _) if closed => state.open_or_close(model, link, true),
        (Some(false), _) if !closed => state.open_or_close(model, link, false),
        // EPANET compares in its own units.
        (_, Some(setting)) if (setting - state.setting[link].unwrap_or(-super::model::BIG)).abs() > 1e-3 => {
            state.set(model, link, setting);
        }
        _ => return false,
    }
    true
}
