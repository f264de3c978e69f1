//! What every link carries and costs at the moment.

use crate::cost::LinkCost;

/// Flow, cost and slope of all links, kept together: whoever changes a flow updates the cost.
pub(crate) struct LinkStates {
    functions: Vec<LinkCost>,
    pub(crate) flow: Vec<f64>,
    pub(crate) cost: Vec<f64>,
    pub(crate) slope: Vec<f64>,
}

impl LinkStates {
    /// All links empty.
    pub(crate) fn new(functions: Vec<LinkCost>) -> Self {
        let flow = vec![0.0; functions.len()];
        let mut states = Self { cost: flow.clone(), slope: flow.clone(), flow, functions };
        (0..states.flow.len()).for_each(|link| states.set_flow(link, 0.0));
        states
    }

    #[inline]
    pub(crate) fn set_flow(&mut self, link: usize, flow: f64) {
        let at = self.functions[link].at(flow);
        self.flow[link] = flow;
        self.cost[link] = at.cost;
        self.slope[link] = at.slope;
    }

    /// The slope of the objective when all flows go on by `stretch` times `direction`.
    pub(crate) fn slope_along(&self, direction: &[f64], stretch: f64) -> f64 {
        direction.iter().enumerate().filter(|(_, change)| **change != 0.0).fold(0.0, |sum, (link, change)| {
            let flow = (self.flow[link] + stretch * change).max(0.0);
            sum + change * self.functions[link].at(flow).cost
        })
    }

    /// `Σ ∫₀ᵛ c(s) ds`, what an equilibrium minimises.
    pub(crate) fn objective(&self) -> f64 {
        self.functions
            .iter()
            .zip(&self.flow)
            .fold(0.0, |sum, (function, &flow)| sum + function.integral(flow))
    }

    /// `Σ v c(v)`.
    pub(crate) fn total_cost(&self) -> f64 {
        self.flow.iter().zip(&self.cost).fold(0.0, |sum, (flow, cost)| sum + flow * cost)
    }
}
