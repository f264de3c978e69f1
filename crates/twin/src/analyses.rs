//! What operators take from the twins when they are asked something that is kept nowhere: the ways of a scenario, what lies within
//! ten minutes of a stop. A simulation adds columns to a twin; an analysis adds nothing to anything.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::Parameters;

use crate::model::TwinModel;

/// The tables that a model has for operators which answer questions: `simulate('isochrone', origins => 'SELECT …')`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// The operators that it is for; all of them take these inputs and parameters.
    pub operators: Vec<String>,
    /// Inputs that a question need not give: role → SQL over lake and twins, run in the tense of the question. Rows are handed
    /// over in the order of their columns.
    pub inputs: IndexMap<String, String>,
    /// Parameters of questions that do not give them.
    #[serde(default)]
    pub parameters: Parameters,
}

impl TwinModel {
    /// What the model says of an operator that is asked.
    pub(crate) fn analysis(&self, operator: &str) -> Option<&Analysis> {
        self.analyses.iter().find(|analysis| analysis.operators.iter().any(|it| it == operator))
    }

    /// Inputs and parameters by operator.
    pub(crate) fn analyses_by_operator(&self) -> IndexMap<String, &Analysis> {
        let each = |analysis| move |operator: &String| (operator.clone(), analysis);
        self.analyses.iter().flat_map(|analysis| analysis.operators.iter().map(each(analysis))).collect()
    }
}
