//! What it costs to travel a link: the function of the United States Bureau of Public Roads.
//!
//! Bureau of Public Roads, *Traffic Assignment Manual*, Washington 1964:
//! `t(v) = t0 (1 + b (v/k)^p)`, with flow `v`, capacity `k`, free-flow time `t0`. The generalized cost adds what does
//! not depend on the flow: `c(v) = t(v) + toll_weight · toll + distance_weight · length`.
//!
//! A user equilibrium minimises `Σ ∫₀ᵛ c(s) ds` (Beckmann, McGuire, Winsten 1956); a system optimum minimises
//! `Σ v c(v)` and is the equilibrium of the marginal cost `c(v) + v c'(v)`, which is again of the form above with
//! `b (1 + p)` for `b`. So one function serves both.
//!
//! A trip that is not made because it costs too much is on a link of its own kind, whose cost is what the trip would have been
//! worth: the inverse of the demand function (see [`super::elastic`]).

/// Which of the two is sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Principle {
    /// Nobody gains by changing route (Wardrop 1952, first principle).
    UserEquilibrium,
    /// The total cost is least (Wardrop 1952, second principle).
    SystemOptimum,
}

/// How the power is computed; the common exponents need no call to `powf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exponent {
    /// The cost does not depend on the flow.
    Constant,
    One,
    Four,
    Whole(i32),
    Any,
    /// `fixed − scale ln(1 − flow / capacity)`: the inverse of a demand that falls exponentially with the cost.
    Logarithm,
    /// `fixed + scale ((1 − flow / capacity)^(−power) − 1)`: the inverse of a demand of constant elasticity.
    Hyperbola,
}

/// The part of a demand that is always there: what the last trip is worth has no bound, but a computer's numbers have.
const LEAST_SHARE: f64 = 1e-12;

/// The cost function of one link: `fixed + scale · (flow / capacity)^power`, or one of the two others of [`Exponent`].
#[derive(Debug, Clone)]
pub(crate) struct LinkCost {
    fixed: f64,
    scale: f64,
    inverse_capacity: f64,
    power: f64,
    exponent: Exponent,
}

/// Cost and its derivative by flow, at one flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CostAt {
    pub(crate) cost: f64,
    pub(crate) slope: f64,
}

impl LinkCost {
    /// `fixed` is the sum of free-flow time and weighted toll and length; `congestion` is `t0 · b`. All finite and
    /// not negative; `capacity` positive unless `congestion` is zero.
    pub(crate) fn new(fixed: f64, congestion: f64, capacity: f64, power: f64, principle: Principle) -> Self {
        if congestion == 0.0 || power == 0.0 {
            // (v/k)^0 is 1 also where v is 0: the congestion is there at every flow.
            let fixed = if power == 0.0 { fixed + congestion } else { fixed };
            return Self {
                fixed,
                scale: 0.0,
                inverse_capacity: 0.0,
                power: 0.0,
                exponent: Exponent::Constant,
            };
        }
        let scale = match principle {
            Principle::UserEquilibrium => congestion,
            Principle::SystemOptimum => congestion * (1.0 + power),
        };
        let exponent = if power == 1.0 {
            Exponent::One
        } else if power == 4.0 {
            Exponent::Four
        } else if power.fract() == 0.0 && power <= 32.0 {
            Exponent::Whole(power as i32)
        } else {
            Exponent::Any
        };
        Self { fixed, scale, inverse_capacity: capacity.recip(), power, exponent }
    }

    /// A link that costs nothing.
    pub(crate) fn free() -> Self {
        Self::new(0.0, 0.0, 1.0, 1.0, Principle::UserEquilibrium)
    }

    /// `fixed − scale ln(1 − flow / capacity)`.
    pub(crate) fn logarithm(fixed: f64, scale: f64, capacity: f64) -> Self {
        Self { fixed, scale, inverse_capacity: capacity.recip(), power: 1.0, exponent: Exponent::Logarithm }
    }

    /// `fixed (1 − flow / capacity)^(−power)`.
    pub(crate) fn hyperbola(fixed: f64, power: f64, capacity: f64) -> Self {
        Self { fixed, scale: fixed, inverse_capacity: capacity.recip(), power, exponent: Exponent::Hyperbola }
    }

    /// Cost and slope at a flow that is not negative. The slope is infinite at flow 0 where `0 < power < 1`.
    #[inline]
    pub(crate) fn at(&self, flow: f64) -> CostAt {
        let ratio = flow * self.inverse_capacity;
        let below = match self.exponent {
            Exponent::Constant => return CostAt { cost: self.fixed, slope: 0.0 },
            Exponent::One => 1.0,
            Exponent::Four => ratio * ratio * ratio,
            Exponent::Whole(power) => ratio.powi(power - 1),
            Exponent::Any if ratio == 0.0 => {
                let slope = if self.power < 1.0 { f64::INFINITY } else { 0.0 };
                return CostAt { cost: self.fixed, slope };
            }
            Exponent::Any => ratio.powf(self.power - 1.0),
            Exponent::Logarithm => {
                let left = (1.0 - ratio).max(LEAST_SHARE);
                return CostAt {
                    cost: self.fixed - self.scale * left.ln(),
                    slope: self.scale * self.inverse_capacity / left,
                };
            }
            Exponent::Hyperbola => {
                let left = (1.0 - ratio).max(LEAST_SHARE);
                let risen = self.scale * left.powf(-self.power);
                return CostAt {
                    cost: self.fixed - self.scale + risen,
                    slope: self.power * self.inverse_capacity * risen / left,
                };
            }
        };
        CostAt {
            cost: self.fixed + self.scale * below * ratio,
            slope: self.scale * self.power * self.inverse_capacity * below,
        }
    }

    /// `∫₀^flow cost(s) ds`.
    pub(crate) fn integral(&self, flow: f64) -> f64 {
        let left = (1.0 - flow * self.inverse_capacity).max(LEAST_SHARE);
        let beyond = match self.exponent {
            Exponent::Logarithm => Some(left * left.ln() + 1.0 - left),
            Exponent::Hyperbola if self.power == 1.0 => Some(-left.ln() - (1.0 - left)),
            Exponent::Hyperbola => {
                let rest = 1.0 - self.power;
                Some((1.0 - left.powf(rest)) / rest - (1.0 - left))
            }
            _ => None,
        };
        if let Some(beyond) = beyond {
            return flow * self.fixed + self.scale / self.inverse_capacity * beyond;
        }
        let congested = self.at(flow).cost - self.fixed;
        flow * (self.fixed + congested / (self.power + 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions() -> Vec<LinkCost> {
        [0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 4.734, 5.0, 20.0]
            .into_iter()
            .map(|power| LinkCost::new(6.0, 0.9, 1500.0, power, Principle::UserEquilibrium))
            .chain([LinkCost::new(3.0, 0.0, 1.0, 4.0, Principle::UserEquilibrium), LinkCost::free()])
            .chain([LinkCost::logarithm(5.0, 2.0, 30_000.0)])
            .chain([0.4, 1.0, 2.5].map(|power| LinkCost::hyperbola(5.0, power, 30_000.0)))
            .collect()
    }

    #[test]
    fn slope_is_the_derivative_and_integral_the_antiderivative() {
        for function in functions() {
            for flow in [700.0, 1500.0, 2900.0] {
                let step = 1e-3 * flow;
                let by_difference =
                    (function.at(flow + step).cost - function.at(flow - step).cost) / (2.0 * step);
                let slope = function.at(flow).slope;
                assert!(
                    (slope - by_difference).abs() <= 1e-3 * slope.abs().max(1e-12),
                    "{function:?} {flow}"
                );
                let by_difference =
                    (function.integral(flow + step) - function.integral(flow - step)) / (2.0 * step);
                let cost = function.at(flow).cost;
                assert!((cost - by_difference).abs() <= 1e-3 * cost, "{function:?} {flow}");
            }
            assert_eq!(function.integral(0.0), 0.0);
        }
    }

    #[test]
    fn has_the_value_of_the_manual() {
        let function = LinkCost::new(10.0, 1.5, 2000.0, 4.0, Principle::UserEquilibrium);
        assert_eq!(function.at(0.0).cost, 10.0);
        assert_eq!(function.at(2000.0).cost, 11.5);
        assert_eq!(function.at(4000.0).cost, 34.0);
        // power 0 with b: constant, the congestion always there; b 0: constant without it
        assert_eq!(LinkCost::new(10.0, 1.5, 1.0, 0.0, Principle::SystemOptimum).at(0.0).cost, 11.5);
        assert_eq!(LinkCost::new(10.0, 0.0, 1.0, 0.0, Principle::UserEquilibrium).at(5.0).cost, 10.0);
    }

    #[test]
    fn marginal_cost_integrates_to_the_total_cost() {
        let user = LinkCost::new(6.0, 0.9, 1500.0, 4.0, Principle::UserEquilibrium);
        let system = LinkCost::new(6.0, 0.9, 1500.0, 4.0, Principle::SystemOptimum);
        let (flow, at) = (1300.0, user.at(1300.0));
        assert!((system.at(flow).cost - (at.cost + flow * at.slope)).abs() < 1e-12);
        assert!((system.integral(flow) - flow * at.cost).abs() < 1e-9);
    }
}
