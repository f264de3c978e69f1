//! Simulation operators: pure functions from a frozen snapshot and a seed to tables of results.
//!
//! An operator is one file that implements [`twinlake_contracts::Operator`] and one line in [`registry`]. What it
//! reads, gives and means, with units and the source of its equations, is in its `describe()`. No operator opens a
//! file, asks a clock or starts a runtime: the same input gives the same bytes on any number of threads.

mod accessibility;
mod adjacency;
mod block_lu;
mod cholesky;
mod columns;
mod isochrone;
mod parameters;
mod power_flow;
mod production_line;
mod recent;
mod route;
mod routing;
mod traffic_assignment;
mod transit;
mod water_network;

use twinlake_contracts::OperatorRegistry;

pub use accessibility::Accessibility;
pub use isochrone::Isochrone;
pub use power_flow::PowerFlow;
pub use production_line::ProductionLine;
pub use route::Route;
pub use traffic_assignment::TrafficAssignment;
pub use water_network::WaterNetwork;

/// All operators. To add one: its file, its `mod`, its line here.
pub fn registry() -> OperatorRegistry {
    OperatorRegistry::default()
        .with(TrafficAssignment)
        .with(PowerFlow)
        .with(WaterNetwork)
        .with(ProductionLine)
        .with(Route)
        .with(Isochrone)
        .with(Accessibility)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_describes_itself_completely() {
        let mut names = Vec::new();
        for operator in registry().iter() {
            let spec = operator.describe();
            assert!(!spec.description.is_empty() && !spec.source.is_empty(), "{}", spec.name);
            assert!(!spec.inputs.is_empty() && !spec.outputs.is_empty(), "{}", spec.name);
            for parameter in &spec.parameters {
                assert!(!parameter.description.is_empty(), "{}.{}", spec.name, parameter.name);
            }
            names.push(spec.name);
        }
        let all = [
            "accessibility",
            "isochrone",
            "power_flow",
            "production_line",
            "route",
            "traffic_assignment",
            "water_network",
        ];
        assert_eq!(names, all);
        assert!(
            registry()
                .get("traffic_asignment")
                .err()
                .is_some_and(|error| { error.to_string().contains("did you mean 'traffic_assignment'") })
        );
    }
}
