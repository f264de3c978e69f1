//! What the operator takes, gives and means.

use serde_json::json;
use twinlake_contracts::{OperatorSpec, ParameterSpec, TableShape};

use super::cost::Principle;

pub(super) fn describe() -> OperatorSpec {
    let parameter = |name, description, unit, default| ParameterSpec { name, description, unit, default };
    OperatorSpec {
        name: "traffic_assignment",
        version: "2",
        description: "Static traffic assignment: link flows at which no trip can lower its cost by another \
                      route (user equilibrium), or at which the total cost is least (system optimum). Link \
                      travel time is t = t0 (1 + b (v/k)^p); generalized cost adds weighted toll and length.",
        source: "Equilibrium: Wardrop (1952); objective: Beckmann, McGuire, Winsten (1956), sum over links of \
                 the integral of cost from 0 to v; link time: Bureau of Public Roads (1964); method: Dial \
                 (2006), Algorithm B, Transportation Research Part B 40(10), 917-936; elastic demand: \
                 excess-demand formulation, Gartner (1980), Sheffi (1985); classes: Dafermos (1972)",
        inputs: vec![
            TableShape {
                role: "links",
                description: "The directed road graph, a row a link.",
                columns: vec![
                    ("link_id", "Int64", "names the link, unique"),
                    ("from_node", "Int64", "where it begins"),
                    ("to_node", "Int64", "where it ends"),
                    ("capacity_vph", "Float64", "k, vehicles an hour"),
                    ("length_m", "Float64", "metres"),
                    ("free_flow_time_s", "Float64", "t0, seconds (or the file's own unit)"),
                    ("b", "Float64", "b, a pure number; without the column the parameter b"),
                    ("power", "Float64", "p, a pure number; without the column the parameter power"),
                    ("toll", "Float64", "in the unit that toll_weight expects; null or no column: no toll"),
                    ("closed", "Boolean", "true: nobody may use it; null or no column: open"),
                ],
            },
            TableShape {
                role: "demand",
                description: "Trips, a row a pair of nodes; rows of the same pair are added up.",
                columns: vec![
                    ("origin", "Int64", "node where the trips begin"),
                    ("destination", "Int64", "node where they end"),
                    (
                        "flow_vph",
                        "Float64",
                        "vehicles an hour; with elastic demand those at the reference cost",
                    ),
                    (
                        "reference_cost_s",
                        "Float64",
                        "for elastic demand: the cost at which there are flow_vph trips; null or no column: \
                         the cost at free flow",
                    ),
                    (
                        "class",
                        "Utf8",
                        "whose trips, with a table of classes; no column: all classes by share",
                    ),
                ],
            },
            TableShape {
                role: "classes",
                description: "Optional: groups of trips that take different room and weigh toll and distance \
                              differently, a row a class.",
                columns: vec![
                    ("class", "Utf8", "its name, unique"),
                    ("pce", "Float64", "passenger-car equivalents of a vehicle; no column: 1"),
                    ("toll_weight", "Float64", "no column: the parameter"),
                    ("distance_weight", "Float64", "no column: the parameter"),
                    (
                        "share",
                        "Float64",
                        "part of the trips where the demand has no column class; no column: 1",
                    ),
                ],
            },
            TableShape {
                role: "nodes",
                description: "Optional. Without it the ends of the links are the nodes, all open to through \
                              traffic.",
                columns: vec![
                    ("node_id", "Int64", "names the node, unique"),
                    ("through", "Boolean", "false: trips may begin and end there, but not pass; null: true"),
                ],
            },
        ],
        outputs: vec![
            TableShape {
                role: "links",
                description: "A row for each link taken, in the same order.",
                columns: vec![
                    ("link_id", "Int64", "the link"),
                    ("from_node", "Int64", "where it begins"),
                    ("to_node", "Int64", "where it ends"),
                    ("flow_vph", "Float64", "vehicles an hour of all classes; 0 where closed"),
                    (
                        "cost_s",
                        "Float64",
                        "generalized cost at v by the parameters' weights, in the unit of t0; null where closed",
                    ),
                    ("travel_time_s", "Float64", "t at v, in the unit of t0; null where closed"),
                    (
                        "volume_capacity_ratio",
                        "Float64",
                        "v/k, v in passenger-car equivalents; null where closed or where k is 0",
                    ),
                    ("closed", "Boolean", "whether it was closed"),
                ],
            },
            TableShape {
                role: "unassigned",
                description: "Trips that no path of open links joins; a row a pair, empty when there is none.",
                columns: vec![
                    ("origin", "Int64", "node where the trips begin"),
                    ("destination", "Int64", "node where they end"),
                    ("flow_vph", "Float64", "vehicles an hour"),
                    ("class", "Utf8", "the class, where there is a table of classes"),
                ],
            },
            TableShape {
                role: "class_links",
                description: "With a table of classes: a row for each class and link.",
                columns: vec![
                    ("class", "Utf8", "the class"),
                    ("link_id", "Int64", "the link"),
                    ("flow_vph", "Float64", "vehicles of the class an hour"),
                    ("cost_s", "Float64", "what the link costs one of them; null where closed"),
                ],
            },
            TableShape {
                role: "demand",
                description: "With elastic demand: what each pair costs and how many of its trips are made.",
                columns: vec![
                    ("origin", "Int64", "node where the trips begin"),
                    ("destination", "Int64", "node where they end"),
                    ("flow_vph", "Float64", "trips made, vehicles an hour"),
                    (
                        "forgone_vph",
                        "Float64",
                        "trips that would be made at the cost of free flow, but are not",
                    ),
                    (
                        "cost_s",
                        "Float64",
                        "cost of the cheapest route (at a system optimum marginal cost), in the unit of t0",
                    ),
                    ("class", "Utf8", "the class, where there is a table of classes"),
                ],
            },
        ],
        parameters: vec![
            parameter(
                "relative_gap",
                "stop when (sum of v c(v) - sum of trips at their cheapest route) / sum of v c(v) is not above it",
                "",
                json!(1e-6),
            ),
            parameter("max_iterations", "stop after so many iterations, converged or not", "", json!(1000)),
            parameter(
                "toll_weight",
                "weight of the toll in the generalized cost",
                "t0 unit per toll unit",
                json!(0.0),
            ),
            parameter(
                "distance_weight",
                "weight of length_m in the generalized cost",
                "t0 unit per length unit",
                json!(0.0),
            ),
            parameter(
                "objective",
                "'user_equilibrium' or 'system_optimum'",
                "",
                json!(Principle::UserEquilibrium.name()),
            ),
            parameter("b", "b of links in a table without a column b", "", json!(0.15)),
            parameter("power", "p of links in a table without a column power", "", json!(4.0)),
            parameter(
                "demand_function",
                "'fixed': all trips are made; 'linear', 'exponential' or 'power': fewer the more they cost",
                "",
                json!("fixed"),
            ),
            parameter(
                "elasticity",
                "share of trips lost for a share of cost gained at the reference cost, unless the demand is fixed",
                "",
                json!(0.5),
            ),
        ],
    }
}
