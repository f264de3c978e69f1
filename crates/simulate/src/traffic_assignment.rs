//! The operator `traffic_assignment`: which way everybody drives when nobody can gain by another way.

mod assignment;
mod bush;
mod classes;
mod cost;
mod describe;
mod elastic;
mod input;
mod link_states;
mod network;
mod report;
mod shortest_path;
mod stride;

use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, Parameters, Progress, Result, Snapshot,
};

use assignment::{Limits, assign};
use classes::UserClass;
use cost::{LinkCost, Principle};
use elastic::{Elasticity, Form};
use input::{BprDefaults, Demand, Links, read_nodes};
use network::Network;

use crate::parameters::{number, word};

/// Static traffic assignment with BPR link costs by Algorithm B (Dial 2006), for one class of users or several, with fixed or
/// elastic demand.
///
/// Takes `links`, `demand` and, if given, `nodes` and `classes`; gives `links` (a row for each row taken, in the same order),
/// `unassigned` (the demand that has no path), with classes also `class_links`, and with elastic demand `demand`. Times and
/// costs are in the unit of `free_flow_time_s`, whatever that is in the input: seconds, or the file's own unit for TNTP
/// files. Static: horizon and seed change nothing.
pub struct TrafficAssignment;

impl Operator for TrafficAssignment {
    fn describe(&self) -> OperatorSpec {
        describe::describe()
    }

    fn run(
        &self,
        city: &Snapshot,
        _horizon: Horizon,
        _seed: u64,
        parameters: &Parameters,
        progress: Progress<'_>,
    ) -> Result<Outcome> {
        let settings = Settings::read(&self.describe().resolve(parameters)?)?;
        let links = Links::read(city.table("links")?, settings.defaults)?;
        let nodes = city.tables.get("nodes").map(read_nodes).transpose()?;
        let everybody = UserClass::everybody(settings.toll_weight, settings.distance_weight);
        let classes = match city.tables.get("classes") {
            Some(table) => UserClass::read(table, &everybody)?,
            None => vec![everybody],
        };
        let network = Network::new(&links, nodes)?;
        let demand = Demand::read(city.table("demand")?, &network, &classes)?;
        let (functions, surcharge) = settings.costs(&links, &network, &classes, demand.total())?;
        let intrazonal = demand.intrazonal;
        let case = report::Case { settings: &settings, links: &links, classes: &classes, intrazonal };
        let Some(elasticity) = settings.elasticity else {
            let solved = assign(&network, demand.origins, functions, surcharge, settings.limits, progress)?;
            return report::report(&case, &network, &solved, None);
        };
        let mut stretched = elastic::stretch(&network, &demand, elasticity, &functions, &surcharge)?;
        // At the cost of free flow there may be more trips than at the reference: costs must be computable for them, too.
        settings.costs(&links, &network, &classes, stretched.most())?;
        let origins = std::mem::take(&mut stretched.demand);
        let (functions, surcharge) = (stretched.functions.split_off(0), stretched.surcharge.split_off(0));
        let mut solved =
            assign(&stretched.network, origins, functions, surcharge, settings.limits, progress)?;
        solved.unassigned.append(&mut stretched.unassigned);
        report::report(&case, &stretched.network, &solved, Some(&stretched.pairs))
    }
}

/// The parameters, checked.
struct Settings {
    limits: Limits,
    toll_weight: f64,
    distance_weight: f64,
    principle: Principle,
    defaults: BprDefaults,
    /// `None`: all trips are made, whatever they cost.
    elasticity: Option<Elasticity>,
}

impl Settings {
    fn read(parameters: &Parameters) -> Result<Self> {
        let not_negative =
            |name: &str| number(parameters, name, "a number, not negative", |value| value >= 0.0);
        let gap = number(parameters, "relative_gap", "a number above 0 and below 1", |v| v > 0.0 && v < 1.0)?;
        let iterations = number(parameters, "max_iterations", "a whole number from 1 to 1000000", |value| {
            value.fract() == 0.0 && (1.0..=1e6).contains(&value)
        })?;
        let both = [Principle::UserEquilibrium, Principle::SystemOptimum];
        let objective = word(parameters, "objective", &both.map(Principle::name))?;
        let principle = if objective == both[0].name() { both[0] } else { both[1] };
        let [linear, exponential, power] = Form::ALL.map(Form::name);
        let function = word(parameters, "demand_function", &["fixed", linear, exponential, power])?;
        let form = Form::ALL.into_iter().find(|form| form.name() == function);
        let elasticity =
            number(parameters, "elasticity", "a number above 0, at most 100", |v| v > 0.0 && v <= 100.0)?;
        Ok(Self {
            elasticity: form.map(|form| Elasticity { form, elasticity }),
            limits: Limits { relative_gap: gap, iterations: iterations as u64 },
            toll_weight: number(parameters, "toll_weight", "a finite number", |_| true)?,
            distance_weight: number(parameters, "distance_weight", "a finite number", |_| true)?,
            principle,
            defaults: BprDefaults { b: not_negative("b")?, power: not_negative("power")? },
        })
    }

    /// What a link costs a class beside its travel time.
    fn surcharge(class: &UserClass, links: &Links, row: usize) -> f64 {
        class.toll_weight * links.toll[row] + class.distance_weight * links.length[row]
    }

    /// The time functions by link of the network, and the surcharges by class and link. A cost that is negative, or that
    /// is beyond all numbers if all trips took every link, is refused, so that no sum of costs met later can be.
    fn costs(
        &self,
        links: &Links,
        network: &Network,
        classes: &[UserClass],
        trips: f64,
    ) -> Result<(Vec<LinkCost>, Vec<Vec<f64>>)> {
        let mut most = 0.0;
        let mut functions = Vec::with_capacity(network.links());
        let mut surcharge = vec![Vec::with_capacity(network.links()); classes.len()];
        for row in (0..network.links()).filter_map(|link| network.row(link)) {
            let time = links.free_flow_time[row];
            let mut largest = 0.0_f64;
            for (class, surcharge) in classes.iter().zip(&mut surcharge) {
                let over = Self::surcharge(class, links, row);
                let fixed = time + over;
                if fixed < 0.0 {
                    return Err(Error::config(format!(
                        "{} has the negative cost {fixed} at free flow, with its toll and length weighted{}",
                        links.name(row),
                        class.shown().replacen(" of", " for", 1)
                    )));
                }
                largest = largest.max(over);
                surcharge.push(over);
            }
            let function = LinkCost::new(
                time,
                links.congestion(row),
                links.capacity[row],
                links.power[row],
                self.principle,
            );
            let full = function.at(trips);
            let cost = full.cost + largest;
            most += cost.max(cost * trips);
            if !most.is_finite() || (trips > 0.0 && !full.slope.is_finite()) {
                return Err(Error::config(format!(
                    "{} has a cost too large to compute with if all {trips} trips take it",
                    links.name(row)
                ))
                .with_help("look at its free_flow_time_s, capacity_vph, b and power"));
            }
            functions.push(function);
        }
        Ok((functions, surcharge))
    }
}

impl Principle {
    fn name(self) -> &'static str {
        match self {
            Self::UserEquilibrium => "user_equilibrium",
            Self::SystemOptimum => "system_optimum",
        }
    }
}

#[cfg(test)]
mod optional_tests;
#[cfg(test)]
mod published_optima;
#[cfg(test)]
mod tests;
