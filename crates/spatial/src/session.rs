//! What a session needs beside the functions: rules and operators.

use datafusion::execution::SessionStateBuilder;

/// Adds the joins of space and time to a session; to be called after `with_default_features`.
pub fn configure(builder: SessionStateBuilder) -> SessionStateBuilder {
    let builder = builder.with_analyzer_rule(std::sync::Arc::new(crate::join::LateralNearest));
    let builder = builder.with_physical_optimizer_rules(crate::join::physical_optimizer_rules());
    crate::time::configure(builder)
}
