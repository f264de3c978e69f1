//! What every link carries and costs at the moment.

use super::bush::Bush;
use super::cost::LinkCost;

/// Flow, cost and slope of all links, kept together: whoever changes a flow updates the costs. A link costs every class of
/// users its time, which depends on the flow of all, and a surcharge of the class.
pub(crate) struct LinkStates {
    functions: Vec<LinkCost>,
    surcharge: Vec<Vec<f64>>,
    /// Flow of all classes by link.
    pub(crate) flow: Vec<f64>,
    /// Cost by class and link.
    pub(crate) cost: Vec<Vec<f64>>,
    pub(crate) slope: Vec<f64>,
    /// Flow by class and link, as of the last [`LinkStates::load`].
    pub(crate) class_flow: Vec<Vec<f64>>,
}

impl LinkStates {
    /// All links empty; `surcharge` by class and link.
    pub(crate) fn new(functions: Vec<LinkCost>, surcharge: Vec<Vec<f64>>) -> Self {
        let flow = vec![0.0; functions.len()];
        let mut states = Self {
            cost: surcharge.clone(),
            class_flow: vec![flow.clone(); surcharge.len()],
            slope: flow.clone(),
            flow,
            functions,
            surcharge,
        };
        (0..states.flow.len()).for_each(|link| states.set_flow(link, 0.0));
        states
    }

    #[inline]
    pub(crate) fn set_flow(&mut self, link: usize, flow: f64) {
        let at = self.functions[link].at(flow);
        self.flow[link] = flow;
        self.slope[link] = at.slope;
        for (cost, surcharge) in self.cost.iter_mut().zip(&self.surcharge) {
            cost[link] = at.cost + surcharge[link];
        }
    }

    /// All flows anew from the bushes, without the rounding errors of many shifts.
    pub(crate) fn load(&mut self, bushes: &[Bush]) {
        self.class_flow.iter_mut().for_each(|flow| flow.fill(0.0));
        for bush in bushes {
            bush.add_flows_to(&mut self.class_flow[bush.class()]);
        }
        for link in 0..self.flow.len() {
            let flow = self.class_flow.iter().map(|flow| flow[link]).sum();
            self.set_flow(link, flow);
        }
    }

    /// The slope of the objective when all flows go on by `stretch` times `direction`, without the surcharges' part.
    pub(crate) fn slope_along(&self, direction: &[f64], stretch: f64) -> f64 {
        direction.iter().enumerate().filter(|(_, change)| **change != 0.0).fold(0.0, |sum, (link, change)| {
            let flow = (self.flow[link] + stretch * change).max(0.0);
            sum + change * self.functions[link].at(flow).cost
        })
    }

    /// What the link costs the class beside the time.
    pub(crate) fn surcharge(&self, class: usize, link: u32) -> f64 {
        self.surcharge[class][link as usize]
    }

    /// `Σ ∫₀ᵛ t(s) ds + Σ v s`, over links and over classes and links, what an equilibrium minimises; as of the last load.
    pub(crate) fn objective(&self) -> f64 {
        let integrals = self
            .functions
            .iter()
            .zip(&self.flow)
            .fold(0.0, |sum, (function, &flow)| sum + function.integral(flow));
        integrals + products(&self.class_flow, &self.surcharge)
    }

    /// `Σ v c(v)` over classes and links, as of the last load.
    pub(crate) fn total_cost(&self) -> f64 {
        products(&self.class_flow, &self.cost)
    }
}

fn products(ones: &[Vec<f64>], others: &[Vec<f64>]) -> f64 {
    ones.iter().flatten().zip(others.iter().flatten()).fold(0.0, |sum, (one, other)| sum + one * other)
}
