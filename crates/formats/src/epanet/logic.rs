//! [CONTROLS] and [RULES]: what is switched when.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use twinlake_contracts::Result;

use super::lines::{Line, seconds, starts};
use super::{Network, batch, flags, floats, optional_floats, optional_texts, texts};

pub(super) fn tables(network: &Network<'_>) -> Result<BTreeMap<String, RecordBatch>> {
    let mut tables = rules(network)?;
    tables.insert("controls".to_owned(), controls(network)?);
    Ok(tables)
}

/// `LINK id OPEN | CLOSED | setting IF NODE id ABOVE | BELOW level`, or `… AT TIME | CLOCKTIME time`.
fn controls(network: &Network<'_>) -> Result<RecordBatch> {
    let (mut links, mut statuses, mut settings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kinds, mut nodes, mut levels) = (Vec::new(), Vec::new(), Vec::new());
    let (mut times, mut enabled) = (Vec::new(), Vec::new());
    for line in network.sections.lines("CONTROLS") {
        let on = !line.words.last().is_some_and(|word| starts(word, "DISABLED"));
        let count = line.words.len() - usize::from(!on);
        if count < 6 {
            return Err(line
                .error(usize::MAX, "the control is not complete")
                .with_help("for example: LINK 12 CLOSED IF NODE 23 ABOVE 20, or LINK 12 OPEN AT TIME 16"));
        }
        let link = network.link(line, 1)?;
        let kind = network.link_kinds[link];
        let (status, setting) = action(network, line, 2, link)?;
        links.push(network.link_ids[link]);
        let (status, setting) = match (status, setting, kind) {
            (Some("open"), _, "pump") => (Some("open"), Some(1.0)),
            (Some("closed"), _, "pump") => (Some("closed"), Some(0.0)),
            (None, Some(setting), "pump" | "pipe") => {
                (Some(if setting == 0.0 { "closed" } else { "open" }), Some(setting))
            }
            other => (other.0, other.1),
        };
        statuses.push(status);
        settings.push(setting);
        enabled.push(on);
        if line.is(4, "TIME") || line.is(4, "CLOCKTIME") {
            let clock = line.is(4, "CLOCKTIME");
            let time = seconds(line.words[5], line.word(6).filter(|_| count > 6))
                .ok_or_else(|| line.error(5, "this is not a time"))?
                .trunc();
            kinds.push(if clock { "clock_time" } else { "time" });
            times.push(Some(if clock { time % 86400.0 } else { time }));
            nodes.push(None);
            levels.push(None);
        } else {
            let node = network.node(line, 5)?;
            kinds.push(match () {
                () if line.is(6, "BELOW") => "below",
                () if line.is(6, "ABOVE") => "above",
                () => return Err(line.error(6, "neither ABOVE nor BELOW")),
            });
            let tank = node >= network.junctions;
            let unit = if tank { network.options.units.length } else { network.options.units.pressure };
            nodes.push(Some(network.node_ids[node]));
            levels.push(Some(line.number(7, "the level")? * unit));
            times.push(None);
        }
    }
    batch(vec![
        ("link_id", texts(links)),
        ("status", optional_texts(statuses)),
        ("setting", optional_floats(settings)),
        ("kind", texts(kinds)),
        ("node_id", optional_texts(nodes)),
        ("level_m", optional_floats(levels)),
        ("time_s", optional_floats(times)),
        ("enabled", flags(enabled)),
    ])
}

/// What a control or rule does to a link: a status, or a setting in SI.
fn action(
    network: &Network<'_>,
    line: &Line<'_>,
    index: usize,
    link: usize,
) -> Result<(Option<&'static str>, Option<f64>)> {
    let kind = network.link_kinds[link];
    if kind == "check_valve" {
        return Err(line.error(index, "a check valve cannot be controlled"));
    }
    match () {
        () if line.is(index, "OPEN") => Ok((Some("open"), None)),
        () if line.is(index, "CLOSED") => Ok((Some("closed"), None)),
        () if line.is(index, "ACTIVE") => Ok((Some("active"), None)),
        () if kind == "gpv" => Err(line.error(index, "a GPV can be opened or closed only")),
        () => {
            line.needed(index, "the setting")?;
            let setting = if matches!(kind, "pump" | "pipe") {
                line.not_negative(index, "the setting", 0.0)?
            } else {
                line.number(index, "the setting")?
            };
            Ok((None, Some(setting * network.setting_unit(link))))
        }
    }
}

#[derive(Default)]
struct Rules<'a> {
    ids: Vec<&'a str>,
    priority: Vec<f64>,
    enabled: Vec<bool>,
    premises: Premises<'a>,
    actions: Actions<'a>,
}

#[derive(Default)]
struct Premises<'a> {
    rule: Vec<&'a str>,
    conjunction: Vec<&'static str>,
    object: Vec<&'static str>,
    object_id: Vec<Option<&'a str>>,
    variable: Vec<&'static str>,
    relation: Vec<&'static str>,
    value: Vec<Option<f64>>,
    status: Vec<Option<&'static str>>,
    tolerance: Vec<f64>,
}

#[derive(Default)]
struct Actions<'a> {
    rule: Vec<&'a str>,
    branch: Vec<&'static str>,
    link: Vec<&'a str>,
    status: Vec<Option<&'static str>>,
    setting: Vec<Option<f64>>,
}

/// Which clause the reader is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    None,
    Rule,
    If,
    Then,
    Else,
    Priority,
}

const RULE_HELP: &str = "a rule is RULE id, IF premise, AND or OR premises, THEN action, AND actions, ELSE action, AND \
                         actions, PRIORITY number, in this order";

fn rules(network: &Network<'_>) -> Result<BTreeMap<String, RecordBatch>> {
    let mut rules = Rules::default();
    let mut clause = Clause::None;
    for line in network.sections.lines("RULES") {
        let misplaced = || line.error(0, "this clause is out of place").with_help(RULE_HELP);
        match () {
            () if line.is(0, "RULE") => {
                let id = line.needed(1, "the name of the rule")?;
                if rules.ids.contains(&id) {
                    return Err(line.error(1, format!("the rule '{id}' is there twice")));
                }
                rules.ids.push(id);
                rules.priority.push(0.0);
                rules.enabled.push(true);
                clause = Clause::Rule;
            }
            () if line.is(0, "IF") && clause == Clause::Rule => {
                clause = Clause::If;
                premise(network, line, "and", &mut rules)?;
            }
            () if line.is(0, "AND") && clause == Clause::If => premise(network, line, "and", &mut rules)?,
            () if line.is(0, "OR") && clause == Clause::If => premise(network, line, "or", &mut rules)?,
            () if line.is(0, "AND") && clause == Clause::Then => {
                rule_action(network, line, "then", &mut rules)?;
            }
            () if line.is(0, "AND") && clause == Clause::Else => {
                rule_action(network, line, "else", &mut rules)?;
            }
            () if line.is(0, "THEN") && clause == Clause::If => {
                clause = Clause::Then;
                rule_action(network, line, "then", &mut rules)?;
            }
            () if line.is(0, "ELSE") && clause == Clause::Then => {
                clause = Clause::Else;
                rule_action(network, line, "else", &mut rules)?;
            }
            () if line.is(0, "PRIO") && matches!(clause, Clause::Then | Clause::Else) => {
                clause = Clause::Priority;
                if let Some(last) = rules.priority.last_mut() {
                    *last = line.number(1, "the priority")?;
                }
            }
            () if line.is(0, "DISABLED")
                && matches!(clause, Clause::Then | Clause::Else | Clause::Priority) =>
            {
                if let Some(last) = rules.enabled.last_mut() {
                    *last = false;
                }
            }
            () => return Err(misplaced()),
        }
    }
    let (premises, actions) = (rules.premises, rules.actions);
    Ok(BTreeMap::from([
        (
            "rules".to_owned(),
            batch(vec![
                ("rule_id", texts(rules.ids)),
                ("priority", floats(rules.priority)),
                ("enabled", flags(rules.enabled)),
            ])?,
        ),
        (
            "rule_premises".to_owned(),
            batch(vec![
                ("rule_id", texts(premises.rule)),
                ("conjunction", texts(premises.conjunction)),
                ("object", texts(premises.object)),
                ("object_id", optional_texts(premises.object_id)),
                ("variable", texts(premises.variable)),
                ("relation", texts(premises.relation)),
                ("value", optional_floats(premises.value)),
                ("status", optional_texts(premises.status)),
                ("tolerance", floats(premises.tolerance)),
            ])?,
        ),
        (
            "rule_actions".to_owned(),
            batch(vec![
                ("rule_id", texts(actions.rule)),
                ("branch", texts(actions.branch)),
                ("link_id", texts(actions.link)),
                ("status", optional_texts(actions.status)),
                ("setting", optional_floats(actions.setting)),
            ])?,
        ),
    ]))
}

/// `object id variable relation value`, or `SYSTEM variable relation value`.
fn premise<'a>(
    network: &Network<'a>,
    line: &Line<'a>,
    conjunction: &'static str,
    rules: &mut Rules<'a>,
) -> Result<()> {
    let object_word = line.needed(1, "the object")?;
    let is = |words: &[&str]| words.iter().any(|word| starts(object_word, word));
    let (object, object_id, at) = match () {
        () if is(&["SYSTEM"]) => ("system", None, 2),
        () if is(&["NODE", "JUNC", "RESER", "TANK"]) => ("node", Some(network.node(line, 2)?), 3),
        () if is(&["LINK", "PIPE", "PUMP", "VALVE"]) => ("link", Some(network.link(line, 2)?), 3),
        () => return Err(line.error(1, format!("the object '{object_word}' is unknown"))),
    };
    let variable_word = line.needed(at, "the variable")?;
    let known: &[(&str, &'static str)] = match object {
        "system" => &[("DEMAND", "demand"), ("CLOCKTIME", "clock_time"), ("TIME", "time")],
        "node" => &[
            ("DEMAND", "demand"),
            ("HEAD", "head"),
            ("GRADE", "head"),
            ("LEVEL", "level"),
            ("PRESSURE", "pressure"),
            ("FILLTIME", "fill_time"),
            ("DRAINTIME", "drain_time"),
        ],
        _ => &[("FLOW", "flow"), ("STATUS", "status"), ("SETTING", "setting")],
    };
    let variable = known
        .iter()
        .find(|(letters, _)| starts(variable_word, letters))
        .map(|(_, name)| *name)
        .ok_or_else(|| line.error(at, format!("a {object} has no '{variable_word}' to ask for")))?;
    let relation_word = line.needed(at + 1, "the relation")?;
    let relation = [
        ("=", "="),
        ("<>", "<>"),
        ("<=", "<="),
        (">=", ">="),
        ("<", "<"),
        (">", ">"),
        ("IS", "="),
        ("NOT", "<>"),
        ("BELOW", "<"),
        ("ABOVE", ">"),
    ]
    .into_iter()
    .find(|(letters, _)| starts(relation_word, letters))
    .map(|(_, relation)| relation)
    .ok_or_else(|| line.error(at + 1, format!("the relation '{relation_word}' is unknown")))?;
    let last = line.words.len() - 1;
    if last < at + 2 {
        return Err(line.error(usize::MAX, "the value is missing"));
    }
    let units = network.options.units;
    // EPANET compares in the file's units with a thousandth of them.
    let unit = match variable {
        "demand" | "flow" => units.flow,
        "head" | "level" => units.length,
        "pressure" => units.pressure,
        "setting" => object_id.map_or(1.0, |link| network.setting_unit(link)),
        _ => 1.0,
    };
    let (value, status) = match () {
        () if matches!(variable, "time" | "clock_time") => {
            let time = seconds(line.words[at + 2], line.word(at + 3));
            (Some(time.ok_or_else(|| line.error(at + 2, "this is not a time"))?.trunc()), None)
        }
        () if line.is(last, "OPEN") => (None, Some("open")),
        () if line.is(last, "CLOSED") => (None, Some("closed")),
        () if line.is(last, "ACTIVE") => (None, Some("active")),
        () if matches!(variable, "fill_time" | "drain_time") => {
            (Some(line.number(last, "the time")? * 3600.0), None)
        }
        () => (Some(line.number(last, "the value")? * unit), None),
    };
    let Some(&rule) = rules.ids.last() else { return Err(line.error(0, "a premise without a rule")) };
    let premises = &mut rules.premises;
    premises.rule.push(rule);
    premises.conjunction.push(conjunction);
    premises.object.push(object);
    premises
        .object_id
        .push(object_id.map(|id| if object == "node" { network.node_ids[id] } else { network.link_ids[id] }));
    premises.variable.push(variable);
    premises.relation.push(relation);
    premises.value.push(value);
    premises.status.push(status);
    premises.tolerance.push(1e-3 * unit);
    Ok(())
}

/// `LINK id STATUS | SETTING IS value`.
fn rule_action<'a>(
    network: &Network<'a>,
    line: &Line<'a>,
    branch: &'static str,
    rules: &mut Rules<'a>,
) -> Result<()> {
    let link = network.link(line, 2)?;
    line.needed(5, "the value")?;
    let (status, setting) = match action(network, line, 5, link)? {
        (None, Some(setting)) if network.link_kinds[link] == "pipe" => {
            (Some(if setting == 0.0 { "closed" } else { "open" }), None)
        }
        other => other,
    };
    let Some(&rule) = rules.ids.last() else { return Err(line.error(0, "an action without a rule")) };
    let actions = &mut rules.actions;
    actions.rule.push(rule);
    actions.branch.push(branch);
    actions.link.push(network.link_ids[link]);
    actions.status.push(status);
    actions.setting.push(setting);
    Ok(())
}
