//! What the operator `water_network` takes and gives.

use serde_json::{Value, json};
use twinlake_contracts::{OperatorSpec, ParameterSpec, TableShape};

pub(super) fn spec() -> OperatorSpec {
    OperatorSpec {
        name: "water_network",
        version: "2",
        description: "Heads, flows and water quality of a pressurised distribution network over time: pipes, pumps, \
                      valves, tanks, controls and rules, demand-driven or pressure-driven, with water age, a reacting \
                      substance such as chlorine, or the share of water from one node. Takes what an EPANET file \
                      says, in SI units, and follows EPANET 2.3 in time steps and checks of status.",
        source: "Hydraulics: global gradient algorithm, Todini and Pilati (1988); friction: h = r q^n by Hazen-Williams, \
                 Darcy-Weisbach (Swamee and Jain 1976) or Chezy-Manning; pressure-driven demand: q = Q ((p - p0) / \
                 (pf - p0))^e, Wagner, Shamir, Marks (1988); leaks: q = 0.6 sqrt(2g) (A + m h) sqrt(h), May (1994); quality: Lagrangian transport, Liou and Kroon (1987), \
                 Rossman and Boulos (1996); all as in chapter 12 of the EPANET 2.2 manual, Rossman et al. (2020).",
        inputs: inputs(),
        outputs: outputs(),
        parameters: parameters(),
    }
}

fn parameters() -> Vec<ParameterSpec> {
    let parameter = |name, description, unit| ParameterSpec { name, description, unit, default: Value::Null };
    let mut parameters = vec![
        parameter(
            "duration_s",
            "length of the period, 0 for one moment; null: as the table 'options' says, else 0",
            "s",
        ),
        parameter(
            "hydraulic_step_s",
            "longest step between balances; null: as the options say, else 3600",
            "s",
        ),
        parameter(
            "report_step_s",
            "time between rows of an element; null: as the options say, else 3600",
            "s",
        ),
        parameter(
            "quality_step_s",
            "step of transport; null: as the options say, else a tenth of the hydraulic step",
            "s",
        ),
        parameter(
            "accuracy",
            "a balance is reached when the sum of flow changes is not above this share of the sum of flows; null: as \
             the options say, else 0.001",
            "",
        ),
        parameter(
            "trials",
            "iterations before a balance is given up; null: as the options say, else 200",
            "",
        ),
        parameter("demand_multiplier", "factor on all demands; null: as the options say, else 1", ""),
        parameter(
            "demand_model",
            "'demand_driven' or 'pressure_driven'; null: as the options say, else demand_driven",
            "",
        ),
        parameter(
            "minimum_pressure_m",
            "p0, below which nothing is delivered; null: as the options say, else 0",
            "m",
        ),
        parameter(
            "required_pressure_m",
            "pf, above which all is delivered; null: as the options say, else 0.1",
            "m",
        ),
        parameter("pressure_exponent", "e; null: as the options say, else 0.5", ""),
        parameter(
            "quality",
            "'none', 'age' (hours), 'chemical' (mg/L) or 'trace' (percent); null: as the options say, else none",
            "",
        ),
        parameter("trace_node", "the node whose water is traced; null: as the options say", ""),
    ];
    for parameter in &mut parameters {
        parameter.default = json!(null);
    }
    parameters
}

fn shape(
    role: &'static str,
    description: &'static str,
    columns: Vec<(&'static str, &'static str, &'static str)>,
) -> TableShape {
    TableShape { role, description, columns }
}

fn inputs() -> Vec<TableShape> {
    vec![
        shape(
            "junctions",
            "A row a junction.",
            vec![
                ("node_id", "Utf8", "names the node, unique among all nodes"),
                ("elevation_m", "Float64", "height; optional: 0"),
                ("emitter_m3s", "Float64", "flow of its emitter at 1 m of pressure; optional: 0, none"),
                ("initial_quality", "Float64", "hours or mg/L at the start; optional: 0"),
            ],
        ),
        shape(
            "reservoirs",
            "Optional: a row a body of water whose head is given.",
            vec![
                ("node_id", "Utf8", "names the node"),
                ("head_m", "Float64", "its head"),
                ("pattern_id", "Utf8", "pattern of factors on the head; null: none"),
                ("initial_quality", "Float64", "what comes from it; optional: 0"),
            ],
        ),
        shape(
            "tanks",
            "Optional: a row a tank.",
            vec![
                ("node_id", "Utf8", "names the node"),
                ("elevation_m", "Float64", "height of the bottom"),
                ("initial_level_m", "Float64", "above the bottom, at the start"),
                ("min_level_m", "Float64", "where it counts as empty; optional: 0"),
                ("max_level_m", "Float64", "where it is full"),
                ("diameter_m", "Float64", "of a cylinder"),
                ("min_volume_m3", "Float64", "at min_level_m; 0 or missing: a cylinder's"),
                ("volume_curve_id", "Utf8", "curve of level and volume in place of the diameter; null: none"),
                ("can_overflow", "Boolean", "whether water may flow in when full; null: false"),
                ("mixing", "Utf8", "'mixed', 'two_compartments', 'fifo', 'lifo'; null: mixed"),
                ("mixing_fraction", "Float64", "share of the mixing compartment; optional: 1"),
                ("bulk_coefficient", "Float64", "reaction, a day; optional: 0"),
                ("initial_quality", "Float64", "optional: 0"),
            ],
        ),
        shape(
            "pipes",
            "A row a pipe.",
            vec![
                ("link_id", "Utf8", "names the link, unique among all links"),
                ("from_node", "Utf8", "where positive flow enters"),
                ("to_node", "Utf8", "where it leaves"),
                ("length_m", "Float64", "length"),
                ("diameter_m", "Float64", "inner diameter"),
                ("roughness", "Float64", "C of Hazen-Williams, n of Manning, or metres for Darcy-Weisbach"),
                ("minor_loss", "Float64", "k of k v^2 / 2g; optional: 0"),
                ("check_valve", "Boolean", "whether flow is one-way; optional: false"),
                ("status", "Utf8", "'open' or 'closed' at the start; null: open"),
                ("bulk_coefficient", "Float64", "reaction in the water, a day; optional: 0"),
                ("wall_coefficient", "Float64", "reaction at the wall, m/day or mg/m2/day; optional: 0"),
                ("leak_area_m2", "Float64", "area of its leaks at pressure 0; optional: 0"),
                ("leak_expansion_m", "Float64", "m2 by which it grows with each m of pressure; optional: 0"),
            ],
        ),
        shape(
            "pumps",
            "Optional: a row a pump.",
            vec![
                ("link_id", "Utf8", "names the link"),
                ("from_node", "Utf8", "suction side"),
                ("to_node", "Utf8", "pressure side"),
                (
                    "curve_id",
                    "Utf8",
                    "curve of flow and head: one point, three from flow 0, or any; null: power_kw",
                ),
                ("power_kw", "Float64", "power given to the water, constant"),
                ("speed", "Float64", "relative speed at the start; optional: 1"),
                ("pattern_id", "Utf8", "pattern of speeds; null: none"),
                ("status", "Utf8", "'open' or 'closed' at the start; null: open"),
            ],
        ),
        shape(
            "valves",
            "Optional: a row a valve.",
            vec![
                ("link_id", "Utf8", "names the link"),
                ("from_node", "Utf8", "upstream"),
                ("to_node", "Utf8", "downstream"),
                ("diameter_m", "Float64", "inner diameter"),
                ("kind", "Utf8", "'prv', 'psv', 'pbv', 'fcv', 'tcv', 'gpv' or 'pcv'"),
                (
                    "setting",
                    "Float64",
                    "m of pressure (prv, psv, pbv), m3/s (fcv), k (tcv), percent open (pcv)",
                ),
                (
                    "curve_id",
                    "Utf8",
                    "head lost over flow (gpv), percent of flow coefficient over percent open (pcv)",
                ),
                ("minor_loss", "Float64", "k when fully open; optional: 0"),
                ("status", "Utf8", "'active', or fixed 'open' or 'closed'; null: active"),
            ],
        ),
        shape(
            "demands",
            "Optional: rows of the same node are added up.",
            vec![
                ("node_id", "Utf8", "the junction"),
                ("demand_m3s", "Float64", "base demand, negative for a supply"),
                (
                    "pattern_id",
                    "Utf8",
                    "pattern of factors; null: the default pattern of the options, if there is one",
                ),
            ],
        ),
        shape(
            "patterns",
            "Optional: factors by pattern, in order, a row a pattern step.",
            vec![("pattern_id", "Utf8", "the pattern"), ("factor", "Float64", "the factor")],
        ),
        shape(
            "curves",
            "Optional: points by curve, x rising.",
            vec![
                ("curve_id", "Utf8", "the curve"),
                ("kind", "Utf8", "'pump_head' and 'headloss' (m3/s, m), 'volume' (m, m3), 'valve' (percent)"),
                ("x", "Float64", "flow, level or percent"),
                ("y", "Float64", "head, volume or percent"),
            ],
        ),
        shape(
            "controls",
            "Optional: what switches a link at a level or time.",
            vec![
                ("link_id", "Utf8", "the link"),
                ("status", "Utf8", "'open', 'closed', or null with a setting"),
                ("setting", "Float64", "speed, pressure, flow or k; null: none"),
                ("kind", "Utf8", "'below', 'above' (node_id, level_m), 'time', 'clock_time' (time_s)"),
                ("node_id", "Utf8", "the tank or junction looked at"),
                ("level_m", "Float64", "level above the tank's bottom, or pressure"),
                ("time_s", "Float64", "seconds from the start, or from midnight"),
                ("enabled", "Boolean", "null: true"),
            ],
        ),
        shape(
            "rules",
            "Optional: rules, with their clauses in rule_premises and rule_actions.",
            vec![
                ("rule_id", "Utf8", "names the rule"),
                ("priority", "Float64", "the higher wins; null: 0"),
                ("enabled", "Boolean", "null: true"),
            ],
        ),
        shape(
            "rule_premises",
            "With 'rules': what must hold, in order.",
            vec![
                ("rule_id", "Utf8", "the rule"),
                ("conjunction", "Utf8", "'and' or 'or'"),
                ("object", "Utf8", "'node', 'link' or 'system'"),
                ("object_id", "Utf8", "which; null for the system"),
                (
                    "variable",
                    "Utf8",
                    "demand, head, level, pressure, fill_time, drain_time, flow, status, setting, time, clock_time",
                ),
                ("relation", "Utf8", "=, <>, <, >, <=, >="),
                ("value", "Float64", "m, m3/s or s; null with a status"),
                ("status", "Utf8", "'open', 'closed', 'active'; null with a value"),
                ("tolerance", "Float64", "of the comparison, in the unit of value"),
            ],
        ),
        shape(
            "rule_actions",
            "With 'rules': what is done, in order.",
            vec![
                ("rule_id", "Utf8", "the rule"),
                ("branch", "Utf8", "'then' or 'else'"),
                ("link_id", "Utf8", "the link"),
                ("status", "Utf8", "'open' or 'closed'; null with a setting"),
                ("setting", "Float64", "null with a status"),
            ],
        ),
        shape(
            "sources",
            "Optional: where a substance is added.",
            vec![
                ("node_id", "Utf8", "the node"),
                ("kind", "Utf8", "'concentration', 'mass', 'set_point', 'flow_paced'"),
                ("strength", "Float64", "mg/L, or mg a minute for mass"),
                ("pattern_id", "Utf8", "pattern of factors; null: none"),
            ],
        ),
        shape(
            "options",
            "Optional: what the file's options and times say; the parameters go over it.",
            vec![
                ("name", "Utf8", "for example headloss, duration_s, viscosity_m2s"),
                ("number", "Float64", "its value, if a number"),
                ("text", "Utf8", "its value, if a word"),
            ],
        ),
    ]
}

fn outputs() -> Vec<TableShape> {
    vec![
        shape(
            "nodes",
            "A row for each report time and node: junctions, reservoirs, tanks.",
            vec![
                ("ts", "Timestamp(us, UTC)", "the horizon's start plus time_s"),
                ("time_s", "Int64", "seconds from the start"),
                ("node_id", "Utf8", "the node"),
                ("kind", "Utf8", "'junction', 'reservoir' or 'tank'"),
                ("head_m", "Float64", "head; null where no open way leads to a tank or reservoir"),
                ("pressure_m", "Float64", "head above elevation or bottom; null like head_m"),
                (
                    "demand_m3s",
                    "Float64",
                    "what leaves the network there, negative for a supply; of a tank its inflow",
                ),
                ("quality", "Float64", "hours, mg/L or percent; null without quality"),
            ],
        ),
        shape(
            "links",
            "A row for each report time and link: pipes, pumps, valves.",
            vec![
                ("ts", "Timestamp(us, UTC)", "the horizon's start plus time_s"),
                ("time_s", "Int64", "seconds from the start"),
                ("link_id", "Utf8", "the link"),
                ("kind", "Utf8", "'pipe', 'check_valve', 'pump', 'prv' and so on"),
                ("flow_m3s", "Float64", "positive from from_node to to_node; 0 where closed"),
                ("velocity_ms", "Float64", "mean; null for a pump"),
                ("headloss_m", "Float64", "head lost, negative for a pump; null where an end has no head"),
                ("leak_m3s", "Float64", "what its leaks let out, at the pressures of its ends"),
                ("status", "Utf8", "'open', 'closed', 'closed_for_now', 'active', 'cannot_lift' and so on"),
                (
                    "setting",
                    "Float64",
                    "m, m3/s or a number as in the input; null where fixed, and for pipes",
                ),
                ("quality", "Float64", "mean; null without quality"),
            ],
        ),
        shape(
            "warnings",
            "A row for each thing that was not as it should be, from its first moment to its last.",
            vec![
                (
                    "kind",
                    "Utf8",
                    "unbalanced, negative_pressure, disconnected, pump_cannot_lift, pump_beyond_curve, valve_cannot_supply_flow, valve_cannot_keep_pressure",
                ),
                ("element_id", "Utf8", "the node or link; null for the network"),
                ("from_s", "Int64", "first moment"),
                ("until_s", "Int64", "last moment"),
                ("value", "Float64", "worst value: pressure in m, flow in m3/s, relative error"),
            ],
        ),
    ]
}
