//! What the operator `power_flow` takes and gives.

use serde_json::json;
use twinlake_contracts::{OperatorSpec, ParameterSpec, TableShape};

pub(super) fn spec() -> OperatorSpec {
    let parameter = |name, description, unit, default| ParameterSpec { name, description, unit, default };
    OperatorSpec {
        name: "power_flow",
        version: "1",
        description: "Steady state of a balanced electrical network: voltages, flows and losses for given loads and \
                      generation (AC by Newton's method, or the DC approximation), with reactive limits of \
                      generators if wanted, and the same after the outage of each branch in turn (N-1).",
        source: "AC: S_i = V_i sum over k of conj(Y_ik V_k), Newton's method in polar form, Tinney and Hart (1967); \
                 branch: pi model with an ideal transformer at the from end, Zimmerman, Murillo-Sanchez, Thomas (2011), \
                 eq. 3.1 to 3.6 of the MATPOWER manual; DC: P = (theta_f - theta_t - phi) / (x ratio), Stott, Jardim, \
                 Alsac (2009).",
        inputs: inputs(),
        outputs: outputs(),
        parameters: vec![
            parameter("method", "'newton' for AC, 'dc' for the DC approximation", "", json!("newton")),
            parameter(
                "tolerance",
                "largest difference between given and computed power at any bus, in units of base_mva",
                "per unit",
                json!(1e-10),
            ),
            parameter("max_iterations", "iterations of Newton's method before it is given up", "", json!(30)),
            parameter(
                "enforce_q_limits",
                "whether a generator bus gives up its voltage where a reactive limit is reached (PV to PQ and back); the \
                 limits of a slack are not enforced",
                "",
                json!(false),
            ),
            parameter(
                "flat_start",
                "start from 1 p.u. and the angle of the slack rather than from vm_pu and va_deg",
                "",
                json!(false),
            ),
            parameter(
                "contingencies",
                "'branches' to solve the outage of each branch in turn, 'none' not to",
                "",
                json!("none"),
            ),
        ],
    }
}

fn inputs() -> Vec<TableShape> {
    vec![
        TableShape {
            role: "buses",
            description: "A row a bus.",
            columns: vec![
                ("bus_id", "Int64", "names the bus, unique"),
                ("name", "Utf8", "optional, used in messages"),
                ("kind", "Utf8", "'pq', 'pv', 'slack' or 'isolated' (switched off)"),
                ("demand_mw", "Float64", "active power consumed"),
                ("demand_mvar", "Float64", "reactive power consumed"),
                ("shunt_mw", "Float64", "active power into the shunt at 1 p.u.; optional: 0"),
                ("shunt_mvar", "Float64", "reactive power from the shunt at 1 p.u.; optional: 0"),
                (
                    "vm_pu",
                    "Float64",
                    "voltage where the solution starts; a slack without generator keeps it; optional: 1",
                ),
                ("va_deg", "Float64", "angle where the solution starts; the slack keeps it; optional: 0"),
            ],
        },
        TableShape {
            role: "generators",
            description: "A row a generator. A bus of kind 'pv' without one in service is solved as 'pq'.",
            columns: vec![
                ("generator_id", "Int64", "names the generator"),
                ("bus_id", "Int64", "where it is"),
                ("p_mw", "Float64", "active power; at a slack the first generator balances"),
                ("q_mvar", "Float64", "reactive power at a 'pq' bus; optional: 0"),
                ("q_max_mvar", "Float64", "most reactive power; optional, null: no limit"),
                ("q_min_mvar", "Float64", "least reactive power; optional, null: no limit"),
                ("vm_setpoint_pu", "Float64", "voltage to hold; of several at a bus the last one's counts"),
                ("in_service", "Boolean", "optional, null: true"),
            ],
        },
        TableShape {
            role: "branches",
            description: "A row a line or transformer; parallel branches have rows of their own.",
            columns: vec![
                ("branch_id", "Int64", "names the branch"),
                ("from_bus", "Int64", "where it begins; the tap is here"),
                ("to_bus", "Int64", "where it ends"),
                ("r_pu", "Float64", "series resistance"),
                ("x_pu", "Float64", "series reactance"),
                ("b_pu", "Float64", "total line charging; optional: 0"),
                ("rating_mva", "Float64", "what 100 % loading is; optional, null or 0: none"),
                ("tap_ratio", "Float64", "turns ratio, from end to to end; 1 for a line; optional: 1"),
                ("shift_deg", "Float64", "phase shift, positive delays the to end; optional: 0"),
                ("in_service", "Boolean", "optional, null: true"),
            ],
        },
        TableShape {
            role: "system",
            description: "Optional: one row.",
            columns: vec![("base_mva", "Float64", "what 1 p.u. of power is; 100 without the table")],
        },
    ]
}

fn outputs() -> Vec<TableShape> {
    vec![
        TableShape {
            role: "buses",
            description: "A row for each bus taken, in the same order.",
            columns: vec![
                ("bus_id", "Int64", "the bus"),
                ("state", "Utf8", "'supplied', 'unsupplied' (no way to a slack) or 'isolated'"),
                ("kind", "Utf8", "as solved: 'pq', 'pv' or 'slack'; null without supply"),
                ("vm_pu", "Float64", "voltage; null without supply and for DC"),
                ("va_deg", "Float64", "angle; null without supply"),
                ("p_mw", "Float64", "generation minus demand; null without supply"),
                ("q_mvar", "Float64", "the same, reactive; null without supply and for DC"),
                ("q_limit", "Utf8", "'max' or 'min' where its generators are held at that limit, else null"),
            ],
        },
        TableShape {
            role: "branches",
            description: "A row for each branch taken, in the same order; without numbers where out of service or \
                          without supply.",
            columns: vec![
                ("branch_id", "Int64", "the branch"),
                ("from_bus", "Int64", "where it begins"),
                ("to_bus", "Int64", "where it ends"),
                ("p_from_mw", "Float64", "active power into the branch at its from end"),
                ("q_from_mvar", "Float64", "reactive power into it there; null for DC"),
                ("p_to_mw", "Float64", "active power into the branch at its to end"),
                ("q_to_mvar", "Float64", "reactive power into it there; null for DC"),
                ("loss_mw", "Float64", "sum of both active powers"),
                (
                    "loading_percent",
                    "Float64",
                    "greater apparent power of both ends over the rating; null without rating",
                ),
            ],
        },
        TableShape {
            role: "generators",
            description: "A row for each generator taken, in the same order.",
            columns: vec![
                ("generator_id", "Int64", "the generator"),
                ("bus_id", "Int64", "where it is"),
                ("p_mw", "Float64", "active power; null out of service or without supply"),
                (
                    "q_mvar",
                    "Float64",
                    "reactive power, shared at a bus by the ranges of the generators; null also for DC",
                ),
                (
                    "q_beyond_limits",
                    "Boolean",
                    "whether q_mvar is outside of its limits; null where q_mvar is",
                ),
            ],
        },
        TableShape {
            role: "contingencies",
            description: "A row for each branch taken out, in the order of 'branches'; empty without contingencies.",
            columns: vec![
                ("branch_id", "Int64", "the branch taken out"),
                ("from_bus", "Int64", "where it begins"),
                ("to_bus", "Int64", "where it ends"),
                ("converged", "Boolean", "whether what is left has a solution; without, figures are null"),
                ("iterations", "Int64", "of Newton's method"),
                ("islanded_buses", "Utf8", "buses that lose supply, separated by blanks; null if none"),
                ("demand_lost_mw", "Float64", "their demand"),
                ("generation_lost_mw", "Float64", "the generation scheduled there"),
                ("loss_mw", "Float64", "losses of all branches"),
                ("vm_min_pu", "Float64", "lowest voltage"),
                ("vm_min_bus", "Int64", "where it is"),
                ("vm_max_pu", "Float64", "highest voltage"),
                ("vm_max_bus", "Int64", "where it is"),
                ("loading_max_percent", "Float64", "highest loading; null where no branch has a rating"),
                ("loading_max_branch", "Int64", "where it is"),
                ("overloaded_branches", "Utf8", "branches above 100 %, separated by blanks; null if none"),
                ("failure", "Utf8", "why there is no solution, with the bus; null with one"),
            ],
        },
    ]
}
